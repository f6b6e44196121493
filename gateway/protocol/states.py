"""``requestState`` of revision 2026-07-28, sealed: what a server gives a client to bring back with the next try.

The specification calls it attacker-controlled (rule 7.14).  Behind one shared credential the upstream cannot know who
brings it back, so the gateway binds it to the caller, the upstream, the method, what the request names, and its
arguments: a state that was made for one call is refused with any other.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from ..wire.strict import dumps
from .errors import InvalidParams
from .message import Call
from .seal import KeyRing, SealBroken

__all__ = ["RequestStates"]

# What may differ between a request and its next try.
_OWN_MEMBERS = frozenset(("_meta", "inputResponses", "requestState"))


class RequestStates:
    """Seals and opens request states.  ``lifetime`` in seconds is ``sealing.request_state_lifetime``; ``clock`` gives
    seconds since the epoch."""

    def __init__(self, ring: KeyRing, lifetime: float, clock: Callable[[], float] = time.time) -> None:
        self._ring = ring
        self._lifetime = lifetime
        self._clock = clock

    def seal(self, state: str, client: str, upstream: str, call: Call, params: Mapping[str, Any]) -> str:
        """The client's form of a state that the upstream gave in its answer to ``call``, sent with ``params``."""
        text = dumps([int(self._clock() + self._lifetime), state])
        return self._ring.seal("state", _context(client, upstream, call, params), text)

    def open(self, sealed: Any, client: str, upstream: str, call: Call, params: Mapping[str, Any]) -> str:
        """The upstream's state; raises InvalidParams for one that was not made for this caller and this request, or
        that has expired."""
        try:
            if not isinstance(sealed, str):
                raise SealBroken("not a string")
            until, state = orjson.loads(self._ring.open("state", _context(client, upstream, call, params), sealed))
        except SealBroken as error:
            raise _refused() from error
        if self._clock() > until:
            raise _refused()
        return str(state)


def _refused() -> InvalidParams:
    return InvalidParams("params.requestState was not given out for this request", reason="request-state")


def _context(client: str, upstream: str, call: Call, params: Mapping[str, Any]) -> tuple[str, ...]:
    own = {name: value for name, value in params.items() if name not in _OWN_MEMBERS}
    return (client, upstream, call.method, call.name or "", hashlib.sha256(_canonical(own)).hexdigest())


def _canonical(value: Any) -> bytes:
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:  # integers beyond 64 bits
        return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
