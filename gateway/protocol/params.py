"""Mcp-Param-*: arguments of a tool that its client repeats as header fields, and what a gateway owes them.

A server marks properties of a tool's ``inputSchema`` with ``x-mcp-header: Region``; a client that calls the tool then
sends the argument as ``Mcp-Param-Region`` too, so that whatever stands between can route by it without reading a body.
That is safe only where header and body say the same.  Whoever reads bodies must compare them (rules 6.10, 6.15): this
gateway does, so it has to know which properties are marked.  It learns that from the lists of tools that pass through
it, per upstream.  Of a tool that no list has shown it checks nothing and forwards what it is given, as an intermediary
that does not recognise a field must (rule 6.14); the server checks for itself.

An annotation has rules of its own (rule 6.17).  A tool that breaks one is invalid as a whole: clients must not show it,
and no header is ever made from it.

What goes upstream is not what the client wrote, but made anew from the arguments as they are after the hooks
(rule 6.19).

Three differences in how peers write a value are none in meaning, and decide what is compared here: an integer may be
``42`` or ``42.0``, in either place (rule 6.16), but never ``4.2e1``; a string may come in base64 (rule 6.8); null is no
value.  Integers are compared as integers, never as binary fractions, which would take 9007199254740993 and
9007199254740992 for the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .errors import HeaderMismatch
from .headers import PARAM_PREFIX, Fields, decode_mirrored, encode_mirrored, is_clean, is_param_field, param_fields

__all__ = ["ToolHeaders", "without_invalid"]

_ANNOTATION = "x-mcp-header"
_TYPES = frozenset(("string", "integer", "boolean"))
_INTEGER = re.compile(r"-?[0-9]+(\.0+)?")

# Keywords of JSON Schema (2020-12, and draft-07's) by which a schema holds others.  ``properties`` alone keeps the way
# to a value static.  ``default``, ``const``, ``enum`` and ``examples`` hold data, where x-mcp-header means nothing.
_SCHEMAS = frozenset((
    "items", "contains", "unevaluatedItems", "additionalItems", "additionalProperties", "unevaluatedProperties",
    "propertyNames", "not", "if", "then", "else", "contentSchema", "allOf", "anyOf", "oneOf", "prefixItems",
))  # fmt: skip
_MAPS_OF_SCHEMAS = frozenset(("patternProperties", "dependentSchemas", "dependencies", "$defs", "definitions"))

# For one upstream: how many characters of names and paths are remembered.
CAPACITY = 1 << 20


@dataclass(frozen=True, slots=True)
class _Mirrored:
    """One annotated property: its field, the way to its value in the arguments, and whether it is an integer."""

    field: str
    path: tuple[str, ...]
    is_integer: bool

    @property
    def size(self) -> int:
        return len(self.field) + sum(map(len, self.path))


class _Invalid(Exception):
    """An annotation breaks rule 6.17."""


class ToolHeaders:
    """What is known of one upstream's tools: which arguments their headers mirror.

    ``capacity`` bounds the memory, in characters of names; a tool that does not fit pushes out those that were listed
    longest ago.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._size = 0
        # Annotated tools only: of all others there is nothing to check.
        self._tools: dict[str, tuple[_Mirrored, ...]] = {}

    def learn(self, result: Mapping[str, Any]) -> list[str]:
        """Note the tools of a tools/list result as the server sent it; a later list says more about its tools than an
        earlier one, and nothing about others, since it may be one page of several.

        Returns the names of tools whose annotations are invalid (rule 6.17): they are forgotten, and
        ``without_invalid`` takes them out of the list.
        """
        invalid = []
        for tool in _tools(result):
            name = tool.get("name")
            if not isinstance(name, str):
                continue
            self._forget(name)
            try:
                mirrored = tuple(_annotations(tool.get("inputSchema")))
            except _Invalid:
                invalid.append(name)
                continue
            if mirrored:
                self._remember(name, mirrored)
        return invalid

    def mirrors(self, tool: str) -> bool:
        """Whether the tool is known to have arguments that header fields repeat."""
        return tool in self._tools

    def check(self, fields: Fields, tool: str, arguments: object) -> None:
        """Raises HeaderMismatch unless the recognised Mcp-Param-* fields say what the arguments say (rules 6.10,
        6.15, 6.16): each there where its argument is, missing where that is missing or null, once, and equal.

        ``arguments`` is the client's ``params.arguments``, before the hooks; of a tool that is not known, nothing is
        checked.
        """
        for each in self._tools.get(tool, ()):
            values = fields.getall(each.field, ())
            name = each.field[:80]
            if len(values) > 1:
                raise HeaderMismatch(f"header {name} must not be repeated", reason="header-repeated")
            argument = _value_at(arguments, each.path)
            written = _written(argument, each.is_integer)
            if not values:
                if written is not None:
                    raise HeaderMismatch(f"header {name} is missing, and its argument is there")
                continue
            if written is None:
                raise HeaderMismatch(f"header {name} is there, and its argument is missing")
            if not is_clean(values[0]):
                raise HeaderMismatch(f"header {name} holds characters that it must not", reason="header-value")
            told = decode_mirrored(values[0].strip(" "))
            if told != written and not (each.is_integer and _same_integer(told, argument)):
                raise HeaderMismatch(f"header {name} does not equal its argument")

    def emit(self, fields: Fields, tool: str, arguments: object) -> dict[str, str]:
        """The Mcp-Param-* fields for the upstream: the recognised ones made anew from the arguments (rule 6.19), and
        the client's others as they are (rule 6.14).

        ``arguments`` are those that go upstream, after the hooks.  Raises HeaderMismatch for a field that cannot be
        forwarded.
        """
        known = self._tools.get(tool, ())
        recognised = {each.field.lower() for each in known}
        found = {name: value for name, value in param_fields(fields).items() if name.lower() not in recognised}
        for each in known:
            written = _written(_value_at(arguments, each.path), each.is_integer)
            if written is not None:
                found[each.field] = encode_mirrored(written)
        return found

    def _remember(self, name: str, mirrored: tuple[_Mirrored, ...]) -> None:
        size = _size(name, mirrored)
        if size > self._capacity:
            return
        while self._size + size > self._capacity:
            self._forget(next(iter(self._tools)))
        self._tools[name] = mirrored
        self._size += size

    def _forget(self, name: str) -> None:
        mirrored = self._tools.pop(name, None)
        if mirrored is not None:
            self._size -= _size(name, mirrored)


def without_invalid(result: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """A tools/list result without the tools whose annotations are invalid, as clients must leave them out (rule 6.17);
    None if there are none.  Order and all other members stay."""
    tools = result.get("tools")
    if not isinstance(tools, list):
        return None
    valid = [tool for tool in tools if not isinstance(tool, dict) or _is_valid(tool.get("inputSchema"))]
    return None if len(valid) == len(tools) else {**result, "tools": valid}


def _tools(result: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    tools = result.get("tools")
    return (tool for tool in tools if isinstance(tool, dict)) if isinstance(tools, list) else iter(())


def _size(name: str, mirrored: tuple[_Mirrored, ...]) -> int:
    return len(name) + sum(each.size for each in mirrored)


def _is_valid(schema: object) -> bool:
    try:
        for _ in _annotations(schema):
            pass
    except _Invalid:
        return False
    return True


def _annotations(root: object) -> Iterator[_Mirrored]:
    """The annotated properties of an inputSchema; raises _Invalid for any that breaks rule 6.17.

    Visits each schema once, without recursion, and follows no ``$ref``: linear in the size of the document.
    """
    seen = set()
    for path, schema in _schemas(root):
        if _ANNOTATION not in schema:
            continue
        token, kind = schema[_ANNOTATION], schema.get("type")
        if not path or not isinstance(token, str) or not isinstance(kind, str) or kind not in _TYPES:
            raise _Invalid
        field = PARAM_PREFIX.title() + token
        # An empty token would make the prefix itself a name.
        if not token or not is_param_field(field) or field.lower() in seen:
            raise _Invalid
        seen.add(field.lower())
        yield _Mirrored(field, path, kind == "integer")


def _schemas(root: object) -> Iterator[tuple[tuple[str, ...] | None, dict[str, Any]]]:
    """Each schema, with the way to it by ``properties`` from the root, or None where another keyword lies on it."""
    stack: list[tuple[tuple[str, ...] | None, object]] = [((), root)]
    while stack:
        path, schema = stack.pop()
        if not isinstance(schema, dict):
            continue
        yield path, schema
        for keyword, value in schema.items():
            if keyword == "properties" and isinstance(value, dict):
                stack.extend((None if path is None else (*path, name), each) for name, each in value.items())
            elif keyword in _SCHEMAS:
                stack.extend((None, each) for each in (value if isinstance(value, list) else (value,)))
            elif keyword in _MAPS_OF_SCHEMAS and isinstance(value, dict):
                stack.extend((None, each) for each in value.values())


def _value_at(arguments: object, path: tuple[str, ...]) -> object:
    """The argument at a path, or None where a step of it is missing."""
    for member in path:
        arguments = arguments.get(member) if isinstance(arguments, Mapping) else None
    return arguments


def _written(argument: object, is_integer: bool) -> str | None:
    """An argument as a field says it, before its encoding; None for what no field says: null, arrays, objects."""
    if isinstance(argument, bool):
        return "true" if argument else "false"
    if isinstance(argument, str):
        return argument
    if isinstance(argument, float) and is_integer and argument.is_integer():
        argument = int(argument)
    if not isinstance(argument, int | float):
        return None
    try:
        return str(argument)
    except ValueError:  # more digits than Python writes, if the limits for JSON allow that many
        return None


def _same_integer(told: str, argument: object) -> bool:
    """Whether a field means the integer that the argument is (rule 6.16)."""
    if isinstance(argument, bool) or not isinstance(argument, int | float) or not _INTEGER.fullmatch(told):
        return False
    try:
        return int(told.partition(".")[0]) == argument
    except ValueError:
        return False
