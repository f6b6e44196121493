"""When are two member names the same name?

RFC 8259 compares code points.  Real parsers are looser: Go's binds struct fields by Unicode case folding, so that
``param`` with U+017F for its s is ``params`` there (CVE-2026-27896), Java's and .NET's do so on request, and C code
stops at NUL.  Where two members of one object are the same name to some parser, that parser may see another message
than the policy did.  So names are compared folded, and a name with NUL is refused.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from .members import direct

__all__ = [
    "PROTOCOL_KEYS",
    "PROTOCOL_NAMES",
    "WHOLE_NAME",
    "Cleared",
    "LongName",
    "Twins",
    "fold",
    "fold_bytes",
    "same_name",
    "shown",
]


@direct
class Twins(enum.Enum):
    """Which pairs of members that differ only in case are refused; exact duplicates always are.

    ``ANY``       every pair: for requests, which are written by programs that have no reason for such a pair
    ``PROTOCOL``  pairs that fold to one of the protocol's own names: for answers, where honest data holds both "Date"
                  and "date"
    """

    ANY = "any"
    PROTOCOL = "protocol"


# The members by which a message or its content is understood: those of JSON-RPC, of requests, of results and contents.
PROTOCOL_NAMES = frozenset(
    name.casefold()
    for name in (
        "jsonrpc", "id", "method", "params", "result", "error", "code", "message",
        "_meta", "name", "arguments", "uri", "uriTemplate", "cursor", "progressToken", "requestId", "requestState",
        "inputRequests", "inputResponses", "protocolVersion", "capabilities", "clientInfo", "serverInfo",
        "tools", "resources", "resourceTemplates", "prompts", "messages", "description", "inputSchema", "outputSchema",
        "resultType", "content", "contents", "structuredContent", "isError", "nextCursor", "type", "text", "blob",
        "mimeType", "instructions",
    )
)  # fmt: skip
PROTOCOL_KEYS = frozenset(name.encode() for name in PROTOCOL_NAMES)

# Java compares both cases of each character, so that the Turkish dotted capital and dotless small i equal "i" there;
# Unicode's folding, by itself, keeps them apart.
_TURKISH = {0x130: "i", 0x131: "i"}
# Names of ordinary length are remembered as they are, longer ones by digest: so the set of names that an object has had
# takes a bounded space for each.  A digest begins with NUL, as no accepted name does.
WHOLE_NAME = 64


def fold(name: str) -> str:
    """The name as the loosest parser compares it.  Character by character: the fold of a whole is the folds of its
    parts, joined."""
    return name.lower() if name.isascii() else name.translate(_TURKISH).casefold()


def fold_bytes(name: bytes) -> bytes:
    """``fold`` of a name in UTF-8."""
    return name.lower() if name.isascii() else fold(name.decode()).encode()


def same_name(name: bytes, twins: Twins) -> tuple[bytes, bytes]:
    """Two keys of bounded size for a name in UTF-8: the first is equal for names that are the same under ``twins``, the
    second for names of the same code points."""
    key = fold_bytes(name)
    if twins is Twins.PROTOCOL and key not in PROTOCOL_KEYS:
        key = name
    return _bounded(key), _bounded(name)


def _bounded(name: bytes) -> bytes:
    return name if len(name) <= WHOLE_NAME else b"\0" + hashlib.blake2b(name, digest_size=16).digest()


class LongName:
    """``same_name`` for a name that arrives in parts and is never held: more than 1 KiB of UTF-8, so that even its fold
    is longer than any name that is remembered as it is."""

    __slots__ = ("_exact", "_folded")

    def __init__(self) -> None:
        self._exact = hashlib.blake2b(digest_size=16)
        self._folded = hashlib.blake2b(digest_size=16)

    def update(self, part: bytes) -> None:
        """The next part; it ends where a character ends."""
        self._exact.update(part)
        self._folded.update(fold_bytes(part))

    def keys(self, twins: Twins) -> tuple[bytes, bytes]:
        """What ``same_name`` would say of the whole."""
        exact = b"\0" + self._exact.digest()
        return (b"\0" + self._folded.digest() if twins is Twins.ANY else exact), exact


class Cleared:
    """A question about member names, and the names for which the answer is known to be no.

    Messages have the same few names again and again.  Peers choose them, so their length and number are bounded.
    """

    __slots__ = ("_all_known", "_known", "_suspects")

    def __init__(self, suspects: Callable[[str], bool]) -> None:
        self._suspects = suspects
        self._known: set[str] = set()
        self._all_known = self._known.issuperset

    def __call__(self, members: Mapping[str, Any]) -> bool:
        """True when the answer is no for every one of the names."""
        return self._all_known(members) or self._look(members)

    def _look(self, members: Mapping[str, Any]) -> bool:
        cleared = True
        for name in members:
            if name in self._known:
                continue
            if self._suspects(name):
                cleared = False
            elif len(name) <= WHOLE_NAME:
                if len(self._known) >= _MAX_CLEARED:
                    self._known.clear()
                self._known.add(name)
        return cleared


_MAX_CLEARED = 4096


def shown(name: str) -> str:
    """A member's name for a message: in ASCII, quoted, and not long."""
    return ascii(name if len(name) <= 40 else name[:40] + "...")
