"""The client's half of a POST: its message, or batch of messages, read, judged, and made ready to go upstream.

Sans-IO, see ``exchange``.  A batch (revision 2025-03-26 only, rules 2.5-2.8) is judged message by message: requests
that are refused get their errors beside the answers of the others, refused notifications are left out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from ..guard.chain import Outcome
from ..guard.hook import Verdict
from ..identity.tokens import names_credential
from ..protocol import headers as fields_of
from ..protocol import modern
from ..protocol.errors import (
    AudienceError,
    BadRequest,
    HeaderMismatch,
    InvalidParams,
    MethodNotFound,
    Refusal,
    RequestTooLarge,
    from_client,
)
from ..protocol.headers import VERSION
from ..protocol.message import Call, Message, Sender
from ..protocol.methods import METHODS, exists, method_known
from ..protocol.revisions import LEGACY
from ..protocol.sessions import not_asked
from ..wire.envelope import Kind, RequestId, classify, is_request_id
from ..wire.errors import PeerError
from ..wire.incremental import Mark, Reader
from ..wire.names import fold
from ..wire.strict import Twins, dumps, parse
from .answer import AnsweredExchange
from .exchange import JSON, Forward, Reply
from .gate import Head
from .site import Site

__all__ = ["Intake"]


def _bare(member: str) -> str:
    return fold(member.replace("_", "").replace("-", ""))


# Members of params that something here decides by, and how the loosest servers would spell them: Go's parser knows no
# case, and SDKs in Python take names with underscores as well.
_MEMBERS: Final = frozenset((
    "_meta", "argument", "arguments", "capabilities", "cursor", "inputResponses", "name", "notifications",
    "protocolVersion", "ref", "requestId", "requestState", "task", "taskId", "uri",
))  # fmt: skip
_BARE = frozenset(map(_bare, _MEMBERS))


_REQUEST: Final = Kind.REQUEST
_NOTIFICATION: Final = Kind.NOTIFICATION


class Intake(AnsweredExchange):
    """Takes in what a client POSTs."""

    _reader: Reader | None = None
    _judged_early = False
    _is_batch = False
    # Of a batch: the messages that are not judged yet, last first, and those that may go upstream.
    _waiting: list[Message]
    _passed: list[Message]
    # Goes on with a batch when a hook that was asked about one of its messages has answered.
    _next: Callable[[], Any] | None = None

    def __init__(self, site: Site, head: Head, request: str, now: float) -> None:
        super().__init__(site, head, request, now)
        # The client's requests that have no answer yet: one, or those of a batch.
        self.calls: dict[RequestId, Call] = {}
        # The client's body; later the upstream's, where that is needed whole.
        self._body = bytearray()
        self._tokens: list[RequestId] = []
        self._refused: list[dict[str, Any]] = []
        self._opened: list[RequestId] = []

    # -- the client's message -----------------------------------------------------------------------------------------

    def feed(self, chunk: bytes) -> None:
        """Bytes of the body; raises as soon as they are too many, not JSON, or their envelope is refused."""
        assert self.admission is not None
        self.bytes_in += len(chunk)
        self._body += chunk
        if self.bytes_in > self.admission.max_body:
            raise RequestTooLarge(
                f"the request is larger than {self.admission.max_body} bytes", key=self.admission.max_body_key
            )
        try:
            if self._reader is not None:
                self._reader.feed(chunk)
            elif self.bytes_in > self.site.inline_message:
                self._reader = Reader(self.site.json_limits, Twins.ANY, max_size=self.admission.max_body)
                self._reader.feed(bytes(self._body))
            else:
                return
        except PeerError as error:
            raise from_client(error) from error
        if not self._judged_early:
            self._judge_early(self._reader)

    def _judge_early(self, reader: Reader) -> None:
        """Refuse a large request as soon as its envelope is known; what passes is judged again at the end."""
        method = reader.method
        if not isinstance(method, str) or method == "completion/complete":
            return  # what a completion is about is no string of its own
        member = METHODS[method].name if method in METHODS else None
        name = {"name": reader.name, "uri": reader.uri}.get(member or "")
        if name is Mark.UNKNOWN:
            return
        if isinstance(name, Mark) and name is not Mark.ABSENT:
            raise BadRequest(f"{method} needs a string params.{member}", reason="name-type")
        self._judged_early = True
        self._method = method
        document: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
        known = METHODS.get(method)
        if is_request_id(reader.id):
            document["id"] = reader.id
        elif reader.id is not Mark.UNKNOWN or known is None or known.kind is Kind.REQUEST:
            document["id"] = 0  # it may come last
        if isinstance(name, str) and member is not None:
            document["params"] = {member: name}
        message = Message(classify(document), document, Sender.CLIENT)
        refusal = self.site.chains[self.upstream].judge_envelope(message, self.context)
        if refusal is not None:
            raise refusal

    def _early_id(self) -> RequestId | None:
        """The id, if the bytes that have come show one: a client that gets an answer without it waits for ever."""
        if self._reader is None and self._body:
            self._read_on(bytes(self._body))
        reader = self._reader
        # Not of a response: its id is the server's, and would be taken for one of the client's own.
        if reader is not None and isinstance(reader.method, str):
            self._method = self._method or reader.method
            if is_request_id(reader.id):
                return reader.id  # type: ignore[return-value]
        return None

    def look_for_id(self, chunk: bytes) -> bool:
        """Bytes of a body that is refused already: True while it is worth reading on for the request's id."""
        self.bytes_in += len(chunk)
        self._read_on(chunk)
        return self.bytes_in < self.site.inline_message and self._early_id() is None

    def _read_on(self, chunk: bytes) -> None:
        if self._reader is None:
            self._reader = Reader(self.site.json_limits, Twins.ANY)
        # What came before an error is known all the same.
        with contextlib.suppress(PeerError):
            self._reader.feed(chunk)

    def complete(self, now: float) -> Forward | Reply | None:
        """The body is all there: judge it.  None while a hook is being asked; a Reply where nothing is left to send;
        raises GatewayError for a refusal."""
        body = bytes(self._body)
        try:
            document = parse(body, self.site.json_limits, twins=Twins.ANY)
            if type(document) is list:
                return self._complete_batch(document, now)
            envelope = classify(document)
        except PeerError as error:
            raise from_client(error) from error
        self._body.clear()
        self._reader = None
        message = Message(envelope, document, Sender.CLIENT)
        self._method = envelope.method
        if message.kind is _REQUEST:
            self.call = self._call(message)
        self._check_message(message)
        message = self._find_revision(message)
        self._check_rate(message, now)
        if message.is_response:
            message = self._client_response(message)
            self._method = message.method
        self.context.call = self.call
        self._check_upstream()
        self._check_method(message, now)
        if self._is_obsolete(message):
            self._accept(message)
            self.outcome, self._status = "accepted", 202
            return Reply(202)
        outcome = self._ask(message)
        if outcome is None:
            self._then = partial(self._judged, message)
            return None
        return self._judged(message, outcome)

    # -- checks -------------------------------------------------------------------------------------------------------

    def _check_message(self, message: Message) -> None:
        params = message.params
        for member in params:
            if member not in _MEMBERS:
                self._check_others(message)
                break
        meta = params.get("_meta")
        if meta is None:
            return
        if not isinstance(meta, dict):
            raise BadRequest("params._meta must be an object", reason="meta-type")
        if names_credential(meta):
            raise _token_in_body()
        token = meta.get("progressToken")
        if token is None:
            return
        if not is_request_id(token):
            raise BadRequest("params._meta.progressToken must be a string or an integer", reason="progress-token-type")
        if message.kind is Kind.REQUEST:
            self._tokens.append(token)

    def _check_others(self, message: Message) -> None:
        """Members of params that nothing here decides by."""
        if message.method in METHODS and not message.is_response:
            for member in message.params:
                if member not in _MEMBERS and _bare(member) in _BARE:
                    raise BadRequest("params has a member in a spelling of its own", reason="folded-member")
        if names_credential(message.params):
            raise _token_in_body()

    def _call(self, message: Message) -> Call:
        assert message.id is not None and message.method is not None
        call = Call(message.id, message.method, _name_of(message.method, message.params))
        self.calls[call.id] = call
        return call

    def _find_revision(self, message: Message) -> Message:
        """The era is decided once (rules 6.24, 6.25), and header and body must agree on it."""
        params = message.params
        mcp = self.head.mcp
        if not modern.speaks_modern(mcp, params):
            if message.method == "initialize":
                return self._find_initial_revision(message)
            self._find_session()
            return message
        if message.kind is _REQUEST:
            assert message.method is not None
            known = modern.check_request(mcp, message.method, params, self.supported)
            self.context.client_capabilities = params["_meta"][modern.CAPABILITIES_MEMBER]
        else:
            version, named = mcp.version, mcp.revision
            if version is None:
                raise HeaderMismatch(f"header {VERSION} must be present")
            if named is None or version not in self.supported:
                raise modern.unsupported(version, self.supported)
            if not named.stateless:
                raise HeaderMismatch(f"header {VERSION} and params._meta name different revisions")
            if message.is_response:
                raise BadRequest("this revision has no responses from clients", reason="response-not-expected")
            known = named
        self.revision = known
        self.context.revision = known.name
        return message

    def _find_initial_revision(self, message: Message) -> Message:
        """What initialize may ask for: lowered to what is served here, never raised (rule 3.2)."""
        assert self.admission is not None
        # A session cannot be opened inside another one; the id that came along is not passed on (rule 3.9).
        params = message.params
        self.context.client_capabilities = _object(params.get("capabilities"))
        self.bound = self.admission.bound
        asked = params.get("protocolVersion")
        if not isinstance(asked, str):
            raise InvalidParams("initialize needs a string params.protocolVersion")
        served = [each for each in self.supported if each in LEGACY]
        if not served or asked < served[0]:
            raise modern.unsupported(asked, self.supported)
        if asked in served or len(served) == len(LEGACY):
            return message
        lowered = {**message.document, "params": {**params, "protocolVersion": served[-1]}}
        return message.with_document(lowered)

    def _check_method(self, message: Message, now: float) -> None:
        """What the revision and earlier answers say of a request, before the policy is asked."""
        if message.kind is not _REQUEST or message.method is None:
            return
        assert self.client is not None
        if not method_known(self.revision, message.method):
            raise MethodNotFound("this revision has no such method", reason="method-not-found")  # rule 6.22
        if message.method == "tools/call" and self.revision is not None and self.revision.mirrored:
            name = message.params.get("name")
            if isinstance(name, str):
                headers = self.site.tool_headers[self.upstream]
                headers.check(self.head.fields, name, message.params.get("arguments"))  # rule 6.15
        self.site.tasks.check_request(
            self.client, self.upstream, message.method, message.params, now, revision=self.revision
        )

    def _is_obsolete(self, message: Message) -> bool:
        """A notification that the stateless revision took out: accepted, and not passed on (rules 2.10, 7.5)."""
        known = self.revision
        if message.kind is not _NOTIFICATION or known is None or not known.stateless or message.method is None:
            return False
        # A client cancels by closing its stream; an id that it names could be another client's at a shared upstream.
        if message.method == "notifications/cancelled":
            return True
        return message.method in METHODS and not exists(message.method, known)

    def _check_rate(self, message: Message, now: float) -> None:
        assert self.admission is not None
        if self.admission.limits_tools and message.method == "tools/call":
            name = message.params.get("name")
            if isinstance(name, str):
                self.site.limiter.admit_tool(self.admission.client, self.admission.policy_name, name, now)

    def _client_response(self, message: Message) -> Message:
        """A client's response with the id that the server gave its request; raises BadRequest for one that nobody
        asked for."""
        if self.bound is None:
            raise not_asked()
        asked = self.site.sessions.read_request_id(self.bound, message.id)
        document = {**message.document, "id": asked.id}
        return Message(classify(document), document, Sender.CLIENT, asked)

    # -- what goes upstream -------------------------------------------------------------------------------------------

    def _judged(self, message: Message, outcome: Outcome) -> Forward:
        if outcome.error is not None:
            raise outcome.error
        passed = outcome.message
        if passed is None:
            raise Refusal(outcome.reason or "the message was withheld", reason="dropped")
        if self.call is not None and outcome.changed:
            # A hook may have written the name anew: a resource URI in its normal form.
            self.call = self.context.call = self._call(passed)
        fields = self._base_fields()
        if self.revision is not None and self.revision.mirrored:
            tool = self.call.name if self.call is not None and self.call.method == "tools/call" else None
            headers = self.site.tool_headers[self.upstream]
            if tool is not None and headers.mirrors(tool):
                fields.update(headers.emit(self.head.fields, tool, passed.params.get("arguments")))
            elif self.head.mcp.has_params:
                fields.update(fields_of.param_fields(self.head.fields))
            if self.call is not None:
                fields.update(fields_of.mirrored_fields(self.call.method, passed.params))
        self._params = passed.params
        document = self._unsealed(passed)
        return self._forward(fields, [passed], dumps(document))

    def _unsealed(self, message: Message) -> dict[str, Any]:
        """A request with what the upstream gave the client to bring back, as the upstream gave it (rule 7.14)."""
        sealed = message.params.get("requestState")
        if sealed is None or self.call is None or self.revision is None or not self.revision.stateless:
            return message.document
        assert self.admission is not None
        state = self.site.states.open(sealed, self.admission.client, self.upstream, self.call, message.params)
        return {**message.document, "params": {**message.params, "requestState": state}}

    def _forward(self, fields: dict[str, str], messages: list[Message], body: bytes) -> Forward:
        """Take a place for each request, write the record, and only then let it go."""
        for _ in self.calls:
            self._enter("stream" if self.is_listening else "call")
        session = self.session
        if session is not None:
            for call in self.calls.values():
                self.site.sessions.open_call(session, call)
                self._opened.append(call.id)
        for message in messages:
            self._accept(message)
            if session is not None and message.method == "notifications/cancelled":
                self.site.sessions.cancel_call(session, message.params.get("requestId"))
        return Forward("POST", fields, body)

    # -- batches ------------------------------------------------------------------------------------------------------

    def _complete_batch(self, batch: list[Any], now: float) -> Forward | Reply | None:
        assert self.admission is not None
        if self.head.mcp.session is not None:
            self._find_session()
        if self.session is None or self.revision is None or not self.revision.batches:
            classify(batch)  # raises: elsewhere a batch is no message (rule 2.8)
        most = self.site.config.limits.max_batch
        if len(batch) > most:
            raise BadRequest(f"a batch of more than {most} messages", reason="batch-too-large", key="limits.max_batch")
        messages = [Message(classify(each), each, Sender.CLIENT) for each in batch]
        if not messages or len({each.is_response for each in messages}) > 1:
            raise BadRequest("a batch holds requests and notifications, or responses", reason="batch")  # rule 2.5
        self._body.clear()
        self._reader = None
        self._is_batch = True
        self._method = "batch"
        for message in messages:
            if message.kind is Kind.REQUEST:
                if message.id in self.calls:
                    raise BadRequest("two requests of this batch have the same id", reason="id-in-use")
                self._call(message)
        self._check_upstream()
        for position, message in enumerate(messages):
            self._check_message(message)
            if message.method == "initialize":
                raise BadRequest("initialize must not be part of a batch", reason="batch")  # rule 2.7
            if position:
                # The first was charged with the HTTP request.
                self.site.limiter.admit(self.admission.client, self.admission.policy_name, self.upstream, now)
            self._check_rate(message, now)
            self._check_method(message, now)
        self._waiting = [self._client_response(each) if each.is_response else each for each in messages]
        self._waiting.reverse()
        self._passed = []
        return self._judge_next()

    def _judge_next(self) -> Forward | Reply | None:
        self._next = self._judge_next
        while self._waiting:
            message = self._waiting.pop()
            self.context.call = (
                self.calls.get(message.id) if message.kind is Kind.REQUEST and message.id is not None else None
            )
            self._judge(message, partial(self._sort_out, message))
            if self.pending is not None:
                return None
        self._next = None
        return self._forward_batch()

    def resume(self, verdict: Verdict | BaseException) -> Any:
        """As for Exchange."""
        result = super().resume(verdict)
        return result if self.pending is not None or self._next is None else self._next()

    def _sort_out(self, message: Message, outcome: Outcome) -> None:
        if outcome.message is not None:
            self._passed.append(outcome.message)
        else:
            self._note_blocked(message, outcome)
            if message.kind is Kind.REQUEST and message.id is not None:
                error = outcome.error or Refusal("the message was withheld", reason="dropped")
                self._refused.append(error.to_document(message.id, self.request))
                del self.calls[message.id]

    def _forward_batch(self) -> Forward | Reply:
        self.context.call = None
        if self._passed:
            body = dumps([each.document for each in self._passed])
            return self._forward(self._base_fields(), self._passed, body)
        self.done = True
        self.outcome = "refused"
        self._status = 200 if self._refused else 403
        return Reply(self._status, {"Content-Type": JSON}, dumps(self._refused) if self._refused else b"")


def _name_of(method: str, params: dict[str, Any]) -> str | None:
    known = METHODS.get(method)
    name = params.get(known.name) if known is not None and known.name is not None else None
    return name if isinstance(name, str) else None


def _token_in_body() -> AudienceError:
    return AudienceError("credentials travel in the Authorization header only", reason="token-in-body")


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
