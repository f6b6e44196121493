"""YAML (and so JSON) text to plain values, with the line of every key: where a configuration's author meant something.

PyYAML follows YAML 1.1, where ``no`` is false, ``012`` is ten, ``1:30`` is ninety, the last of two equal keys wins and
an alias costs nothing to write and everything to read.  Here only ``true`` and ``false`` are booleans, only decimal
digits without a leading zero are numbers, anything else stays text; a second equal key, a merge key, a tag and a key
that is not text are mistakes; and the tree has a limited size after its aliases are followed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import yaml

__all__ = ["MAX_BYTES", "Document", "Key", "dotted", "read"]

MAX_BYTES = 1024 * 1024
"""Largest file that is read: far more than a thousand upstreams need."""

_MAX_DEPTH = 32
_MAX_NODES = 100_000
_TAG = "tag:yaml.org,2002:"

Key = tuple[str | int, ...]
"""Where a value is: names of keys and positions in lists."""

Report = Callable[[int, Key, str], None]


def dotted(key: Key) -> str:
    """A key for people: ``hooks.0.options.rules``."""
    return ".".join(map(str, key))


class _Loader(yaml.CSafeLoader):
    """Resolves plain scalars as this module's docstring says."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own way


_Loader.add_implicit_resolver(_TAG + "bool", re.compile(r"true\Z|false\Z"), ["t", "f"])
_Loader.add_implicit_resolver(_TAG + "null", re.compile(r"null\Z|~\Z|\Z"), ["n", "~", ""])
_Loader.add_implicit_resolver(_TAG + "int", re.compile(r"-?(?:0|[1-9][0-9]{0,17})\Z"), list("-0123456789"))
_Loader.add_implicit_resolver(
    _TAG + "float", re.compile(r"-?(?:0|[1-9][0-9]{0,17})\.[0-9]{1,18}\Z"), list("-0123456789")
)

_SCALARS: dict[str, Callable[[str], Any]] = {
    _TAG + "str": str,
    _TAG + "bool": lambda text: text == "true",
    _TAG + "null": lambda text: None,
    _TAG + "int": int,
    _TAG + "float": float,
}


@dataclass(slots=True)
class Document:
    """A file's values: dicts with text keys, lists, text, numbers, booleans and None.

    ``lines`` has the line, from 1, of every key and list item by its path.  ``unreadable`` are the paths of values that
    were replaced by None because they cannot be represented.
    """

    value: Any = None
    lines: dict[Key, int] = field(default_factory=dict)
    unreadable: set[Key] = field(default_factory=set)

    def line(self, key: Key) -> int | None:
        """The line of a key, or else of the nearest one around it."""
        while key not in self.lines and key:
            key = key[:-1]
        return self.lines.get(key)


def read(text: str, report: Report) -> Document | None:
    """The document in ``text``, or None where it is not YAML at all.  Mistakes go to ``report(line, key, message)``."""
    try:
        # Before anything recursive: libyaml's parser keeps a stack of its own, PyYAML's composer would end the process.
        line = _too_deep(text)
        if line is not None:
            report(line, (), f"nested more than {_MAX_DEPTH} levels deep")
            return None
        root = yaml.compose(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        hint = "; is it a tab? YAML indents with spaces" if "cannot start any token" in (error.problem or "") else ""
        report(mark.line + 1 if mark else 1, (), f"not YAML: {error.problem or error.context}{hint}")
        return None
    except yaml.reader.ReaderError as error:
        report(text.count("\n", 0, max(error.position, 0)) + 1, (), "not YAML: a character that is not allowed in it")
        return None
    builder = _Builder(report)
    if root is None:
        report(1, (), "the file is empty")
        return None
    value = builder.build(root, ())
    return Document(value, builder.lines, builder.unreadable)


def _too_deep(text: str) -> int | None:
    """The line where collections are nested too deeply, None where they are not.  Raises yaml.YAMLError."""
    depth = 0
    for event in yaml.parse(text, _Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _MAX_DEPTH:
                return event.start_mark.line + 1 if event.start_mark else 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
    return None


class _Builder:
    def __init__(self, report: Report) -> None:
        self.lines: dict[Key, int] = {}
        self.unreadable: set[Key] = set()
        self._report = report
        self._nodes = 0

    def build(self, node: yaml.Node, path: Key) -> Any:
        """The value of a node.  Counts nodes as often as they are used, so aliases cannot multiply without end."""
        line: int = node.start_mark.line + 1
        self.lines.setdefault(path, line)
        self._nodes += 1
        if self._nodes > _MAX_NODES:
            return None
        if self._nodes == _MAX_NODES:
            return self._refuse(line, path, f"more than {_MAX_NODES} values, aliases included")
        if len(path) > _MAX_DEPTH:
            # Aliases may contain aliases, even themselves.
            self._nodes = _MAX_NODES
            return self._refuse(line, path[:3], f"nested more than {_MAX_DEPTH} levels deep")
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            return [self.build(item, (*path, position)) for position, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode) and self._is_plain(node):
            return _SCALARS[node.tag](node.value)
        return self._refuse(line, path, "tags such as !!binary are not understood here; write the plain value")

    def _refuse(self, line: int, path: Key, message: str) -> None:
        self.unreadable.add(path)
        self._report(line, path, message)

    @staticmethod
    def _is_plain(node: yaml.ScalarNode) -> bool:
        """Whether the value has the form that its tag asks for; an explicit !!int could stand on anything."""
        return node.tag == _TAG + "str" or any(
            tag == node.tag and pattern.match(node.value)
            for tag, pattern in _Loader.yaml_implicit_resolvers.get(node.value[:1], ())
        )

    def _mapping(self, node: yaml.MappingNode, path: Key) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line: int = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag != _TAG + "str":
                self._report(line, path, "a key must be text; put it in quotes")
                continue
            key: str = key_node.value
            if key == "<<":
                self._report(line, path, "merge keys (<<) are not understood here")
                continue
            if key in mapping:
                self._report(line, (*path, key), f"the key is given twice, first on line {self.lines[(*path, key)]}")
                continue
            self.lines[(*path, key)] = line
            mapping[key] = self.build(value_node, (*path, key))
        return mapping
