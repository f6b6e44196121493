"""The two records of an ordinary call, as text.

They are written for each call, and differ from those of the call before in a few numbers: so what they have in common
is kept, and they are put together without a dict and an encoder.  They say what ``entry`` would have said; whatever is
not ordinary gets None here, and is recorded as an ``entry``.
"""

from __future__ import annotations

from typing import Any, Final

from orjson import JSONEncodeError, dumps

from ..protocol.methods import METHODS
from .audit import is_usual
from .entry import audit_name, describe_arguments

__all__ = ["About", "accepted", "describe", "finished"]

About = tuple[str, str]
"""What all records of a call say of it, in JSON: what stands first, and what stands last."""

# Calls and shapes of arguments that are remembered, and how many characters what describes one may have; peers choose
# some of these.
_MAX_KNOWN: Final = 1024
_MAX_CHARS: Final = 512

# With a name, it is formatted by one call: mypyc would turn a literal into several of ``str.format``.
_TIMES: Final = '"ms":{"first":%.3f,"last":%.3f}'

_known: Final[dict[tuple[str | None, ...], About | None]] = {}
# By what the encoder made of it: the shape as text.
_shapes: Final[dict[bytes, str]] = {}


def describe(
    client: str | None,
    session: str | None,
    upstream: str | None,
    revision: str | None,
    method: str | None,
    name: str | None,
    remote: str | None,
    accepted: bool,
) -> About | None:
    """What the records of a call have in common, with the fields of ``entry``.

    ``method`` and ``name`` as they came; ``accepted`` whether the name has been seen to be a declared one."""
    key = (client, session, upstream, revision, method, name, remote, "accepted" if accepted else None)
    known = _known.get(key)
    if known is None and key not in _known:
        first = {"client": client, "session": session, "upstream": upstream, "revision": revision,
                 "method": None if method is None else audit_name(method, method in METHODS),
                 "name": None if name is None else audit_name(name, accepted)}  # fmt: skip
        known = _about({name: value for name, value in first.items() if value is not None}, remote)
        if sum(len(each) for each in key if each is not None) <= _MAX_CHARS:
            if len(_known) >= _MAX_KNOWN:
                _known.clear()
            _known[key] = known
    return known


def _about(fields: dict[str, str], remote: str | None) -> About | None:
    try:
        first = dumps(fields)
        last = b"" if remote is None else b',"remote":' + dumps(remote)
    except JSONEncodeError:  # a lone surrogate
        return None
    if not fields or not is_usual(first) or (last and not is_usual(last)):
        return None
    return first[1:-1].decode(), last.decode()


def accepted(request: str, about: About, arguments: Any) -> bytes | None:
    """``request.accepted``; ``request`` is the audit id, ``arguments`` those of the call."""
    shape, digest = describe_arguments(arguments)
    text = _shape_text(shape)
    if text is None:
        return None
    return (
        f'"event":"request.accepted","request":"{request}",{about[0]},"decision":"allow",'
        f'"arguments":{{"shape":{text},"digest":"{digest}"}}{about[1]}'
    ).encode()


def _shape_text(shape: Any) -> str | None:
    try:
        encoded = dumps(shape)
    except JSONEncodeError:
        return None
    text = _shapes.get(encoded)
    if text is None and is_usual(encoded):
        text = encoded.decode()
        if len(text) <= _MAX_CHARS:
            if len(_shapes) >= _MAX_KNOWN:
                _shapes.clear()
            _shapes[encoded] = text
    return text


def finished(
    request: str, about: About, outcome: str, status: int, bytes_in: int, bytes_out: int, first: float, last: float
) -> bytes:
    """``request.finished`` of a call that nothing was wrong with: one of the relay's own outcomes, and no findings."""
    times = _TIMES % (first * 1000, last * 1000)
    return (
        f'"event":"request.finished","request":"{request}",{about[0]},"bytes":{{"in":{bytes_in},"out":{bytes_out}}},'
        f'{times},"outcome":"{outcome}","status":{status}{about[1]}'
    ).encode()
