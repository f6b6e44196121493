"""A configuration file to a Config, or to the list of everything that is wrong with it."""

from __future__ import annotations

import difflib
import os
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from .checks import Declared, Finding
from .document import MAX_BYTES, Document, Key, dotted, read
from .model import CROSS_CHECK, Config, Section

__all__ = ["Check", "ConfigErrors", "Problem", "load", "validate"]

Check = Callable[[Config], Iterable[tuple[str, str]]]
"""Judges a whole configuration: yields (key, message) for each mistake.  Keys look like ``hooks.0.options.rules``."""

# What is written in a file may be read by more people than the secret is for.
_SECRET_FIELDS = frozenset({"api-key", "authorization", "cookie", "x-api-key"})
_MAX_SECRET_BYTES = 64 * 1024
_SUBSTITUTION = re.compile(r"\$\$\{|\$\{([^}]*)\}|\$\{")
_VARIABLE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.ASCII | re.DOTALL)
# An authorization scheme may stand in front: a credential's file holds the credential alone.
_SECRET_FILE = re.compile(r"([A-Za-z]+ )?file:(.+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: where, and what was expected.  ``line`` counts from 1; ``key`` is dotted, empty for the whole."""

    file: str
    line: int | None
    key: str
    message: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return ": ".join(part for part in (place, self.key, self.message) if part)


class ConfigErrors(Exception):
    """Everything that is wrong with a configuration, one line each, in the order of the file."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda problem: problem.line or 0))
        super().__init__("\n".join(map(str, self.problems)))


def load(
    path: str | os.PathLike[str], environ: Mapping[str, str] = os.environ, *, checks: Sequence[Check] = ()
) -> Config:
    """The configuration in a YAML or JSON file.

    ``${NAME}`` and ``${NAME:-default}`` in values are replaced from ``environ``, then ``file:PATH`` in secrets by the
    file's stripped content; paths are relative to the configuration file.  Raises ConfigErrors with all mistakes.
    """
    reading = _Reading(str(path), Path(path).parent, environ)
    document = reading.document(Path(path))
    if document is None:
        raise ConfigErrors(reading.problems)
    config = reading.config(document, checks)
    if config is None or reading.problems:
        raise ConfigErrors(reading.problems)
    return config


def validate(document: dict[str, Any], *, source: str) -> Config:
    """A Config of plain values, as from a command line.  Raises ConfigErrors, where ``source`` stands for the file."""
    reading = _Reading(source, Path(), {})
    config = reading.config(Document(document), ())
    if config is None or reading.problems:
        raise ConfigErrors(reading.problems)
    return config


class _Reading:
    """One attempt to read a configuration: collects what is wrong on the way."""

    def __init__(self, file: str, directory: Path, environ: Mapping[str, str]) -> None:
        self.problems: list[Problem] = []
        self._file = file
        self._directory = directory
        self._environ = environ
        self._wrong: set[Key] = set()
        self._document = Document()

    def document(self, path: Path) -> Document | None:
        """The file's values with variables and secrets filled in; None where nothing further can be judged."""
        try:
            with path.open("rb") as stream:
                content = stream.read(MAX_BYTES + 1)
            text = content.decode("utf-8-sig")
        except OSError as error:
            self._report_line(None, (), f"cannot be read: {error.strerror}")
            return None
        except UnicodeDecodeError as error:
            self._report_line(content.count(b"\n", 0, error.start) + 1, (), "not UTF-8")
            return None
        if len(content) > MAX_BYTES:
            self._report_line(None, (), f"larger than {MAX_BYTES} bytes")
            return None
        document = read(text, self._report_line)
        if document is None:
            return None
        if not isinstance(document.value, dict):
            self._report_line(1, (), "expected a mapping of keys to values")
            return None
        self._document = document
        self._wrong |= document.unreadable
        document.value = self._filled(document.value, ())
        return document

    def config(self, document: Document, checks: Sequence[Check]) -> Config | None:
        """The Config, as far as the document is right.

        Wrong values are reported and then left out, and what remains is judged again, so that mistakes between
        sections come up in the same run as those within one.
        """
        self._document = document
        upstreams, policies = (document.value.get(name) for name in ("upstreams", "policies"))
        declared = Declared(
            frozenset(upstreams if isinstance(upstreams, dict) else ()),
            frozenset(policies if isinstance(policies, dict) else ()),
        )
        value = document.value
        # Each round leaves out at least one more key, or a key one level up; no key is deeper than six levels.
        for _ in range(8):
            try:
                config = Config.model_validate(value, context=declared)
            except ValidationError as error:
                if not self._report_all(error):
                    return None
                value = _copy(document.value)
                for path in self._wrong:
                    _leave_out(value, path)
            else:
                for check in checks:
                    for key, message in check(config):
                        self._report_finding(Finding(self._key(key), message))
                return config
        return None

    def _report_all(self, error: ValidationError) -> bool:
        """Report what is wrong within sections, or else between them; False in that case, the last one."""
        for detail in error.errors(include_url=False):
            if detail["type"] == CROSS_CHECK:
                for finding in detail["ctx"]["findings"]:
                    self._report_finding(finding)
                return False
            path = tuple(part for part in detail["loc"] if part != "[key]")
            if not any(_related(path, wrong) for wrong in self._wrong):
                self._report(self._as_written(path), _message(detail, path))
            # Left out already, and now it is missing: what it is missing from goes too.
            self._wrong.add(path[:-1] if path in self._wrong and len(path) > 1 else path)
        return True

    def _key(self, text: str) -> Key:
        """The key that ``dotted`` wrote; a name with a dot in it comes out as two, which is close enough for a line."""
        value: Any = self._document.value
        parts: list[str | int] = []
        for part in text.split("."):
            if isinstance(value, list) and part.isdigit() and int(part) < len(value):
                parts.append(int(part))
                value = value[int(part)]
            else:
                parts.append(part)
                value = value.get(part) if isinstance(value, dict) else None
        return tuple(parts)

    def _as_written(self, path: Key) -> Key:
        """The path without what the models add: one digest is a list of one to them, a hook's name a mapping."""
        value = self._document.value
        for depth, part in enumerate(path):
            if isinstance(value, dict):
                value = value.get(str(part))
            elif isinstance(value, list) and isinstance(part, int):
                value = value[part]
            else:
                return path[:depth]
        return path

    def _report_finding(self, finding: Finding) -> None:
        if not any(_related(path, wrong) for path in (finding.path, *finding.follows_from) for wrong in self._wrong):
            self._report(finding.path, finding.message)

    def _report(self, path: Key, message: str) -> None:
        self.problems.append(Problem(self._file, self._document.line(path), dotted(path), message))

    def _report_line(self, line: int | None, path: Key, message: str) -> None:
        self.problems.append(Problem(self._file, line, dotted(path), message))

    def _filled(self, value: Any, path: Key) -> Any:
        if isinstance(value, dict):
            return {key: self._filled(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self._filled(item, (*path, position)) for position, item in enumerate(value)]
        if not isinstance(value, str):
            return value
        try:
            text = _SUBSTITUTION.sub(self._variable, value)
            if _holds_secret(path):
                written = text == value and _SECRET_FILE.fullmatch(value) is None
                if written and str(path[-1]).lower() in _SECRET_FIELDS:
                    raise ValueError("a secret must not stand in this file; write ${NAME} or file:PATH")
                text = self._secret(text)
            elif path[:1] == ("upstreams",) and path[2:] == ("tls_ca",):
                text = str(self._existing(text))
        except ValueError as error:
            self._report(path, str(error))
            self._wrong.add(path)
            return value
        return text

    def _variable(self, match: re.Match[str]) -> str:
        if match[0] == "$${":
            return "${"
        variable = _VARIABLE.fullmatch(match[1] or "")
        if variable is None:
            raise ValueError("expected ${NAME} or ${NAME:-default}; a literal ${ is written $${")
        name, default = variable[1], variable[2]
        found = self._environ.get(name)
        # As in a shell: the default also stands in for a variable that is set to nothing.
        if default is not None and not found:
            return str(default)
        if found is None:
            raise ValueError(f"the environment variable {name} is not set")
        return found

    def _secret(self, text: str) -> str:
        match = _SECRET_FILE.fullmatch(text)
        if match is None:
            return text
        path = self._existing(match[2])
        try:
            with path.open("rb") as stream:
                content = stream.read(_MAX_SECRET_BYTES + 1)
            if len(content) > _MAX_SECRET_BYTES:
                raise ValueError(f"the file {path} is larger than a secret can be")
            return (match[1] or "") + content.decode("ascii").strip()
        except OSError as error:
            raise ValueError(f"the file {path} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ValueError(f"the file {path} holds more than ASCII characters") from None

    def _existing(self, text: str) -> Path:
        path = self._directory / text
        if not path.is_file():
            raise ValueError(f"there is no file {path}")
        return path


def _holds_secret(path: Key) -> bool:
    match path:
        case ("upstreams", _, "headers", _) | ("admin", "token_sha256") | ("clients", _, "tokens", _, "sha256"):
            return True
        case ("clients", _, "token_sha256", *_) | ("sealing", "keys", _):
            return True
    return False


def _related(path: Key, other: Key) -> bool:
    """Whether one key is the other or lies within it: a mistake there explains one here."""
    shared = min(len(path), len(other))
    return path[:shared] == other[:shared]


def _copy(value: Any) -> Any:
    return {key: _copy(item) for key, item in value.items()} if isinstance(value, dict) else value


def _leave_out(value: dict[str, Any], path: Key) -> None:
    """Remove a key; a key that is missing takes the mapping that lacks it along, a list item its list."""
    for position, part in enumerate(path[:-1]):
        inner = value.get(str(part))
        if not isinstance(inner, dict) or (position == len(path) - 2 and path[-1] not in inner):
            value.pop(str(part), None)
            return
        value = inner
    value.pop(str(path[-1]), None)


def _section_at(path: Key) -> type[Section] | None:
    """The section that a path names, None where it names something else."""
    kind: Any = Config
    for part in path:
        if isinstance(kind, type) and issubclass(kind, Section):
            field = kind.model_fields.get(str(part))
            kind = None if field is None else field.annotation
        elif typing.get_origin(kind) is dict:
            kind = typing.get_args(kind)[1]
        elif typing.get_origin(kind) is tuple:
            kind = typing.get_args(kind)[0]
        if typing.get_origin(kind) is types.UnionType:
            kind = next(option for option in typing.get_args(kind) if option is not types.NoneType)
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None


def _message(detail: Any, path: Key) -> str:
    """What was expected, without what was found: it may be a secret."""
    match detail["type"]:
        case "extra_forbidden":
            section = _section_at(path[:-1])
            known = sorted(section.model_fields) if section else []
            near = difflib.get_close_matches(str(path[-1]), known, n=1)
            return "unknown key; " + (f"did you mean {near[0]}?" if near else f"there are: {', '.join(known)}")
        case "missing":
            return "the key is missing"
        case "value_error":
            return str(detail["ctx"]["error"])
        case "literal_error":
            return f"expected {detail['ctx']['expected'].replace(chr(39), '')}"
        case "string_type":
            expected = "text"
        case "model_type" | "dict_type":
            expected = "a mapping of keys to values"
        case "tuple_type":
            expected = "a list"
        case "greater_than":
            return f"must be more than {detail['ctx']['gt']:g}"
        case "greater_than_equal":
            return f"must be at least {detail['ctx']['ge']}"
        case "less_than_equal":
            return f"must be at most {detail['ctx']['le']}"
        case "too_short":
            return "must not be empty; leave the key out instead"
        case "string_too_short":
            return "must not be empty"
        case _:
            return str(detail["msg"])
    found = detail["input"]
    if found is None:
        return f"expected {expected}, found nothing; leave the key out instead"
    if expected == "text" and isinstance(found, bool | int | float):
        return "expected text; put the value in quotes"
    return f"expected {expected}"
