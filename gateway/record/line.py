"""The two records of an ordinary call, as text.

They are written for each call, and differ from those of the call before in a few numbers: so what they have in common
is kept, and they are put together without a dict and an encoder.  They say what ``entry`` would have said; whatever is
not ordinary gets None here, and is recorded as an ``entry``.
"""

from __future__ import annotations

from typing import Any

import orjson

from .audit import is_usual
from .entry import describe_arguments

__all__ = ["About", "accepted", "describe", "finished"]

About = tuple[str, str]
"""What all records of a call say of it, in JSON: what stands first, and what stands last."""

# Calls that are remembered, and how long the names that describe them may be together; peers choose some of these.
_MAX_ABOUT = 1024
_MAX_CHARS = 512

_known: dict[tuple[str | None, ...], About | None] = {}


def describe(
    client: str | None,
    session: str | None,
    upstream: str | None,
    revision: str | None,
    method: str | None,
    name: str | None,
    remote: str | None,
) -> About | None:
    """What the records of a call have in common, with the fields of ``entry``."""
    key = (client, session, upstream, revision, method, name, remote)
    known = _known.get(key)
    if known is None and key not in _known:
        first = {"client": client, "session": session, "upstream": upstream, "revision": revision, "method": method,
                 "name": name}  # fmt: skip
        known = _about({name: value for name, value in first.items() if value is not None}, remote)
        if sum(len(each) for each in key if each is not None) <= _MAX_CHARS:
            if len(_known) >= _MAX_ABOUT:
                _known.clear()
            _known[key] = known
    return known


def _about(fields: dict[str, str], remote: str | None) -> About | None:
    try:
        first = orjson.dumps(fields)
        last = b"" if remote is None else b',"remote":' + orjson.dumps(remote)
    except orjson.JSONEncodeError:  # a lone surrogate
        return None
    if not fields or not is_usual(first) or (last and not is_usual(last)):
        return None
    return first[1:-1].decode(), last.decode()


def accepted(request: str, about: About, arguments: Any) -> bytes | None:
    """``request.accepted``; ``request`` is the audit id, ``arguments`` those of the call."""
    shape, digest = describe_arguments(arguments)
    try:
        text = orjson.dumps(shape)
    except orjson.JSONEncodeError:
        return None
    if not is_usual(text):
        return None
    return (
        f'"event":"request.accepted","request":"{request}",{about[0]},"decision":"allow",'
        f'"arguments":{{"shape":{text.decode()},"digest":"{digest}"}}{about[1]}'
    ).encode()


def finished(
    request: str, about: About, outcome: str, status: int, bytes_in: int, bytes_out: int, first: float, last: float
) -> bytes:
    """``request.finished`` of a call that nothing was wrong with: one of the relay's own outcomes, and no findings."""
    return (
        f'"event":"request.finished","request":"{request}",{about[0]},"bytes":{{"in":{bytes_in},"out":{bytes_out}}},'
        f'"ms":{{"first":{first * 1000:.3f},"last":{last * 1000:.3f}}},'
        f'"outcome":"{outcome}","status":{status}{about[1]}'
    ).encode()
