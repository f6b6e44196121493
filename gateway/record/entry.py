"""What an audit record says: its fields, in one place, and what of a message may be remembered.

Values of arguments never enter a record; session ids, and names that nobody declared, only as digests (rule 9.8).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any, Final, Literal, Protocol

import orjson

__all__ = ["MAX_FINDINGS", "Arguments", "Event", "Found", "audit_name", "describe_arguments", "entry"]

Event = Literal[
    "request.accepted", "request.refused", "request.finished", "message.blocked", "started", "reloaded", "stopped",
]  # fmt: skip
"""What happened.  The audit file itself adds ``repaired`` and ``resumed``."""

Arguments = tuple[Any, str]
"""Shape and digest, as :func:`describe_arguments` gives them."""

# So many findings stand in a record; of the others it has the number.
MAX_FINDINGS = 32

_MAX_DEPTH: Final = 4
_MAX_MEMBERS: Final = 16
_MAX_ITEMS: Final = 4
_MAX_SHAPE_NODES: Final = 64
_MAX_MEMBER_CHARS: Final = 64

_dumps: Final = orjson.dumps
_SORTED: Final = orjson.OPT_SORT_KEYS
_sha256: Final = hashlib.sha256

# What a method or a tool may be called and still stand in the record as it is: it can forge nothing there.
_PLAIN = re.compile(r"[A-Za-z0-9_./:-]{1,64}")


class Found(Protocol):
    """A finding of a hook (``gateway.guard.hook.Finding``), as a record needs it."""

    @property
    def hook(self) -> str: ...
    @property
    def rule(self) -> str: ...
    @property
    def action(self) -> str: ...
    @property
    def place(self) -> str: ...
    @property
    def count(self) -> int: ...


def entry(
    event: Event,
    *,
    request: str | None = None,
    client: str | None = None,
    session: str | None = None,
    upstream: str | None = None,
    revision: str | None = None,
    http: str | None = None,
    method: str | None = None,
    name: str | None = None,
    decision: str | None = None,
    rule: str | None = None,
    key: str | None = None,
    arguments: Arguments | None = None,
    bytes_in: int | None = None,
    bytes_out: int | None = None,
    first: float | None = None,
    last: float | None = None,
    findings: Sequence[Found] = (),
    more_findings: int = 0,
    outcome: str | None = None,
    status: int | None = None,
    code: int | None = None,
    remote: str | None = None,
) -> dict[str, object]:
    """The record of an event, without what is not known.  ``Audit.write`` adds ``time`` and ``seq``.

    ``request``   the audit id of the exchange; it is also in ``error.data.request``
    ``session``   the digest of the session id (``Session.digest``), never the id
    ``http``      the HTTP method where there is no message
    ``method``, ``name``  see :func:`audit_name`
    ``decision``  ``allow``, ``deny``, ``replace``, ``drop`` or ``block``; ``rule`` and ``key`` say what decided
    ``bytes_in``, ``bytes_out``  bytes of body from and to the client
    ``first``, ``last``  seconds from the request's head to the first and to the last byte of its answer
    ``more_findings``  how many there were beside ``findings``
    ``status``    HTTP status of the answer, ``code`` its JSON-RPC error code
    ``remote``    the peer's address
    """
    # Written out: a record is made for each call, twice, and this is what costs least.
    fields: dict[str, object] = {"event": event}
    if request is not None:
        fields["request"] = request
    if client is not None:
        fields["client"] = client
    if session is not None:
        fields["session"] = session
    if upstream is not None:
        fields["upstream"] = upstream
    if revision is not None:
        fields["revision"] = revision
    if http is not None:
        fields["http"] = http
    if method is not None:
        fields["method"] = method
    if name is not None:
        fields["name"] = name
    if decision is not None:
        fields["decision"] = decision
    if rule is not None:
        fields["rule"] = rule
    if key is not None:
        fields["key"] = key
    if arguments is not None:
        fields["arguments"] = {"shape": arguments[0], "digest": arguments[1]}
    if bytes_in is not None or bytes_out is not None:
        fields["bytes"] = _pair("in", bytes_in, "out", bytes_out)
    if first is not None or last is not None:
        fields["ms"] = _pair("first", _milliseconds(first), "last", _milliseconds(last))
    if findings:
        fields["findings"] = _findings(findings, more_findings)
    if outcome is not None:
        fields["outcome"] = outcome
    if status is not None:
        fields["status"] = status
    if code is not None:
        fields["code"] = code
    if remote is not None:
        fields["remote"] = remote
    return fields


def audit_name(name: str, known: bool) -> str:
    """``name`` where it is one that was declared (by configuration, or by the upstream's own list) or that is short and
    plain, else its digest: ``sha256:`` and 16 hexadecimal digits.  So a peer cannot write what it likes into the
    record."""
    if known or _PLAIN.fullmatch(name) is not None:
        return name
    return "sha256:" + hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def describe_arguments(arguments: Any) -> Arguments:
    """Types and sizes of a JSON value, and the digest of the whole: ``({"city": "string(4)"}, "sha256:...")``.

    The shape goes 4 levels deep, 16 members and 4 items wide, 64 nodes in all; ``...`` counts what it leaves out.
    Names of members are kept, cut at 64 characters.  Sizes are characters, items and members.

    The digest is the SHA-256 of the value with sorted members.  It shows that two calls had the same arguments, and
    proves what they were to somebody who has them.  It is not a secret: whoever can try all plausible values (a city, a
    PIN) finds the one that fits.  Linear in the size of the value.
    """
    return _shape(arguments, 0, _Room()), "sha256:" + _sha256(_canonical(arguments)).hexdigest()


def _canonical(value: Any) -> bytes:
    try:
        return _dumps(value, option=_SORTED)
    except orjson.JSONEncodeError:
        # Integers beyond 64 bit.
        return json.dumps(value, sort_keys=True, separators=(",", ":")).encode("ascii")


class _Room:
    """How many nodes a shape may still have."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = _MAX_SHAPE_NODES


def _shape(value: Any, depth: int, room: _Room) -> Any:
    room.left -= 1
    kind = type(value)
    if kind is str:
        return f"string({len(value)})"
    if kind is dict:
        if depth == _MAX_DEPTH:
            return f"object({len(value)})"
        given: dict[str, Any] = value
        members: dict[str, Any] = {}
        for name, member in given.items():
            if len(members) == _MAX_MEMBERS or room.left <= 0:
                members["..."] = len(given) - len(members)
                break
            key = name if len(name) <= _MAX_MEMBER_CHARS else name[:_MAX_MEMBER_CHARS]
            if type(member) is str:
                room.left -= 1
                members[key] = f"string({len(member)})"
            else:
                members[key] = _shape(member, depth + 1, room)
        return members
    if kind is list:
        if depth == _MAX_DEPTH:
            return f"array({len(value)})"
        items: list[Any] = []
        for item in value:
            if len(items) == _MAX_ITEMS or room.left <= 0:
                items.append(f"...({len(value) - len(items)})")
                break
            items.append(_shape(item, depth + 1, room))
        return items
    return _SCALARS[kind]


_SCALARS = {int: "integer", float: "number", bool: "boolean", type(None): "null"}


def _pair(one: str, first: float | None, two: str, second: float | None) -> dict[str, float | None]:
    if first is None:
        return {two: second}
    return {one: first} if second is None else {one: first, two: second}


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)


def _findings(findings: Sequence[Found], more: int) -> list[dict[str, object]]:
    listed: list[dict[str, object]] = [
        {
            # A hook of the operator's may have put anything here; the record must be written all the same.
            "hook": str(found.hook),
            "rule": str(found.rule),
            "action": str(found.action),
            "place": str(found.place),
            "count": int(found.count),
        }
        for found in findings[:MAX_FINDINGS]
    ]
    more += max(0, len(findings) - MAX_FINDINGS)
    if more:
        listed.append({"omitted": more})
    return listed
