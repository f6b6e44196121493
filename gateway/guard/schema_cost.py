"""What a JSON Schema from elsewhere costs, counted before it is compiled and before a value is validated.

A few hundred bytes can describe exponential work: schemas that refer to others twice, or to themselves.  The graph of
which schema is applied to what says how much there is, in time linear in the answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import unquote

__all__ = ["Graph", "SchemaUnusable", "measure"]

# Bounds on one schema: nesting, JSON values, schemas in it, patterns.
_MAX_DEPTH = 32
_MAX_VALUES = 20_000
_MAX_SCHEMAS = 2_000
_MAX_PATTERNS = 64
# Applications of schemas to one value, and to a whole document; each takes 10 to 50 ns.
_MAX_AT_ONCE = 1_000
_MAX_APPLICATIONS = 500_000
# Characters that count as much as one value.
_CHARS = 256

_LISTS = ("allOf", "anyOf", "oneOf")
_SINGLES = ("not", "if", "then", "else")
_ANY_MEMBER = ("additionalProperties", "unevaluatedProperties", "propertyNames")
_ANY_ITEM = ("additionalItems", "unevaluatedItems", "contains", "items")
# What takes the longer the more it holds.
_WEIGHTY = ("enum", "const", "required", "dependentRequired")


class SchemaUnusable(Exception):
    """A schema, or a value for one, that is not validated.  The text says why, in our own words."""


class _Node:
    """One schema in a schema.  Numbers are those of other schemas in the graph."""

    __slots__ = ("any_item", "any_member", "in_place", "items", "members", "weight")

    def __init__(self) -> None:
        self.weight = 1
        # Applied to the same value.
        self.in_place: list[int] = []
        # Applied to a member, to every member, to the first items, to every item.
        self.members: dict[str, int] = {}
        self.any_member: list[int] = []
        self.items: list[int] = []
        self.any_item: list[int] = []

    def under(self, key: str | int) -> Iterator[int]:
        """What is applied to the member or item with the key."""
        if type(key) is str:
            if key in self.members:
                yield self.members[key]
            yield from self.any_member
        else:
            if key < len(self.items):  # type: ignore[operator]
                yield self.items[key]  # type: ignore[index]
            yield from self.any_item

    def below(self) -> Iterator[int]:
        """What is applied to any member or item."""
        yield from self.members.values()
        yield from self.any_member
        yield from self.items
        yield from self.any_item


class Graph:
    """Which schemas of a schema are applied to what: enough to count the work before it is done.

    Raises SchemaUnusable for what cannot be counted, or is too much for any value.
    """

    __slots__ = ("_closures", "_most", "_nodes", "_numbers", "_open", "_root", "patterns")

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root
        self._nodes: list[_Node] = []
        self._numbers: dict[int, int] = {}
        self._open: list[tuple[dict[str, Any], _Node]] = []
        self._closures: dict[int, dict[int, int]] = {}
        self.patterns = 0
        self._number(root)
        while self._open:
            self._read(*self._open.pop())
        in_place = _count_paths([node.in_place for node in self._nodes])
        if in_place is None:
            raise SchemaUnusable("refers to itself without end")
        if max(in_place) > _MAX_AT_ONCE:
            raise SchemaUnusable("applies too many schemas to one value")
        paths = _count_paths([[*node.in_place, *node.below()] for node in self._nodes])
        weight = max(node.weight for node in self._nodes)
        # The most that one value in a document can cost; unknown where a schema is below itself.
        self._most = None if paths is None else paths[0] * weight

    def _number(self, schema: dict[str, Any]) -> int:
        number = self._numbers.get(id(schema))
        if number is None:
            if len(self._nodes) >= _MAX_SCHEMAS:
                raise SchemaUnusable("holds too many schemas")
            number = self._numbers[id(schema)] = len(self._nodes)
            node = _Node()
            self._nodes.append(node)
            self._open.append((schema, node))
        return number

    def _all(self, schemas: Any) -> list[int]:
        return [self._number(schema) for schema in schemas if type(schema) is dict]

    def _read(self, schema: dict[str, Any], node: _Node) -> None:
        if "$dynamicRef" in schema or "$recursiveRef" in schema:
            raise SchemaUnusable("uses $dynamicRef or $recursiveRef")
        self._check_base(schema)
        self.patterns += len(_mapping(schema, "patternProperties")) + ("pattern" in schema)
        if self.patterns > _MAX_PATTERNS:
            raise SchemaUnusable("holds too many patterns")
        node.weight += sum(_size(schema[keyword], _MAX_VALUES) for keyword in _WEIGHTY if keyword in schema)
        if "$ref" in schema:
            node.in_place += self._all([self._resolve(schema["$ref"])])
        for keyword in _LISTS:
            node.in_place += self._all(_listed(schema, keyword))
        node.in_place += self._all(schema.get(keyword) for keyword in _SINGLES)
        for keyword in ("dependentSchemas", "dependencies"):
            node.in_place += self._all(_mapping(schema, keyword).values())
        if "unevaluatedProperties" in schema or "unevaluatedItems" in schema:
            # They ask once more what the others said.
            node.in_place *= 2
        properties = _mapping(schema, "properties")
        node.members = {name: self._number(each) for name, each in properties.items() if type(each) is dict}
        node.any_member = self._all(_mapping(schema, "patternProperties").values())
        node.any_member += self._all(schema.get(keyword) for keyword in _ANY_MEMBER)
        # Up to draft 2019-09, items is a list as well.
        node.items = self._all(_listed(schema, "prefixItems") or _listed(schema, "items"))
        node.any_item = self._all(schema.get(keyword) for keyword in _ANY_ITEM)

    def _check_base(self, schema: Any) -> None:
        """What is below another ``$id`` (draft 4: ``id``) refers to other places than it seems to."""
        if schema is not self._root and (type(schema.get("$id")) is str or type(schema.get("id")) is str):
            raise SchemaUnusable("holds another $id inside")

    def _resolve(self, reference: Any) -> Any:
        if type(reference) is not str or not reference.startswith("#"):
            raise SchemaUnusable("refers to something outside of itself")
        if reference != "#" and not reference.startswith("#/"):
            raise SchemaUnusable("uses $anchor")
        found: Any = self._root
        for step in unquote(reference[1:]).split("/")[1:]:
            step = step.replace("~1", "/").replace("~0", "~")
            if type(found) is dict:
                self._check_base(found)
            if type(found) is dict and step in found:
                found = found[step]
            elif type(found) is list and step.isdecimal() and len(step) < 6 and int(step) < len(found):
                found = found[int(step)]
            else:
                raise SchemaUnusable("refers to something that it does not hold")
        return found

    def check_cost(self, value: Any) -> None:
        """Raises SchemaUnusable for a value that would take too long."""
        if self._most is not None and self._most * _size(value, _MAX_APPLICATIONS) <= _MAX_APPLICATIONS:
            return
        if self.cost(value, _MAX_APPLICATIONS) > _MAX_APPLICATIONS:
            raise SchemaUnusable("is for smaller values: to validate this one would take too long")

    def cost(self, value: Any, limit: int) -> int:
        """How many applications of a schema the value takes.  Counting ends soon beyond the limit."""
        total = 0
        stack: list[tuple[Any, dict[int, int]]] = [(value, {0: 1})]
        while stack:
            value, applied = stack.pop()
            counts: dict[int, int] = {}
            for number, times in applied.items():
                for inner, count in self._closure(number).items():
                    counts[inner] = counts.get(inner, 0) + times * count
            kind = type(value)
            length = len(value) // _CHARS if kind is str else 0
            total += sum(times * self._nodes[number].weight for number, times in counts.items()) * (1 + length)
            entries: Any = value.items() if kind is dict else enumerate(value) if kind is list else ()
            for key, entry in entries:
                below: dict[int, int] = {}
                for number, times in counts.items():
                    for inner in self._nodes[number].under(key):
                        below[inner] = below.get(inner, 0) + times
                    total += 1
                if total > limit:
                    return total
                if below:
                    stack.append((entry, below))
                    total += len(below)
            if total > limit:
                return total
        return total

    def _closure(self, number: int) -> dict[int, int]:
        """All that is applied to a value that the schema is applied to, and how often."""
        found = self._closures.get(number)
        if found is None:
            found = self._closures[number] = {}
            pending = [number]
            while pending:
                inner = pending.pop()
                found[inner] = found.get(inner, 0) + 1
                pending += self._nodes[inner].in_place
        return found


def _count_paths(edges: Sequence[Sequence[int]]) -> list[int] | None:
    """How many ways lead on from each node, itself included; None where one leads back."""
    incoming = [0] * len(edges)
    for targets in edges:
        for target in targets:
            incoming[target] += 1
    order = [node for node, count in enumerate(incoming) if not count]
    for node in order:
        for target in edges[node]:
            incoming[target] -= 1
            if not incoming[target]:
                order.append(target)
    if len(order) < len(edges):
        return None
    paths = [1] * len(edges)
    for node in reversed(order):
        paths[node] += sum(paths[target] for target in edges[node])
    return paths


def _mapping(schema: dict[str, Any], keyword: str) -> dict[str, Any]:
    found = schema.get(keyword)
    return found if type(found) is dict else {}


def _listed(schema: dict[str, Any], keyword: str) -> list[Any]:
    found = schema.get(keyword)
    return found if type(found) is list else []


def _size(value: Any, limit: int) -> int:
    """How much the value is, about; counting ends soon beyond the limit."""
    size = 0
    stack = [value]
    while stack and size <= limit:
        node = stack.pop()
        kind = type(node)
        size += 1
        if kind is str:
            size += len(node) // _CHARS
        elif kind is dict:
            stack.extend(node.values())
        elif kind is list:
            stack.extend(node)
    return size


def measure(schema: Any) -> int:
    """The schema's size.  Raises SchemaUnusable for one that is too deep or too large to be looked at."""
    size = _size(schema, _MAX_VALUES)
    level = [schema]
    for _ in range(_MAX_DEPTH + 1):
        level = [
            below
            for node in level
            for below in (node.values() if type(node) is dict else node if type(node) is list else ())
            if type(below) is dict or type(below) is list
        ]
        if size > _MAX_VALUES or not level:
            break
    if size > _MAX_VALUES or level:
        raise SchemaUnusable("is too large or too deep")
    return size
