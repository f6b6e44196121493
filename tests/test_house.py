"""The house itself: what every file of the project must hold to, whoever wrote it."""

from __future__ import annotations

import ast
import configparser
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway import __version__

GENERATED = {"node_modules", "__pycache__", "build", "dist", "var"}
# Folders that exist on one machine alone.
MACHINE = re.compile(rb"(?<![\w./-])/(?:home|root|Users|work|tmp/\w+)/\w")


def files(root: Path) -> Iterator[Path]:
    """The source tree without what is generated; of hidden folders, only those that hold sources."""
    for folder, folders, names in os.walk(root):
        folders[:] = [
            name
            for name in folders
            if name not in GENERATED
            and not name.endswith(".egg-info")
            and (not name.startswith(".") or name in {".ci", ".github"})
        ]
        yield from (Path(folder, name) for name in names)


def test_no_file_knows_a_machine(project: Path) -> None:
    found = [
        f"{path.relative_to(project)}:{number}"
        for path in files(project)
        for number, line in enumerate(path.read_bytes().splitlines(), 1)
        if MACHINE.search(line)
    ]
    assert found == []


def modules() -> list[Path]:
    return sorted(Path(__file__).parent.parent.joinpath("gateway").rglob("*.py"))


@pytest.mark.parametrize("module", modules(), ids=lambda path: "/".join(path.parts[-2:]))
def test_modules_say_what_they_are_for(module: Path) -> None:
    tree = ast.parse(module.read_bytes())
    assert ast.get_docstring(tree)
    code = tree.body[1:]
    if code:
        assert isinstance(code[0], ast.ImportFrom)
        assert code[0].module == "__future__"


def configurations() -> list[Path]:
    config = Path(__file__).parent.parent / "config"
    return [config / "gateway.yaml", *sorted((config / "examples").rglob("*.yaml"))]


@pytest.mark.parametrize("file", configurations(), ids=lambda path: path.name)
def test_configuration_files_are_accepted(file: Path, tmp_path: Path) -> None:
    # What a file takes from its surroundings is there: each variable without a default, each credential.
    text = file.read_text()
    environ = dict.fromkeys(re.findall(r"\$\{(\w+)\}", text), "placeholder") | {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    for name in re.findall(r"\$\{CREDENTIALS_DIRECTORY\}/([\w-]+)", text):
        tmp_path.joinpath(name).write_text("placeholder\n")
    command = [Path(sys.executable).parent / "mcpgw", "check", file]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_dependencies_have_reasons(project: Path) -> None:
    setup = configparser.ConfigParser()
    setup.read(project / "setup.cfg")
    required = {re.split(r"[<>=!~;\[ ]", line)[0] for line in setup["options"]["install_requires"].split("\n") if line}
    rows = [line for line in (project / "README.md").read_text().splitlines() if line.startswith("|")]
    explained = {name for name in required for row in rows if re.search(rf"\b{re.escape(name)}\b", row.split("|")[1])}
    assert required - explained == set(), "name them in the README's table of dependencies"


def test_the_change_log_knows_the_version(project: Path) -> None:
    headings = re.findall(r"^## (\S+)", (project / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert __version__ in headings


def test_patterns_mean_the_same_to_every_python() -> None:
    # CPython before 3.11.5, such as Debian 12's, matches too much with a possessive quantifier behind a group:
    # (?:ab?c)*+ matches "a" (python/cpython#106052).  Behind one character or class it does as it should.
    possessive = re.compile(r"(?<!\()\)(?:[*+?]|\{[\d,]+\})\+")
    found = [
        f"{module.name}:{number}"
        for module in modules()
        for number, line in enumerate(module.read_text().splitlines(), 1)
        if possessive.search(line)
    ]
    assert found == [], "write the atomic group (?>(?:...)*) instead"


def test_the_package_holds_no_test_code(project: Path) -> None:
    for module in modules():
        assert not re.search(rb"^\s*(?:import|from) (?:pytest|hypothesis|tests)\b", module.read_bytes(), re.MULTILINE)
