"""The compiled core: what is asked for is what runs, and what the compiler gets wrong is not written."""

from __future__ import annotations

import ast
import importlib
import os
import pkgutil
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

import gateway
from gateway.guard.hook import Exchange

PROJECT = Path(__file__).resolve().parents[1]


def compiled_modules() -> list[Path]:
    """As setup.py lists them."""
    text = (
        (PROJECT / "setup.py").read_text().partition("\nif os.environ")[0].replace("from setuptools import setup", "")
    )
    names: dict[str, object] = {}
    here = Path.cwd()
    os.chdir(PROJECT)
    try:
        exec(text, names)
        return [PROJECT / path for path in names["sources"]()]  # type: ignore[operator]
    finally:
        os.chdir(here)


MODULES = compiled_modules()
COMPILED = pytest.mark.skipif("build/compiled" not in os.environ.get("PYTHONPATH", ""), reason="runs with COMPILED=1")
IDS = [str(path.relative_to(PROJECT)) for path in MODULES]


def test_the_rooms_of_a_message_are_compiled() -> None:
    assert {path.parent.name for path in MODULES} == {"wire", "protocol", "guard", "identity", "record", "relay"}
    assert {"strict.py", "chain.py", "sanitize.py", "intake.py", "lane.py"} <= {path.name for path in MODULES}


@COMPILED
@pytest.mark.parametrize("path", MODULES, ids=IDS)
def test_what_runs_is_the_compiled_core(path: Path) -> None:
    assert gateway.__file__ == str(PROJECT / "build" / "compiled" / "gateway" / "__init__.py")
    module = importlib.import_module(".".join(path.relative_to(PROJECT).with_suffix("").parts))
    assert module.__file__ is not None
    assert module.__file__.endswith(".so")


@COMPILED
def test_what_is_plain_derives_from_nothing_that_is_compiled() -> None:
    """The interpreter finds that out when one is made."""
    modules = [importlib.import_module(each.name) for each in pkgutil.walk_packages(gateway.__path__, "gateway.")]
    native = {each.__name__ for each in modules if str(each.__file__).endswith(".so")}
    assert native
    for module in modules:
        classes = [
            each for each in vars(module).values() if isinstance(each, type) and each.__module__ == module.__name__
        ]
        for each in classes if module.__name__ not in native else ():
            assert not [base for base in each.__mro__ if base.__module__ in native], each


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def own_nodes(function: ast.AST) -> Iterator[ast.AST]:
    """What stands in a function, but not in functions within it."""
    for node in ast.iter_child_nodes(function):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield node
            yield from own_nodes(node)


@pytest.mark.parametrize("path", MODULES, ids=IDS)
def test_a_name_holds_one_type_of_exception(path: Path) -> None:
    """The compiler gives a name the type of its first exception, and then raises TypeError for the second."""
    for function in functions(ast.parse(path.read_text())):
        kinds = defaultdict(set)
        for node in own_nodes(function):
            if isinstance(node, ast.ExceptHandler) and node.name and node.type is not None:
                kinds[node.name].add(ast.unparse(node.type))
        assert all(len(each) == 1 for each in kinds.values()), (function.name, dict(kinds))


@pytest.mark.parametrize("path", MODULES, ids=IDS)
def test_what_the_compiler_gets_wrong(path: Path) -> None:
    """Arguments with a star of ``super().__init__`` arrive as one tuple; a dict that can be called crashes."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "super().__init__":
            assert not any(isinstance(each, ast.Starred) for each in node.args), node.lineno
        if isinstance(node, ast.ClassDef) and any(ast.unparse(base).startswith("dict") for base in node.bases):
            assert not any(isinstance(each, ast.FunctionDef) and each.name == "__call__" for each in node.body), (
                node.name
            )


def test_a_hook_may_be_given_what_it_asks_for() -> None:
    """What hooks and their tests make themselves takes keywords, compiled or not."""
    exchange = Exchange(request="r-1", client="c", upstream="u", policy_name="p", policy=gateway.config.Policy())
    assert (exchange.client, exchange.findings, exchange.state, exchange.now) == ("c", [], {}, 0.0)
