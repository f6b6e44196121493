"""Sessions of the revisions up to 2025-11-25, bound to the caller that opened them.

A session id is not a credential (rules 3.13, 3.14): every request is authenticated, and a session answers only to the
client and the upstream that it was opened for.  Anybody else sees what they would see for an id that never existed
(rule 3.7).

The id that a client holds is sealed (``seal``): it contains the upstream's own id, the negotiated revision and the
client's capabilities, so any copy of the gateway with the same keys serves any session, and nothing has to be looked
up.  What goes out on a session's streams and comes back is bound to it in the same way: event ids (rule 5.6), which
also say which request's stream they belong to, so that an answer on a resumed stream is judged as what it is (rule
5.5); and ids of the server's requests, so that a client's response is known for what it answers.

What this process alone remembers of a session - requests in flight - only makes it stricter and better at explaining;
nothing depends on it.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from ..wire.envelope import RequestId, is_request_id
from ..wire.strict import dumps
from .errors import BadRequest, UnknownSession, UpstreamProtocolError
from .headers import is_session_id
from .message import Call
from .seal import KeyRing, SealBroken

__all__ = ["Session", "Sessions"]

# A sealed event id has to come back in a header field, beside all others (``limits.max_header_size``).
MAX_EVENT_ID = 4096

# Ids of requests up to this length, in characters, are remembered; peers choose them, and have no bound of their own.
MAX_REMEMBERED_ID = 128

# What one session may have in flight in this process, and how many sessions that have something are remembered.
MAX_OPEN = 1024

# The client's capabilities travel in the session id; what is larger than this is cut down to the names of the kinds.
MAX_CAPABILITIES = 512

# Session ids whose seal has been opened before are remembered, each up to 3 KB with what it holds.
MAX_FOUND = 4096

_SIGNED = "gw."


class Session:
    """What a session id says.

    ``id`` is the client's, ``upstream_id`` the upstream's; ``digest`` is what records call the session.
    ``revision`` was negotiated; ``capabilities`` are what the client declared in initialize.
    ``context`` is what everything that belongs to the session is bound to.
    """

    __slots__ = ("capabilities", "client", "context", "digest", "id", "revision", "upstream", "upstream_id")

    def __init__(
        self,
        id: str,
        upstream_id: str,
        client: str,
        upstream: str,
        revision: str | None,
        capabilities: Mapping[str, Any],
    ) -> None:
        self.id = id
        self.upstream_id = upstream_id
        self.client = client
        self.upstream = upstream
        self.revision = revision
        self.capabilities = capabilities
        # Of the upstream's id: the same session has the same name whatever key it is sealed with.
        text = f"{upstream}\0{upstream_id}"
        self.digest = "sha256:" + hashlib.sha256(text.encode()).hexdigest()[:16]
        self.context = (client, upstream, upstream_id)


class Sessions:
    """Opens and recognises sessions.

    ``lifetime`` in seconds is ``sealing.session_lifetime``; ``capacity`` bounds what this process remembers; ``clock``
    gives seconds since the epoch.
    """

    def __init__(self, ring: KeyRing, lifetime: float, capacity: int, clock: Callable[[], float] = time.time) -> None:
        self._ring = ring
        self._lifetime = lifetime
        self._capacity = capacity
        self._clock = clock
        # What ``find`` has found, longest ago first, and until when it is good.
        self._found: dict[tuple[str, str, str], tuple[Session, float]] = {}
        # By context, least recently used first: whether each request still waits for its answer, or was cancelled.
        self._calls: dict[tuple[str, str, str], dict[RequestId, bool]] = {}
        self._asked: dict[tuple[tuple[str, str, str], RequestId], str] = {}  # server requests, oldest first
        self._ended: dict[tuple[str, str, str], float] = {}  # by context: until when its id would still open

    def __len__(self) -> int:
        """Sessions that have a request in flight in this process."""
        return len(self._calls)

    # -- ids of sessions ----------------------------------------------------------------------------------------------

    def bind(
        self, upstream_id: str, client: str, upstream: str, revision: str | None, capabilities: Mapping[str, Any]
    ) -> Session:
        """Open a session under the id that an upstream gave in its answer to initialize (rule 3.4).

        Raises UpstreamProtocolError for an id that is not one.
        """
        if not is_session_id(upstream_id):
            raise UpstreamProtocolError("the upstream's session id has characters that no session id may have")
        declared: Mapping[str, Any] = capabilities
        if len(dumps(capabilities)) > MAX_CAPABILITIES:
            declared = {name[:32]: {} for name in list(capabilities)[:8]}
        text = dumps([upstream_id, revision, int(self._clock()), declared])
        id = self._ring.seal("session", (client, upstream), text)
        session = Session(id, upstream_id, client, upstream, revision, declared)
        self._ended.pop(session.context, None)
        return session

    def find(self, id: str, client: str, upstream: str) -> Session:
        """The caller's session; raises UnknownSession for any other, with nothing that tells the cases apart."""
        session, until = self._found.get((id, client, upstream)) or self._open(id, client, upstream)
        if self._clock() > until or session.context in self._ended:
            raise _unknown()
        return session

    def _open(self, id: str, client: str, upstream: str) -> tuple[Session, float]:
        """A session by its seal, and until when its id is good; only what this gateway sealed is remembered."""
        try:
            upstream_id, revision, opened, capabilities = orjson.loads(
                self._ring.open("session", (client, upstream), id)
            )
        except SealBroken as error:
            raise _unknown() from error
        found = Session(id, upstream_id, client, upstream, revision, capabilities), opened + self._lifetime
        if len(self._found) >= MAX_FOUND:
            del self._found[next(iter(self._found))]
        self._found[id, client, upstream] = found
        return found

    def forget(self, session: Session) -> None:
        """End a session here: its DELETE succeeded, or its upstream does not know it any more (rules 3.7, 3.8).

        Other copies of the gateway learn it from the upstream's 404.
        """
        self._calls.pop(session.context, None)
        now = self._clock()
        self._ended[session.context] = now + self._lifetime
        while len(self._ended) > self._capacity or next(iter(self._ended.values())) < now:
            del self._ended[next(iter(self._ended))]

    # -- what belongs to a session ------------------------------------------------------------------------------------

    def seal_event_id(self, session: Session, id: bytes, call: Call | None) -> bytes | None:
        """The client's form of an event id: signed, with the request whose stream it is on.  None where that would be
        too long to be sent back: an upstream's id, or the client's own request id, has no bound of its own."""
        about = None if call is None else [call.id, call.method, call.name]
        packed = base64.urlsafe_b64encode(orjson.dumps([id.decode("latin-1"), about])).rstrip(b"=")
        if len(packed) > MAX_EVENT_ID:
            return None
        return self._ring.sign("event", session.context, packed.decode()).encode()

    def open_event_id(self, session: Session, id: str) -> tuple[str, Call | None]:
        """The upstream's event id, and the request whose stream is resumed; raises BadRequest for an id that was not
        given out on this session (rule 5.6: a foreign one never reaches the upstream)."""
        try:
            packed = self._ring.verify("event", session.context, id)
        except SealBroken as error:
            raise BadRequest("this event id was not given out on this session", reason="unknown-event-id") from error
        raw, about = orjson.loads(base64.urlsafe_b64decode(packed + "=" * (-len(packed) % 4)))
        return raw, None if about is None else Call(*about)

    def sign_request_id(self, session: Session, id: RequestId, method: str) -> str:
        """The client's form of the id of a server's request; its response brings it back (rule 4.1)."""
        packed = base64.urlsafe_b64encode(orjson.dumps([id, method])).rstrip(b"=").decode()
        signed = _SIGNED + self._ring.sign("request", session.context, packed)
        if isinstance(id, str) and len(id) > MAX_REMEMBERED_ID:
            return signed
        if len(self._asked) >= self._capacity:
            del self._asked[next(iter(self._asked))]
        self._asked[session.context, id] = signed
        return signed

    def signed_request_id(self, session: Session, id: object) -> str | None:
        """The client's form of the id of a server's request that went out before; None for one not known here."""
        return self._asked.get((session.context, id)) if is_request_id(id) else None  # type: ignore[arg-type]

    def read_request_id(self, session: Session, id: RequestId | None) -> Call:
        """The server's request that a client's response answers; raises BadRequest for one that nobody asked."""
        try:
            if not isinstance(id, str) or not id.startswith(_SIGNED):
                raise SealBroken("not ours")
            packed = self._ring.verify("request", session.context, id[len(_SIGNED) :])
        except SealBroken as error:
            raise not_asked() from error
        original, method = orjson.loads(base64.urlsafe_b64decode(packed + "=" * (-len(packed) % 4)))
        return Call(original, method)

    # -- requests in flight -------------------------------------------------------------------------------------------

    def open_call(self, session: Session, call: Call) -> None:
        """Remember a request; raises BadRequest for an id that is known to be in flight already (rule 2.13)."""
        if isinstance(call.id, str) and len(call.id) > MAX_REMEMBERED_ID:
            return
        calls = self._calls.pop(session.context, None) or {}
        if len(self._calls) >= self._capacity:
            del self._calls[next(iter(self._calls))]
        self._calls[session.context] = calls
        if calls.get(call.id):
            raise BadRequest("this id belongs to a request that is still in flight", reason="id-in-use")
        if len(calls) >= MAX_OPEN:
            del calls[next(iter(calls))]
        calls[call.id] = True

    def close_call(self, session: Session, id: object) -> None:
        """Forget a request that has been answered, or never will be."""
        calls = self._calls.get(session.context)
        if calls is not None and is_request_id(id):
            calls.pop(id, None)  # type: ignore[call-overload]
            if not calls:
                del self._calls[session.context]

    def cancel_call(self, session: Session, id: object) -> None:
        """The client does not wait for this request's answer any more; it may use the id again."""
        calls = self._calls.get(session.context)
        if calls is not None and is_request_id(id) and id in calls:
            calls[id] = False

    def is_cancelled(self, session: Session, id: RequestId) -> bool:
        """Whether the client cancelled this request, as far as this process knows."""
        return self._calls.get(session.context, {}).get(id) is False


def _unknown() -> UnknownSession:
    return UnknownSession("unknown session: initialize a new one")


def not_asked() -> BadRequest:
    """The error for a client's response that answers nothing."""
    return BadRequest("this response answers no request of the server", reason="response-not-expected")
