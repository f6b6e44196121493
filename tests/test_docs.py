"""The documents name everything that a user can write or meet, say the same as the code, and name nothing else."""

from __future__ import annotations

import ast
import re
import shlex
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import click
import pytest
from pydantic import TypeAdapter
from pydantic.fields import FieldInfo

from gateway.cli import main
from gateway.config import Config, Section, load, units, values
from gateway.config.document import read
from gateway.protocol import errors
from gateway.wire import errors as wire_errors

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"

Row = dict[str, str]


# -- reading Markdown --------------------------------------------------------------------------------------------------


def tables(text: str) -> Iterator[tuple[str, list[Row]]]:
    """Each table with the heading above it; rows by column title."""
    heading = ""
    titles: list[str] | None = None
    rows: list[Row] = []
    for line in [*text.splitlines(), ""]:
        if line.startswith("#"):
            heading = line.lstrip("# ")
        if not line.startswith("|"):
            if titles is not None:
                yield heading, rows
            titles, rows = None, []
            continue
        cells = [cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if titles is None:
            titles = cells
        elif not set(line) <= set("|-: "):
            assert len(cells) == len(titles), f"a row with {len(cells)} cells, not {len(titles)}: {line}"
            rows.append(dict(zip(titles, cells, strict=True)))


def quoted(text: str) -> list[str]:
    """What stands in backquotes."""
    return re.findall(r"`([^`]+)`", text)


def fences(text: str) -> Iterator[tuple[str, str]]:
    """Each fenced block: the words after the fence, and what is in it."""
    for match in re.finditer(r"^( *)```([^\n`]*)\n(.*?)^\1```", text, re.MULTILINE | re.DOTALL):
        yield match[2].strip(), "".join(line.removeprefix(match[1]) for line in match[3].splitlines(keepends=True))


def documents() -> list[Path]:
    return [path for path in (ROOT / "README.md", *sorted(DOCS.glob("**/*.md"))) if path.exists()]


# -- configuration -----------------------------------------------------------------------------------------------------

FORMS = {
    "size": [units.Size],
    "duration": [units.Duration, units.OptionalDuration],
    "number": [units.Count],
    "port": [units.PortNumber],
    "`true` or `false`": [units.Switch],
    "address": [values.Host],
    "`Host` value": [values.Authority],
    "origin": [values.Origin],
    "name": [values.UpstreamName, values.CallerName, values.HookName],
    "name or `*`": [values.UpstreamReference],
    "pattern": [values.Pattern, values.UpstreamPattern],
    "size or `unlimited`": [units.OptionalSize],
    "digest": [values.Digest],
    "digest or list of digests": [values.Digests],
    "date and time": [values.Moment],
    "URL": [values.PublicUrl, values.UpstreamUrl],
    "mapping of header names to values": [values.HeaderMap],
    "key": (values.Key,),
}


def sections() -> dict[str, type[Section]]:
    """Every section by the path at which it stands; ``NAME`` for names, ``N`` for positions in a list."""
    found: dict[str, type[Section]] = {}

    def visit(kind: Any, path: str) -> None:
        origin, arguments = typing.get_origin(kind), typing.get_args(kind)
        if isinstance(kind, type) and issubclass(kind, Section):
            found[path] = kind
            for name, field in kind.model_fields.items():
                visit(field.annotation, f"{path}.{name}".removeprefix("."))
        elif origin is dict:
            visit(arguments[1], path + ".NAME")
        elif origin is tuple:
            visit(arguments[0], path + ".N")
        elif origin in (Annotated, types.UnionType, typing.Union):
            for argument in arguments[: 1 if origin is Annotated else None]:
                visit(argument, path)

    visit(Config, "")
    return found


def type_of(annotation: Any, metadata: tuple[Any, ...] | list[Any] = ()) -> str:
    """What the column Type says."""
    for label, forms in FORMS.items():
        for form in forms:
            # Pydantic takes the outer Annotated of a field apart.
            parts = FieldInfo.from_annotation(form).metadata
            if annotation == form or (metadata and all(part in metadata for part in parts)):
                return label
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (types.UnionType, typing.Union):
        options = [option for option in arguments if option is not types.NoneType]
        assert len(options) == 1
        return type_of(options[0], metadata)
    if origin is Literal:
        return " or ".join(f"`{option}`" for option in arguments)
    if origin is tuple:
        item = arguments[0]
        return "list of sections" if typing.get_origin(item) is None and item is not str else f"list: {type_of(item)}"
    if origin is dict:
        item = arguments[1]
        return "sections by name" if isinstance(item, type) and issubclass(item, Section) else "mapping"
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return "section"
    assert annotation is str, annotation
    return "text"


def check_default(field: FieldInfo, documented: str, key: str) -> None:
    """``required``, ``absent``, or in backquotes what could as well be written into the file."""
    if field.is_required():
        assert documented == "required", key
        return
    default = field.get_default(call_default_factory=True)
    if isinstance(default, Section) or default is None or default == "":
        assert documented == ("section" if isinstance(default, Section) else "absent"), key
        return
    problems: list[object] = []
    document = read(quoted(documented)[0], lambda *problem: problems.append(problem))
    assert document is not None and not problems, key
    annotation: Any = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
    assert TypeAdapter(annotation).validate_python(document.value) == default, f"{key}: documented is {documented}"


def test_every_configuration_key_is_documented_as_it_is() -> None:
    documented: dict[str, list[Row]] = {}
    for heading, rows in tables((DOCS / "configuration.md").read_text("utf-8")):
        if rows and "Key" in rows[0]:
            for path in quoted(heading) or [""]:
                assert path not in documented, f"{path} has two tables"
                documented[path] = rows
    known = sections()
    assert set(documented) == set(known)
    for path, section in known.items():
        rows = documented[path]
        assert [row["Key"] for row in rows] == [f"`{name}`" for name in section.model_fields], f"the keys of {path}"
        for row, (name, field) in zip(rows, section.model_fields.items(), strict=True):
            key = f"{path}.{name}".removeprefix(".")
            assert field.description, f"{key} has no description"
            assert row["Meaning"] == field.description, key
            assert row["Type"] == type_of(field.annotation, field.metadata), key
            check_default(field, row["Default"], key)


def test_every_key_that_an_error_can_name_exists() -> None:
    """``key="limits.body_timeout"`` in the code is what an operator will look for."""
    known = {
        re.sub(r"\.(NAME|N)\b", "", f"{path}.{name}").removeprefix(".")
        for path, section in sections().items()
        for name in section.model_fields
    }
    for file, keyword, value in _constant_keywords(("key", "limit")):
        plain = re.sub(r"\.\{[a-z_]+\}", "", value)
        assert plain in known, f"{file.relative_to(ROOT)} names {keyword}={value!r}, which is no configuration key"


def _constant_keywords(names: tuple[str, ...]) -> Iterator[tuple[Path, str, str]]:
    """Texts that calls in the package pass under one of these names."""
    for file in sorted((ROOT / "gateway").glob("**/*.py")):
        if file.is_relative_to(ROOT / "gateway" / "harness"):
            continue
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            for keyword in node.keywords:
                value = keyword.value
                if keyword.arg in names and isinstance(value, ast.Constant) and isinstance(value.value, str):
                    yield file, str(keyword.arg), value.value


# -- command line ------------------------------------------------------------------------------------------------------


def options(command: click.Command) -> dict[str, tuple[str, str]]:
    """Default and help of each option and argument, by how it is written."""
    found = {}
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            written = ", ".join(parameter.opts)
            if not parameter.is_flag:
                written += f" {parameter.make_metavar(click.Context(command))}"
            default = "required" if parameter.required else f"`{parameter.default}`" if parameter.show_default else ""
            found[f"`{written}`"] = (default, parameter.help or "")
        else:
            found[f"`{parameter.make_metavar(click.Context(command))}`"] = ("required", "")
    return found


def leaves_of(path: str, group: click.Group) -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, by the words that it takes; a group only gathers them."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from leaves_of(f"{path} {name}", command)
        else:
            yield f"{path} {name}", command


def test_every_command_and_option_is_documented_as_it_is() -> None:
    documented = {
        quoted(heading)[0]: {row["Option"]: (row["Default"], row["Meaning"]) for row in rows}
        for heading, rows in tables((DOCS / "cli.md").read_text("utf-8"))
        if rows and "Option" in rows[0]
    }
    commands = dict(leaves_of("mcpgw", main)) | {"mcpgw": main}
    assert set(documented) == set(commands)
    for name, command in commands.items():
        expected = options(command)
        assert set(documented[name]) == set(expected), name
        for option, (default, meaning) in expected.items():
            assert documented[name][option][0] == default, f"the default of {name} {option}"
            # An argument has no help text of its own in click; the document explains it.
            assert documented[name][option][1] == meaning or (not meaning and documented[name][option][1]), option


# -- errors ------------------------------------------------------------------------------------------------------------


def leaves() -> dict[str, type[errors.GatewayError]]:
    """Every error class that can be answered with; the abstract ones have no status."""
    found: dict[str, type[errors.GatewayError]] = {}
    pending: list[type[errors.GatewayError]] = [errors.GatewayError]
    while pending:
        for kind in pending.pop().__subclasses__():
            # Other tests define errors of their own.
            if kind.__module__.startswith("gateway."):
                pending.append(kind)
                if hasattr(kind, "status"):
                    found[kind.__name__] = kind
    return found


def test_every_error_is_documented_as_it_is() -> None:
    documented = {
        quoted(row["Class"])[0]: row
        for _, rows in tables((DOCS / "errors.md").read_text("utf-8"))
        for row in rows
        if "Class" in row
    }
    known = leaves()
    assert set(documented) == set(known)
    for name, kind in known.items():
        row = documented[name]
        assert (row["Status"], row["Code"], quoted(row["Reason"])) == (str(kind.status), str(kind.code), [kind.reason])
        assert row["Meaning"] and row["What to do"], name


def reasons() -> set[str]:
    """Every slug that the code can put into ``error.data.reason``, or for an upstream's fault into ``detail``."""
    found = {kind.reason for kind in leaves().values()} | {value for _, _, value in _constant_keywords(("reason",))}
    peer_errors = {name for name in wire_errors.__all__ if issubclass(getattr(wire_errors, name), Exception)}
    for file in sorted((ROOT / "gateway").glob("**/*.py")):
        if file.is_relative_to(ROOT / "gateway" / "harness"):
            continue
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            texts: list[ast.expr | None] = []
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in peer_errors:
                texts = [*node.args[:1]]
            elif isinstance(node, ast.Assign) and any(
                isinstance(t, ast.Name) and t.id == "reason" for t in node.targets
            ):
                # Both branches of a conditional expression, and not its condition.
                texts = [node.value.body, node.value.orelse] if isinstance(node.value, ast.IfExp) else [node.value]
            elif isinstance(node, ast.arguments):
                pairs = zip(node.kwonlyargs, node.kw_defaults, strict=True)
                texts = [default for argument, default in pairs if argument.arg == "reason"]
            found |= {text.value for text in texts if isinstance(text, ast.Constant) and isinstance(text.value, str)}
    return found


def test_every_reason_is_documented() -> None:
    """``error.data.reason`` is for machines: each slug that the code can put there is listed, and no other."""
    known = reasons()
    documented = {
        slug
        for _, rows in tables((DOCS / "errors.md").read_text("utf-8"))
        for row in rows
        if "Reason" in row
        for slug in quoted(row["Reason"])
    }
    assert documented - known == set(), "documented, but nowhere in the code"
    assert known - documented == set(), "in the code, but not documented"


# -- metrics -----------------------------------------------------------------------------------------------------------


def test_every_metric_is_documented() -> None:
    record = pytest.importorskip("gateway.record.metrics")
    registry = record.Metrics(("demo",), ("weather",)).registry
    known = {metric.name: metric for metric in registry.collect()}
    suffixes = ("", "_total", "_bucket", "_sum", "_count", "_created", "_info")
    samples = {name + suffix for name in known for suffix in suffixes}
    documented = set(re.findall(r"\bmcpgw_[a-z0-9_]+", (DOCS / "metrics.md").read_text("utf-8")))
    assert documented - samples == set(), "documented, but not in the registry"
    missing = {name for name in known if not documented & {name + suffix for suffix in suffixes}}
    assert missing == set(), "in the registry, but not documented"


# -- what the documents tell people to type ----------------------------------------------------------------------------

ENVIRON = {"WEATHER_TOKEN": "t0ken", "TICKETS_TOKEN": "t0ken", "DEMO_TOKEN_SHA256": "0" * 64}


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_configurations_in_documents_load(path: Path, tmp_path: Path) -> None:
    """A block marked ``yaml configuration`` is a whole file; any other YAML is at least YAML without equal keys."""
    for number, (words, text) in enumerate(fences(path.read_text("utf-8"))):
        language, *marks = words.split() or [""]
        if language not in ("yaml", "json"):
            continue
        if "configuration" in marks:
            file = tmp_path / f"{path.stem}-{number}.{language}"
            file.write_text(text)
            load(file, ENVIRON)
        elif language == "yaml":
            problems: list[object] = []
            read(text, lambda *problem: problems.append(problem))  # noqa: B023 - called at once
            assert problems == [], text


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_in_documents_exist(path: Path) -> None:
    """``mcpgw ...`` parses, ``make TARGET`` is a target."""
    makefile = (ROOT / "Makefile").read_text("utf-8") if (ROOT / "Makefile").exists() else ""
    for words, text in fences(path.read_text("utf-8")):
        if words.partition(" ")[0] not in ("sh", "shell", "bash", "console"):
            continue
        for line in text.replace("\\\n", " ").splitlines():
            command = re.sub(r"^\$ ", "", line.strip())
            if command.startswith("mcpgw "):
                _parse(shlex.split(command, comments=True)[1:])
            elif command.startswith("make "):
                for target in (word for word in shlex.split(command, comments=True)[1:] if "=" not in word):
                    assert re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE), f"no target: {command}"


def _parse(arguments: list[str]) -> None:
    """What click makes of it; raises click.UsageError.  Nothing is run."""
    if arguments[0] in main.commands:
        main.commands[arguments[0]].make_context(arguments[0], arguments[1:])
    else:
        assert arguments in (["--version"], ["--help"], ["-h"]), arguments
