"""The tools' own schemas, as their server last listed them, and whether arguments and results fit them.

A schema comes from a server that nobody has to trust, so nothing in it may cost more than it is worth: it is measured
before it is compiled, refers to nothing but itself, and its patterns are matched in linear time.  Schemas that refer to
themselves can still describe exponential work, so what a value will cost is counted before it is validated.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import jsonschema_rs

from ..wire.strict import dumps
from .glob import is_plain_name
from .schema_cost import Graph, SchemaUnusable, measure

__all__ = ["Misfit", "SchemaUnusable", "Schemas"]

# Memory of all patterns of a schema together.
_PATTERN_MEMORY = 4 << 20
# Up to here a misfit is explained: finding what is wrong costs a thousand times what finding that it is wrong does.
_MAX_EXPLAINED = 500
# Bounds on all of them: names, JSON values, compiled ones.
_MAX_TOOLS = 4_096
_MAX_TOTAL = 400_000
_MAX_COMPILED = 128
_WORDS = re.compile(r"[A-Za-z0-9_.$-]{1,64}", re.ASCII)


class Misfit(NamedTuple):
    """Why a value does not fit: the schema's keyword, the place in the value, and the member that is missing."""

    keyword: str
    place: tuple[str | int, ...]
    missing: str | None


class Schemas:
    """The schemas of one server's tools under one member, ``inputSchema`` or ``outputSchema``."""

    __slots__ = ("_compiled", "_known", "_member", "_total")

    def __init__(self, member: str) -> None:
        self._member = member
        # A schema with its size and text, or why there is none.
        self._known: dict[str, tuple[Any, int, bytes] | str] = {}
        self._compiled: dict[str, _Compiled | str] = {}
        self._total = 0

    def learn(self, tools: Iterable[Any]) -> None:
        """Takes what a list says; tools that it does not name keep what they had."""
        for tool in tools:
            name = tool.get("name") if type(tool) is dict else None
            if type(name) is not str or not is_plain_name(name):
                continue
            schema = tool.get(self._member)
            known = self._known.get(name)
            if schema is None:
                self._forget(name)
                continue
            text = dumps(schema)
            # As text: to Python, true, 1 and 1.0 are the same.
            if type(known) is not tuple or known[2] != text:
                self._forget(name)
                self._remember(name, schema, text)

    def _remember(self, name: str, schema: Any, text: bytes) -> None:
        if len(self._known) >= _MAX_TOOLS:
            self._forget(next(iter(self._known)))
        try:
            size = measure(schema)
            if self._total + size > _MAX_TOTAL:
                raise SchemaUnusable("is one too many: the server's schemas are too large together")
        except SchemaUnusable as error:
            self._known[name] = str(error)
            return
        self._total += size
        self._known[name] = (schema, size, text)

    def _forget(self, name: str) -> None:
        self._compiled.pop(name, None)
        known = self._known.pop(name, None)
        if type(known) is tuple:
            self._total -= known[1]

    def misfit(self, name: str, value: Any) -> Misfit | None:
        """Why the value does not fit the tool's schema; None when it does, or the tool has none that is known.

        Raises SchemaUnusable.
        """
        known = self._known.get(name)
        if known is None:
            return None
        if type(known) is str:
            raise SchemaUnusable(known)
        compiled = self._compiled.get(name)
        if compiled is None:
            if len(self._compiled) >= _MAX_COMPILED:
                del self._compiled[next(iter(self._compiled))]
            try:
                compiled = _Compiled(known[0])
            except SchemaUnusable as error:
                compiled = str(error)
            self._compiled[name] = compiled
        if type(compiled) is str:
            raise SchemaUnusable(compiled)
        assert isinstance(compiled, _Compiled)
        return compiled.misfit(value)


class _Compiled:
    """A schema, ready to use.  Raises SchemaUnusable."""

    __slots__ = ("_graph", "_validator")

    def __init__(self, schema: Any) -> None:
        if type(schema) is not dict:
            raise SchemaUnusable("is no object")
        self._graph = Graph(schema)
        share = _PATTERN_MEMORY // max(1, self._graph.patterns)
        try:
            self._validator = jsonschema_rs.validator_for(
                schema,
                # The default fetches $ref by HTTP and from files.
                offline=True,
                validate_formats=False,
                # The default engine backtracks.
                pattern_options=jsonschema_rs.RegexOptions(size_limit=share, dfa_size_limit=1 << 20),
            )
        except jsonschema_rs.ValidationError as error:
            path = list(error.instance_path)
            if path and ("patternProperties" in path or path[-1] == "pattern"):
                raise SchemaUnusable(
                    "holds a pattern with look-around or back-references, or too large a one"
                ) from error
            raise SchemaUnusable("is not a valid JSON Schema") from error
        except (ValueError, RecursionError) as error:
            raise SchemaUnusable("is not a valid JSON Schema") from error

    def misfit(self, value: Any) -> Misfit | None:
        """As ``Schemas.misfit``."""
        self._graph.check_cost(value)
        try:
            if self._validator.is_valid(value):
                return None
        except ValueError as error:
            raise SchemaUnusable("is for values that JSON can hold") from error
        if self._graph.cost(value, _MAX_EXPLAINED) > _MAX_EXPLAINED:
            return Misfit("schema", (), None)
        found = next(iter(self._validator.iter_errors(value)), None)
        if found is None:
            return Misfit("schema", (), None)
        path = list(found.schema_path)
        words = [step for step in path if type(step) is str]
        missing = getattr(found.kind, "property", None) if found.kind.name == "required" else None
        return Misfit(
            words[-1] if words else "schema",
            tuple(found.instance_path),
            missing if type(missing) is str and _WORDS.fullmatch(missing) else None,
        )
