"""JSON text that every parser reads in the same way, or an error.

Peers use many parsers, and where two of them differ, one side of the gateway can be shown another message than the
other: the first or the last of two equal members, names that differ in case, a lone surrogate, 1e400, a byte order mark
(rules 2.4, 2.19, 2.20).  None of that is accepted, in either direction.  What is accepted means the same to json,
orjson, jiter and JavaScript; only integers beyond 2^53 may still be read with more or less precision.

``jiter`` does most of the work, at C speed.  The rest is done around it, cheapest first, so that an ordinary call of a
few hundred bytes costs a few microseconds: see the comments at each step.  All of it is linear and nothing recurses.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import Any, Final

import jiter
import orjson

from .errors import JsonRefused, JsonSyntaxError, LimitExceeded, PeerError
from .names import PROTOCOL_NAMES, WHOLE_NAME, Twins, fold, shown

__all__ = ["MAX_DEPTH", "MAX_NUMBER_CHARS", "Limits", "Twins", "dumps", "parse"]

# jiter's own bound: beyond it, it would answer in our place.
MAX_DEPTH = 200
# Every integer of so many digits is finite as a double too, which is how JavaScript reads it.
MAX_NUMBER_CHARS = 308

_BOM = b"\xef\xbb\xbf"

# What is asked for several times a message, at hand.
_from_json: Final = jiter.from_json
_ANY: Final = Twins.ANY


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on one document; all inclusive.

    ``depth``         arrays and objects within each other, 1 to MAX_DEPTH (``limits.json_depth``)
    ``nodes``         values: scalars, arrays and objects, the outermost included (``limits.json_nodes``)
    ``number_chars``  characters of one number, 1 to MAX_NUMBER_CHARS (``limits.json_number_chars``)
    """

    depth: int
    nodes: int
    number_chars: int

    def __post_init__(self) -> None:
        if not 1 <= self.depth <= MAX_DEPTH:
            raise ValueError(f"depth must be 1 to {MAX_DEPTH}")
        if not 1 <= self.number_chars <= MAX_NUMBER_CHARS:
            raise ValueError(f"number_chars must be 1 to {MAX_NUMBER_CHARS}")
        if self.nodes < 1:
            raise ValueError("nodes must be at least 1")


def parse(data: bytes, limits: Limits, *, twins: Twins) -> Any:
    """The one meaning of ``data``, as dict, list, str, int, float, bool or None.

    Raises JsonSyntaxError (``not-utf8``, ``bom``, ``syntax``), JsonRefused (``duplicate-member``, ``folded-member``,
    ``nul-member``, ``lone-surrogate``, ``not-finite``) or LimitExceeded (``depth``, ``nodes``, ``number-length``).
    Where several apply, which of them is raised is not defined.  The caller bounds the size of ``data``.
    """
    return read(data, limits.depth, limits.nodes, limits.number_chars, twins)[0]


def read(data: bytes, depth: int, nodes: int, number_chars: int, twins: Twins) -> tuple[Any, int]:
    """``parse``, which also tells how many values there are."""
    # A value takes at least a byte, so that most documents cannot have too many.  This comes before the parser, whose
    # objects are up to fifty times as large as their text.
    if len(data) > nodes:
        _bound_nodes(data, nodes)
    try:
        # Only member names are cached: values may be secrets, and the cache outlives the message.
        document = _from_json(data, catch_duplicate_keys=True, allow_inf_nan=False, cache_mode="keys")
    except ValueError as error:
        raise _refusal(data, str(error)) from None
    if len(data) > number_chars:
        _bound_numbers(data, number_chars)
    return document, _walk(document, data, depth, twins is _ANY)


def dumps(document: Any) -> bytes:
    """Compact JSON in UTF-8 without any escape that could be left out; exact for integers of any size.

    Raises TypeError or ValueError for what no JSON text can say: that is a defect of the caller, not of a peer.
    """
    try:
        return orjson.dumps(document)
    except orjson.JSONEncodeError:  # integers beyond 64 bits
        return json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


# -- what the parser refuses ------------------------------------------------------------------------------------------

_position = re.compile(r" at line \d+ column \d+\Z").search
_twice = re.compile(r'Detected duplicate key "(.*)" at line \d+ column \d+\Z', re.DOTALL).match


def _refusal(data: bytes, complaint: str) -> PeerError:
    """Our error for one of jiter's, whose own text holds nothing of the peer's but a duplicate's name."""
    where = _position(complaint)
    at = where[0] if where else ""
    duplicate = _twice(complaint)
    if duplicate:
        return JsonRefused("duplicate-member", f"member {shown(duplicate[1])} occurs twice in one object{at}")
    if data.startswith(_BOM):
        return JsonSyntaxError("bom", "JSON must not begin with a byte order mark")
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return JsonSyntaxError("not-utf8", f"JSON must be UTF-8, but byte {error.start} is not")
    if "recursion limit" in complaint:
        return too_deep()
    if "number out of range" in complaint:
        return too_long()
    if "lone leading surrogate" in complaint or "unexpected end of hex escape" in complaint:
        return JsonRefused("lone-surrogate", f"a string holds half of a surrogate pair{at}")
    return JsonSyntaxError("syntax", f"not JSON: {complaint}")


def too_deep() -> LimitExceeded:
    """Arrays and objects within each other beyond ``Limits.depth``."""
    return LimitExceeded("depth", "JSON is nested more deeply than allowed", limit="limits.json_depth")


def too_many() -> LimitExceeded:
    """More values than ``Limits.nodes``."""
    return LimitExceeded("nodes", "JSON holds more values than allowed", limit="limits.json_nodes")


def too_long() -> LimitExceeded:
    """A number with more than ``Limits.number_chars`` characters."""
    return LimitExceeded("number-length", "a number has more digits than allowed", limit="limits.json_number_chars")


# -- what it does not refuse ------------------------------------------------------------------------------------------

_STRING = rb'"[^"\\]*+(?>(?:\\.[^"\\]*+)*)"'
_nodes = re.compile(_STRING + rb"|[\[{][ \t\n\r]*+[\]}]|([,\[{])", re.DOTALL).finditer
_number_runs = re.compile(_STRING + rb"|([-+.0-9eE]++)", re.DOTALL).finditer
_OF_NUMBERS: Final = frozenset(b"-+.0123456789eE")
_IN_NUMBERS = bytes(byte in _OF_NUMBERS for byte in range(256))


def _bound_nodes(data: bytes, most: int) -> None:
    # Each value but the outermost follows a comma or an opening bracket, so that this never says too few.
    if data.count(b",") + data.count(b"[") + data.count(b"{") < most:
        return
    # Exact for JSON; whatever this counts in other bytes, they are refused anyway.
    count = 1
    for token in _nodes(data):
        if token.lastindex:
            count += 1
            if count > most:
                raise too_many()


def _bound_numbers(data: bytes, most: int) -> None:
    # A run that is too long covers one of these places.
    if _OF_NUMBERS.isdisjoint(data[most :: most + 1]):
        return
    # Two passes at memory speed tell that no run of number characters is too long.  If one is, it may be text.
    if data.translate(_IN_NUMBERS).find(b"\1" * (most + 1)) >= 0:
        for token in _number_runs(data):
            if token.lastindex and token.end() - token.start() > most:
                raise too_long()


def _walk(document: Any, data: bytes, depth: int, every_twin: bool) -> int:
    """Check values and names; returns how many values there are.  ``data`` is the text of the document."""
    count = 0
    distinct = _distinct
    names: _Names | None = None
    level: list[Any] = [[document]]
    for _ in range(depth + 1):
        # One level of nesting after the other.
        deeper: list[Any] = []
        for container in level:
            count += len(container)
            # Twice the same for values: iterators that serve objects and arrays alike take as long as all the rest.
            if type(container) is dict:
                members: dict[str, Any] = container
                are_distinct = True
                for name, value in members.items():
                    if name not in distinct:
                        are_distinct = False
                    kind = type(value)
                    if kind is dict or kind is list:
                        deeper.append(value)
                    elif kind is float and not isfinite(value):
                        raise not_finite()
                if not are_distinct:
                    if names is None:
                        names = _Names(data)
                    names.check(members, every_twin)
            else:
                values: list[Any] = container
                for value in values:
                    kind = type(value)
                    if kind is dict or kind is list:
                        deeper.append(value)
                    elif kind is float and not isfinite(value):
                        raise not_finite()
        if not deeper:
            return count
        level = deeper
    raise too_deep()


# Names without NUL of which no two fold to the same, and each by its fold: an object that has no others needs no closer
# look.  Peers choose names, so their length and number are bounded.
_MAX_NAMES = 4096
_distinct: Final[set[str]] = set()
_by_fold: dict[str, str] = {}


class _Names:
    """How the names of one document, of which the text is given, are looked at."""

    __slots__ = ("_escapes", "_fold")

    def __init__(self, data: bytes) -> None:
        # Without escapes a name cannot hold NUL, and without the Turkish letters its fold is Unicode's, which is C.
        self._escapes = data.find(b"\\u") >= 0
        plain = not self._escapes and (data.isascii() or not (b"\xc4\xb0" in data or b"\xc4\xb1" in data))
        self._fold: Callable[[str], str] = str.casefold if plain else fold

    def check(self, members: dict[str, Any], every_twin: bool) -> None:
        """Raises JsonRefused for a name with NUL, and for two that are twins."""
        if self._escapes and any("\0" in name for name in members):
            raise nul_member()
        if len(set(map(self._fold, members))) < len(members):
            _check_twins(members, every_twin)
        _remember(members)


def _remember(names: dict[str, Any]) -> None:
    for name in names:
        if len(name) > WHOLE_NAME or name in _distinct or "\0" in name:
            continue
        if len(_distinct) >= _MAX_NAMES:
            _distinct.clear()
            _by_fold.clear()
        # The latest spelling is the one that counts, so that a peer cannot keep others' names out for long.
        folded = fold(name)
        earlier = _by_fold.get(folded)
        if earlier is not None:
            _distinct.discard(earlier)
        _by_fold[folded] = name
        _distinct.add(name)


def _check_twins(container: dict[str, Any], every_twin: bool) -> None:
    seen: set[str] = set()
    for name in container:
        folded = fold(name)
        if folded in seen and (every_twin or folded in PROTOCOL_NAMES):
            raise folded_member(name)
        seen.add(folded)


def not_finite() -> JsonRefused:
    """A number such as 1e400, which becomes infinity, null or an error, as the parser likes."""
    return JsonRefused("not-finite", "a number is too large for a double")


def nul_member() -> JsonRefused:
    """A member's name with NUL, where C code would stop reading."""
    return JsonRefused("nul-member", "a member's name holds NUL")


def folded_member(name: str) -> JsonRefused:
    """Two members whose names are one to a parser that folds case."""
    return JsonRefused("folded-member", f"member {shown(name)} differs only in case from another one of its object")
