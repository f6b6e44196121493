"""Sessions of the revisions up to 2025-11-25, bound to the caller that opened them.

A session id is not a credential (rule 3.13): every request is authenticated, and a session answers only to the client
and the upstream that it was opened for.  Anybody else sees what they would see for an id that never existed
(rule 3.7).

``bind`` and ``find`` are the seam between the id that the client holds and the id that the upstream gave.  Here they
are the same string, kept in the memory of this process.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from ..wire.envelope import RequestId
from .errors import BadRequest, UnknownSession, UpstreamProtocolError
from .headers import is_session_id
from .message import Call

__all__ = ["Session", "Sessions"]

# What one session may have open at once, in either direction; beyond it a peer is not using the protocol.
MAX_OPEN = 1024


class Session:
    """What must be remembered between the HTTP requests of one session.

    ``calls``           the client's requests that have no answer yet: their answers may come on a resumed stream
    ``progress_tokens`` of those requests, by id
    ``server_requests`` the server's requests that the client has not answered yet: id -> method
    ``capabilities``    what the client declared in initialize
    """

    __slots__ = (
        "calls", "capabilities", "client", "digest", "id", "last_used", "progress_tokens", "revision",
        "server_requests", "upstream", "upstream_id",
    )  # fmt: skip

    def __init__(self, id: str, upstream_id: str, client: str, upstream: str, now: float) -> None:
        self.id = id
        self.upstream_id = upstream_id
        self.client = client
        self.upstream = upstream
        self.digest = "sha256:" + hashlib.sha256(id.encode()).hexdigest()[:16]
        self.last_used = now
        self.revision: str | None = None
        self.capabilities: Mapping[str, Any] = {}
        self.calls: dict[RequestId, Call] = {}
        self.progress_tokens: dict[RequestId, RequestId] = {}
        self.server_requests: dict[RequestId, str] = {}

    def open_call(self, call: Call, progress_token: RequestId | None) -> None:
        """Remember a request; raises BadRequest for an id that is already in flight (rule 2.13)."""
        # 1 and True are equal as dict keys, but ids are strings and integers only; "1" and 1 differ.
        if call.id in self.calls:
            raise BadRequest("this id belongs to a request that is still in flight", reason="id-in-use")
        if len(self.calls) >= MAX_OPEN:
            # The oldest waits for a client that may resume its stream; nobody else needs the entry.
            self.close_call(next(iter(self.calls)))
        self.calls[call.id] = call
        if progress_token is not None:
            self.progress_tokens[call.id] = progress_token

    def close_call(self, id: RequestId) -> None:
        """Forget a request that has been answered, or never will be."""
        self.calls.pop(id, None)
        self.progress_tokens.pop(id, None)

    def open_server_request(self, id: RequestId, method: str) -> None:
        """Remember a request of the server, so that the client's answer to it can be told from an unasked one."""
        if len(self.server_requests) >= MAX_OPEN:
            self.server_requests.pop(next(iter(self.server_requests)))
        self.server_requests[id] = method

    def answer_server_request(self, id: RequestId | None) -> str | None:
        """The method of the server's request that a client's response answers, once; None if there is none."""
        return None if id is None else self.server_requests.pop(id, None)


class Sessions:
    """All live sessions of this process, least recently used first.

    ``capacity`` is ``limits.max_sessions``, ``idle`` is ``limits.session_idle_timeout`` in seconds.
    """

    def __init__(self, capacity: int, idle: float) -> None:
        self._capacity = capacity
        self._idle = idle
        self._live: dict[tuple[str, str], Session] = {}

    def __len__(self) -> int:
        return len(self._live)

    def bind(self, upstream_id: str, client: str, upstream: str, now: float) -> Session:
        """Open a session under the id that an upstream gave in its answer to initialize (rule 3.4).

        Raises UpstreamProtocolError for an id that is not one, or that another caller's session has.
        """
        if not is_session_id(upstream_id):
            raise UpstreamProtocolError("the upstream's session id has characters that no session id may have")
        key = (upstream, upstream_id)
        known = self._live.get(key)
        if known is not None and now - known.last_used <= self._idle:
            raise UpstreamProtocolError("the upstream gave out a session id that is already in use")
        self._live.pop(key, None)
        self._expire(now)
        session = self._live[key] = Session(upstream_id, upstream_id, client, upstream, now)
        return session

    def find(self, id: str, client: str, upstream: str, now: float) -> Session:
        """The caller's session; raises UnknownSession for any other, with nothing that tells the cases apart."""
        key = (upstream, id)
        session = self._live.get(key)
        if session is None or session.client != client:
            raise UnknownSession("unknown session: initialize a new one")
        del self._live[key]
        if now - session.last_used > self._idle:
            raise UnknownSession("unknown session: initialize a new one")
        session.last_used = now
        self._live[key] = session
        return session

    def forget(self, session: Session) -> None:
        """End a session: its DELETE succeeded, or its upstream does not know it any more (rules 3.7, 3.8)."""
        self._live.pop((session.upstream, session.upstream_id), None)

    def _expire(self, now: float) -> None:
        for key, session in list(self._live.items()):
            if now - session.last_used <= self._idle and len(self._live) < self._capacity:
                break
            del self._live[key]
