"""What is pinned of a tool, a prompt or a server's instructions, and the digest that stands for it.

The digest is SHA-256 of the canonical form of RFC 8785, so that the order of members, escapes, and 1 or 1.0 make no
difference, and one space does.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any

import orjson

from ...wire.names import fold

__all__ = ["FAMILIES", "INSTRUCTIONS", "PROMPT", "TOOL", "Family", "canonical", "digest"]


@dataclass(frozen=True, slots=True)
class Family:
    """A kind of definition.

    ``word``     what one is called: ``tool``, ``prompt``, ``instructions``
    ``listing``  the member of a list's result that holds them; "" where there is no list
    ``members``  the members of one that a model reads or that say how it is called
    ``schemas``  those of them that are JSON schemas
    """

    word: str
    listing: str = ""
    members: tuple[str, ...] = ()
    schemas: tuple[str, ...] = ()

    def pinned(self, entry: dict[str, Any]) -> dict[str, Any]:
        """The members that count, also where they are spelt in a way that only lenient parsers take for them."""
        return {member: entry[member] for member in entry if _plain(member) in _MEMBERS[self.word]}


def _plain(member: str) -> str:
    return fold(member).replace("_", "").replace("-", "")


_SCHEMAS = ("inputSchema", "outputSchema")
TOOL = Family("tool", "tools", ("name", "title", "description", *_SCHEMAS, "annotations"), _SCHEMAS)
PROMPT = Family("prompt", "prompts", ("name", "title", "description", "arguments"))
INSTRUCTIONS = Family("instructions")
FAMILIES = (TOOL, PROMPT, INSTRUCTIONS)

_MEMBERS = {family.word: frozenset(map(_plain, family.members)) for family in FAMILIES}


def digest(definition: Any) -> str | None:
    """``sha256:`` and 64 hexadecimal digits; None for what has no canonical form: a number beyond a double."""
    try:
        text = canonical(definition)
    except ValueError:
        return None
    return "sha256:" + hashlib.sha256(text).hexdigest()


def canonical(value: Any) -> bytes:
    """The form of RFC 8785.  Raises ValueError for what has none.

    orjson escapes in strings what the RFC escapes and nothing else, at the speed of C: servers choose how much of it
    there is.  The order of members and the form of numbers are ours.
    """
    try:
        return orjson.dumps(_normal(value))
    except (orjson.JSONEncodeError, OverflowError) as error:
        raise ValueError("no canonical form") from error


def _normal(value: Any) -> Any:
    # Depth is bounded by the parser.
    kind = type(value)
    if kind is dict:
        # 3.2.3: by UTF-16 code units, which differ in order from code points beyond U+FFFF alone.
        names = sorted(value, key=None if all(map(str.isascii, value)) else _utf16)
        return {name: _normal(value[name]) for name in names}
    if kind is list:
        return [_normal(each) for each in value]
    if kind is float or (kind is int and not -_EXACT < value < _EXACT):
        # RFC 8785 knows doubles alone, also where a schema names the bounds of a 64-bit integer.
        return orjson.Fragment(_number(float(value)).encode())
    return value


_EXACT = 2**53


def _utf16(name: str) -> bytes:
    return name.encode("utf-16-be", "surrogatepass")


def _number(value: float) -> str:
    """3.2.2.3, which is ECMA-262, Number::toString: the shortest digits that read as the same double."""
    if not math.isfinite(value):
        raise ValueError("not a number of JSON")
    if value <= 0:
        return "-" + _number(-value) if value else "0"
    # Python's repr finds the same digits; only where it puts the point is its own.
    mantissa, _, exponent = repr(value).partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    point = len(whole) + int(exponent or 0) - (len(whole + fraction) - len(digits))
    digits = digits.rstrip("0")
    count = len(digits)
    if count <= point <= 21:
        return digits + "0" * (point - count)
    if 0 < point <= 21:
        return f"{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return "0." + "0" * -point + digits
    rest = "." + digits[1:] if count > 1 else ""
    return f"{digits[0]}{rest}e{point - 1:+d}"
