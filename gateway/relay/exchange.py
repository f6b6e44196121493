"""One exchange: a client's HTTP request and everything that answers it, as a sans-IO object.

The shell (``endpoint``) feeds bytes in and does what comes out.  No socket, no clock, no ``await`` here; time is an
argument, in monotonic seconds.

The life of a POST, as the shell drives it::

    admit(client) -> feed(chunk)* -> complete() -> Forward, or a Reply where nothing is left to send
    answer_head(status, fields) -> STREAM        Server-Sent Events: receive(chunk)* -> bytes for the client, then end()
                                -> COLLECT       one JSON document: collect(chunk)*, then finish() -> Reply
                                -> Reply         all is said already (202)
    refuse(error) -> Reply                       a GatewayError of any of these, before the client got a byte
    fail(error), drain() -> bytes                the upstream broke, or the gateway stops, in the middle of a stream
    close(outcome)                               always, last: the audit record and the metrics

A hook that has to ask somebody makes ``pending`` not None: the shell awaits its verdict and calls ``resume``.  Until
then nothing else of this exchange moves.

**Exactly one answer.**  ``done`` is set where an answer is let out.  Whatever comes after it is dropped, and whatever
ends without it gets an error with the client's own id - except where the protocol says that the client resumes (rule
4.4) or listens again (rule 7.9).
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, Final, Literal

from ..guard.chain import Outcome, Pending
from ..guard.hook import Exchange as Context
from ..guard.hook import Finding, Verdict
from ..protocol import modern
from ..protocol.errors import (
    BadRequest,
    GatewayError,
    MethodNotFound,
    PolicyDenied,
    RateLimited,
    Refusal,
    UpstreamError,
)
from ..protocol.headers import SESSION_ID, VERSION
from ..protocol.message import Call, Message
from ..protocol.methods import METHODS
from ..protocol.revisions import ASSUMED, SUPPORTED, Revision, revision
from ..protocol.sessions import Session
from ..record import line
from ..record.entry import MAX_FINDINGS, Event, audit_name, describe_arguments, entry
from ..wire.envelope import Kind, RequestId
from ..wire.strict import dumps
from .gate import Admission, Head, Passed
from .site import Site

__all__ = ["EVENT_STREAM", "JSON", "Answer", "Exchange", "Forward", "Reply", "same_id"]

JSON: Final = "application/json"
EVENT_STREAM: Final = "text/event-stream"


class Answer(enum.Enum):
    """What the shell does with the upstream's answer."""

    STREAM = "stream"
    COLLECT = "collect"


class Forward:
    """What goes upstream: the message as it was judged, written anew."""

    # One of these and one Reply are made for each exchange: no dataclasses, whose making is not compiled.
    __slots__ = ("body", "fields", "method")

    def __init__(self, method: str, fields: dict[str, str], body: bytes | None = None) -> None:
        self.method = method
        self.fields = fields
        self.body = body


class Reply:
    """A complete HTTP answer for the client."""

    __slots__ = ("body", "close_connection", "fields", "status")

    def __init__(
        self,
        status: int,
        fields: dict[str, str] | None = None,
        body: bytes = b"",
        close_connection: bool = False,
    ) -> None:
        self.status = status
        self.fields: dict[str, str] = {} if fields is None else fields
        self.body = body
        self.close_connection = close_connection


class Exchange:
    """What POST, GET and DELETE have in common: who, where, the hooks, the record."""

    # What most exchanges never set stands here once, not in each of them.
    upstream = ""
    client: str | None = None
    admission: Admission | None = None
    context: Context
    # The session that the request names; ``bound`` is what ids are bound to: it, or in a revision that has sessions the
    # caller without one.
    session: Session | None = None
    bound: Session | None = None
    revision: Revision | None = None
    call: Call | None = None
    pending: Pending | None = None
    accepted = False
    closed = False
    # Nothing more of the upstream's may reach the client.
    done = False
    bytes_in = 0
    bytes_out = 0
    first_byte: float | None = None
    outcome: str | None = None
    error: GatewayError | None = None
    _method: str | None = None
    _status: int | None = None
    _then: Callable[[Outcome], Any] | None = None
    _more_findings = 0
    # The places for calls or streams that are to be given back.
    _calls_entered = 0
    _streams_entered = 0

    def __init__(self, site: Site, head: Head, request: str, now: float) -> None:
        self.site = site
        self.head = head
        self.request = request
        self.started = now
        self._findings: list[Finding] = []

    # -- admission ----------------------------------------------------------------------------------------------------

    def admit(self, client: str, now: float) -> None:
        """Take on an identified client; raises what the gate raises."""
        self.client = client
        self._admitted(self.site.gate.admit(self.head, client, self.upstream, now), now)

    def admit_again(self, passed: Passed, now: float) -> None:
        """Take on a client whose head has passed before; raises RateLimited."""
        admission = passed.admission
        self.head.same_as(passed.mcp)
        self.client = admission.client
        self.upstream = admission.upstream
        self.site.gate.charge(admission, now)
        self._admitted(admission, now)

    def _admitted(self, admission: Admission, now: float) -> None:
        self.admission = admission
        self.context = Context(
            request=self.request,
            client=admission.client,
            upstream=admission.upstream,
            policy_name=admission.policy_name,
            policy=admission.policy,
            now=now,
        )

    @property
    def supported(self) -> tuple[str, ...]:
        """The revisions that this client may speak with this upstream."""
        assert self.admission is not None
        return self.admission.supported

    def _find_session(self) -> None:
        """The session that the request names, if it is the caller's (rules 3.7, 3.10, 3.13), and its revision."""
        admission, mcp = self.admission, self.head.mcp
        assert admission is not None
        version, named = mcp.version, mcp.revision
        if version is not None and named is None:
            raise modern.unsupported(version, admission.supported)
        if mcp.session is not None:
            session = self.site.sessions.find(mcp.session, admission.client, self.upstream)
            self.session = session
            self.context.client_capabilities = session.capabilities
            if version is not None and session.revision is not None and version != session.revision:
                raise BadRequest(
                    f"header {VERSION} is not the revision that this session negotiated", reason="revision-changed"
                )
            named = revision(session.revision) or named
        self.bound = self.session or admission.bound
        self.revision = named
        self.context.revision = named.name if named is not None else None
        spoken = (named or ASSUMED).name
        if spoken not in admission.supported and len(admission.supported) < len(SUPPORTED):
            raise modern.unsupported(spoken, admission.supported)

    def _base_fields(self) -> dict[str, str]:
        """Fields that every request upstream of this exchange carries beside the configured ones."""
        fields: dict[str, str] = {}
        version = self.head.mcp.version
        if version is not None:
            fields[VERSION] = version
        if self.session is not None:
            fields[SESSION_ID] = self.session.upstream_id
        return fields

    def _check_upstream(self) -> None:
        assert self.admission is not None
        if not self.admission.is_allowed:
            raise PolicyDenied(
                f"policy {self.admission.policy_name!r} does not allow upstream {self.upstream!r}",
                reason="upstream-not-allowed",
                key=f"policies.{self.admission.policy_name}.allowed_upstreams",
            )

    def _enter(self, kind: Literal["call", "stream"]) -> None:
        """Take one of the client's places for calls or streams; raises TooManyConcurrent.  ``close`` gives it back."""
        assert self.admission is not None
        concurrency, client, policy = self.site.concurrency, self.admission.client, self.admission.policy_name
        if kind == "call":
            concurrency.enter_call(client, policy)
            self._calls_entered += 1
        else:
            concurrency.enter_stream(client, policy)
            self._streams_entered += 1

    # -- hooks --------------------------------------------------------------------------------------------------------

    def _judge(self, message: Message, then: Callable[[Outcome], Any]) -> Any:
        """Run the hooks, then ``then(outcome)``; where a hook has to ask, remember ``then`` and return None."""
        outcome = self._ask(message)
        if outcome is None:
            self._then = then
            return None
        return then(outcome)

    def _ask(self, message: Message) -> Outcome | None:
        """Run the hooks: what they decided, or None where one has to ask.  ``_then`` is to be set then."""
        outcome = self.site.chains[self.upstream].judge(message, self.context)
        if isinstance(outcome, Pending):
            self.pending = outcome
            return None
        self._note(outcome)
        return outcome

    def _settle(self, outcome: Outcome, then: Callable[[Outcome], Any]) -> Any:
        self._note(outcome)
        return then(outcome)

    def _note(self, outcome: Outcome) -> None:
        """Count what the hooks decided and found."""
        if self.context.findings:
            self._keep_findings()
        if outcome.decision != "pass":
            self.site.metrics.decision(self.client, self.upstream, outcome.hook, outcome.decision)

    def _keep_findings(self) -> None:
        """Count what hooks noted, and keep what a record has room for: a stream may bring findings without end."""
        found, self.context.findings = self.context.findings, []
        for finding in found:
            self.site.metrics.finding(finding)
        room = MAX_FINDINGS - len(self._findings)
        self._findings += found[:room]
        self._more_findings += max(0, len(found) - room)

    def resume(self, verdict: Verdict | BaseException) -> Any:
        """Go on with the verdict that ``pending`` was waiting for; an exception (a timeout too) is a Block.

        Returns what the interrupted call would have returned.
        """
        pending, then = self.pending, self._then
        assert pending is not None and then is not None
        outcome = pending.fail(verdict) if isinstance(verdict, BaseException) else pending.resume(verdict)
        if isinstance(outcome, Pending):
            self.pending = outcome
            return None
        self.pending = self._then = None
        return self._settle(outcome, then)

    # -- the record ---------------------------------------------------------------------------------------------------

    def _entry(self, event: Event, **more: Any) -> dict[str, object]:
        return entry(
            event,
            request=self.request,
            client=self.client,
            session=None if self.session is None else self.session.digest,
            upstream=self.upstream or None,
            revision=None if self.revision is None else self.revision.name,
            http=self.head.method if self._method is None else None,
            method=None if self._method is None else audit_name(self._method, self._method in METHODS),
            name=None if self.call is None or self.call.name is None else audit_name(self.call.name, self.accepted),
            remote=self.head.remote,
            **more,
        )

    def _accept(self, message: Message | None = None) -> None:
        """The record before the effect: raises AuditUnavailable, and then nothing has been sent."""
        about = text = None
        if message is not None and message.kind is Kind.REQUEST and message.method == self._method:
            about = self._about()
            if about is not None:
                text = line.accepted(self.request, about, message.params.get("arguments", {}))
        if text is not None:
            self.site.audit.write(text)
        else:
            self._accept_unusual(message)
        if not self.accepted:
            self.accepted = True
            self.site.metrics.call_started(self.upstream)

    def _about(self) -> line.About | None:
        return line.describe(
            self.client,
            None if self.session is None else self.session.digest,
            self.upstream,
            None if self.revision is None else self.revision.name,
            self._method,
            None if self.call is None else self.call.name,
            self.head.remote,
            self.accepted,
        )

    def _accept_unusual(self, message: Message | None) -> None:
        arguments = None
        if message is not None and message.kind is Kind.REQUEST:
            arguments = describe_arguments(message.params.get("arguments", {}))
        named = {}
        if message is not None and message.method is not None and message.method != self._method:
            named = {"method": audit_name(message.method, message.method in METHODS)}  # one of a batch
        self.site.audit.write({**self._entry("request.accepted", decision="allow", arguments=arguments), **named})

    def refuse(self, error: GatewayError) -> Reply:
        """The HTTP answer for an error, before anything has been sent to the client."""
        self.error = error
        id = self.call.id if self.call is not None else self._early_id()
        self.done = True
        status = error.status
        fields = {"Content-Type": JSON, **error.headers}
        if isinstance(error, Refusal) and self.admission is not None:
            if isinstance(error, MethodNotFound) and self.revision is not None and self.revision.stateless:
                status = 404  # rule 6.22
            elif id is None:
                status = 403  # a notification, a response or a GET cannot be answered in JSON-RPC (rules 2.9, 10.5)
            else:
                status = self.admission.policy.deny_status
        self._status = status
        return Reply(status, fields, dumps(self._error_document(error, id)), error.close_connection)

    def _error_document(self, error: GatewayError, id: RequestId | None) -> Any:
        return error.to_document(id, self.request)

    def _early_id(self) -> RequestId | None:
        return None

    def close(self, now: float, outcome: str | None = None) -> None:
        """Write what became of the exchange.  Called once, whatever happened; later calls do nothing.

        ``outcome`` is what the shell saw ("client-gone", "draining"); it counts only where nothing else is known.
        """
        if self.closed:
            return
        self.closed = True
        if self.client is not None:
            for _ in range(self._calls_entered):
                self.site.concurrency.leave_call(self.client)
            for _ in range(self._streams_entered):
                self.site.concurrency.leave_stream(self.client)
        if self.outcome == "preflight" and self.error is None:
            return
        site = self.site
        error = self.error
        outcome = self.outcome or (None if error is None else error.reason) or outcome or "unanswered"
        if self.admission is not None and self.context.findings:
            self._keep_findings()
        first = None if self.first_byte is None else self.first_byte - self.started
        total = now - self.started
        if error is not None:
            site.metrics.refusal(error.reason)
            if isinstance(error, RateLimited):
                site.metrics.rate_limited(self.client)
            elif isinstance(error, UpstreamError):
                site.metrics.upstream_error(self.upstream, error.reason)
        if self.accepted:
            # The metric has one outcome for each kind of error, the record says which it was.
            kind = type(error).reason if error is not None and outcome == error.reason else outcome
            site.metrics.call_finished(self.client, self.upstream, self._method, kind, first, total)
        site.metrics.bytes_relayed(self.upstream, self.bytes_in, self.bytes_out)
        if error is None and self.accepted and not self._findings and first is not None and self._status is not None:
            about = self._about() if self._method is not None else None
            if about is not None:
                size_in, size_out = self.bytes_in, self.bytes_out
                text = line.finished(self.request, about, outcome, self._status, size_in, size_out, first, total)
                site.audit.write(text, required=False)
                return
        record = self._entry(
            "request.finished" if self.accepted else "request.refused",
            decision=None if self.accepted else "deny",
            outcome=outcome,
            rule=None if error is None else error.reason,
            key=None if error is None else error.key,
            code=None if error is None else error.code,
            status=self._status,
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
            first=first,
            last=total,
            findings=self._findings,
            more_findings=self._more_findings,
        )
        site.audit.write(record, required=False)


def same_id(one: object, other: object) -> bool:
    """Equal ids or tokens: ``1`` is not ``"1"``, and not ``True`` (rule 2.14)."""
    return type(one) is type(other) and one == other
