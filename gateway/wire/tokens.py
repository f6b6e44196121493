"""The tokens of JSON (RFC 8259) as byte patterns for a lexer that sees one chunk at a time.

Every repetition is possessive: a pattern never goes back, so that matching is linear in what it reads, whatever a peer
sends.  The patterns assume that the bytes are valid UTF-8, which is checked before.
"""

from __future__ import annotations

import re

__all__ = [
    "LITERALS", "NUMBER", "match_beginning", "match_container", "match_escape_start", "match_number_run", "match_run",
    "match_string", "match_string_end", "match_surrogate_start", "match_white_space",
]  # fmt: skip

_SPACE = rb"[ \t\n\r]*+"
_HEX = rb"[0-9a-fA-F]"
# \uXXXX but no surrogate, or a whole pair of them.
_HIGH = rb"[dD][89abAB]" + _HEX + _HEX
_LOW = rb"[dD][c-fC-F]" + _HEX + _HEX
_SCALAR = rb"(?:[0-9abcefABCEF]" + _HEX + rb"|[dD][0-7])" + _HEX + _HEX
_UNIT = rb"u(?:" + _SCALAR + rb"|" + _HIGH + rb"\\u" + _LOW + rb")"
_CONTENT = rb'(?>(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|' + _UNIT + rb"))*)"

match_white_space = re.compile(_SPACE).match
# As much of a string's inside as is whole; what follows is its quote, the chunk's end, half an escape, or an error.
match_string = re.compile(_CONTENT).match
# The beginning of an escape that later bytes may complete, up to the end of the chunk.
match_escape_start = re.compile(
    rb"\\(?:u(?:" + _HEX + rb"{0,3}|" + _HIGH + rb"(?:\\(?:u(?:[dD](?:[c-fC-F]" + _HEX + rb"?)?)?)?)?)?)?"
).fullmatch
# An escape that names half of a surrogate pair (the half that is there is at fault, or what follows it).
match_surrogate_start = re.compile(rb"\\u[dD][89a-fA-F]" + _HEX + _HEX).match

match_number_run = re.compile(rb"[-+.0-9eE]*+").match
NUMBER = re.compile(rb"-?(?:0|[1-9][0-9]*+)(\.[0-9]++)?([eE][-+]?[0-9]++)?")
LITERALS = {ord("t"): (b"true", True), ord("f"): (b"false", False), ord("n"): (b"null", None)}

# -- many tokens at once ----------------------------------------------------------------------------------------------

# These find where whole values end and let anything pass in between: strict.parse has the say about that.


def _container(levels: int) -> bytes:
    """An array or object that holds at most so many levels of others."""
    inside = rb'[^\[\]{}"]++|' + _LOOSE_STRING
    if levels:
        inside += rb"|" + _container(levels - 1)
    return rb"[\[{](?>(?:" + inside + rb")*)[\]}]"


_LOOSE_INSIDE = rb'[^"\\]*+(?>(?:\\.[^"\\]*+)*)'
_LOOSE_STRING = rb'"' + _LOOSE_INSIDE + rb'"'
# The rest of a string, with its quote.
match_string_end = re.compile(_LOOSE_INSIDE + rb'"', re.DOTALL).match
_CONTAINER = _container(3)
match_container = re.compile(_SPACE + _CONTAINER, re.DOTALL).match
# What elements of a list have in common, mostly: they are arrays, or objects whose first member has the same name.
match_beginning = re.compile(_SPACE + rb"(?:\[|\{" + _SPACE + rb'"[^"\\]{1,64}+")').match
# Up to 64 elements or members, each with the comma that follows it.
match_run = re.compile(
    rb'(?>(?:(?>(?:[^\[\]{}",]++|' + _LOOSE_STRING + rb"|" + _CONTAINER + rb")*),){1,64})", re.DOTALL
).match
