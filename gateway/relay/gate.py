"""What is decided on the head of an HTTP request, before a byte of its body is read. Sans-IO.

Order: target -> Host -> repeated fields -> Origin -> identity -> upstream -> media types -> rate limit.  The cheap and
the anonymous come first; nothing that a stranger may learn differs by client, policy or upstream.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import NamedTuple

from ..config import Config, Policy
from ..guard.limits import Limiter
from ..guard.policy import upstream_allowed
from ..identity.tokens import Tokens, reject_token_elsewhere
from ..protocol import headers as fields_of
from ..protocol.errors import (
    BadRequest,
    ForbiddenOrigin,
    HeaderTooLarge,
    MethodNotAllowed,
    MisdirectedRequest,
    NotFound,
    RequestTooLarge,
    UnsupportedMediaType,
)
from ..protocol.headers import Fields, McpFields
from ..protocol.revisions import LEGACY, between
from ..protocol.sessions import Session

__all__ = ["Admission", "Gate", "Head", "Passed"]

METHODS = ("POST", "GET", "DELETE", "OPTIONS")

# Fields that make a request unusual: it is looked at more closely.
_UNUSUAL = frozenset(("transfer-encoding", "upgrade"))

# Lists of field names that are remembered, and how long they may be in characters; peers choose them.
_MAX_SHAPES = 256
_MAX_SHAPE_CHARS = 2048


class Head:
    """The head of an HTTP request: ``target`` as it came, ``version`` (major, minor), ``remote`` the peer's address.

    ``mcp`` is what its fields say of MCP; it is read where it is asked for first.
    """

    # One is made for each request: no dataclass, whose making is not compiled.
    __slots__ = ("_mcp", "fields", "method", "remote", "target", "version")

    def __init__(
        self, method: str, target: str, version: tuple[int, int], fields: Fields, remote: str | None = None
    ) -> None:
        self.method = method
        self.target = target
        self.version = version
        self.fields = fields
        self.remote = remote
        self._mcp: McpFields | None = None

    @property
    def mcp(self) -> McpFields:
        if self._mcp is None:
            self._mcp = McpFields(self.fields)
        return self._mcp

    def same_as(self, mcp: McpFields) -> None:
        """The head is the same as one whose fields have been read."""
        self._mcp = mcp


@dataclass(frozen=True, slots=True)
class Admission:
    """Who may go on, and where to. ``max_body`` in bytes, ``max_body_key`` the configuration key that says so.

    ``supported``   the revisions that the client may speak with the upstream, oldest first
    ``is_allowed``  whether its policy allows the upstream at all, ``limits_tools`` whether it limits calls of tools
    ``bound``       what ids are bound to where a request has no session
    """

    client: str
    policy_name: str
    policy: Policy
    upstream: str
    max_body: int
    max_body_key: str
    supported: tuple[str, ...]
    is_allowed: bool
    limits_tools: bool
    bound: Session


@dataclass(frozen=True, slots=True)
class Passed:
    """That a head was admitted: one that is the same byte for byte is admitted too, ``until`` its token expires (POSIX
    seconds), for nothing else that is decided on it changes.  ``mcp`` is what its fields say of MCP."""

    admission: Admission
    until: float
    mcp: McpFields


class _Shape(NamedTuple):
    """What the names of header fields say, apart from their values: their size with what separates them, and whether
    each stands once and none of them is unusual."""

    size: int
    is_plain: bool


class Gate:
    """Judges heads by one immutable configuration."""

    def __init__(self, config: Config, limiter: Limiter) -> None:
        self._config = config
        self._limiter = limiter
        self._tokens = Tokens(config.clients, config.policies)
        self._hosts = config.accepted_hosts
        self._max_header_size = config.limits.max_header_size
        # One path for all HTTP methods (rules 1.1, 1.2).
        self._targets: dict[str, str] = {f"/{name}/mcp": name for name in config.upstreams}
        if config.default_upstream is not None:
            self._targets["/mcp"] = config.default_upstream
            self._targets["/sse"] = config.default_upstream
        # The HTTP+SSE transport; ``http_sse`` says what is at which of them.
        self._targets.update((f"/{name}/{end}", name) for name in config.upstreams for end in ("sse", "messages"))
        own = {f"{scheme}://{host}" for host in self._hosts for scheme in ("http", "https")}
        self._origins = frozenset(config.listen.allowed_origins) | own
        self._origins_of = {
            name: self._origins | frozenset(policy.allowed_origins) for name, policy in config.policies.items()
        }
        self._any_origins = frozenset().union(self._origins, *self._origins_of.values())
        self._shapes: dict[tuple[str, ...], _Shape] = {}
        self._admissions = {
            (client, upstream): self._admission(client, upstream)
            for client in config.clients
            for upstream in config.upstreams
        }

    def route(self, head: Head) -> str:
        """The upstream that a target names; raises for a target, Host or field that is not acceptable.

        The target is compared byte for byte: no decoding, no dot segments, no second slash (threats: ``/%6dcp``).
        """
        fields = head.fields
        if head.version not in ((1, 1), (1, 0)):
            raise BadRequest("HTTP/1.1 is spoken here", reason="http-version")
        names = tuple(fields)
        if len(names) != len(fields):
            names = tuple(name for name, _ in fields.items())  # iterating names each of them once
        shape = self._shapes.get(names) or self._shape(names)
        # Of a name that stands twice, multidict gives one or both, as its version has it.
        is_plain = shape.is_plain and len(names) == len(fields)
        if not is_plain:
            self._check_framing(head)
        path, query = head.target, ""
        if path not in self._targets:
            path, _, query = self._origin_form(path).partition("?")
        hosts = fields.getall("Host", ())
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            raise MisdirectedRequest("this Host is not served here", key="listen.hosts")
        upstream = self._targets.get(path)
        if upstream is None:
            raise NotFound("nothing is served at this path; endpoints are /{upstream}/mcp", key="upstreams")
        if query:
            reject_token_elsewhere(query)
        size = shape.size if is_plain else sum(len(name) + 4 for name, _ in fields.items())
        if size + sum(map(len, fields.values())) > self._max_header_size:
            raise HeaderTooLarge("the header fields are too large", key="limits.max_header_size")
        if not is_plain:
            fields_of.check_single(fields)
        return upstream

    def _shape(self, names: tuple[str, ...]) -> _Shape:
        lower = {name.lower() for name in names}
        chars = sum(map(len, names))
        shape = _Shape(chars + 4 * len(names), len(lower) == len(names) and _UNUSUAL.isdisjoint(lower))
        if chars <= _MAX_SHAPE_CHARS:
            if len(self._shapes) >= _MAX_SHAPES:
                self._shapes.clear()
            self._shapes[names] = shape
        return shape

    @staticmethod
    def _check_framing(head: Head) -> None:
        codings = head.fields.getall("Transfer-Encoding", ())
        if codings and ([each.lower() for each in codings] != ["chunked"] or head.version != (1, 1)):
            raise BadRequest("Transfer-Encoding must be chunked, once, in HTTP/1.1", reason="transfer-encoding")
        if head.fields.get("Upgrade") is not None:
            raise BadRequest("no other protocol is offered here: leave out Upgrade", reason="upgrade")

    def _origin_form(self, target: str) -> str:
        """Path and query of a target, also of one in absolute form, if it names this server (RFC 9112 3.2.2)."""
        if target.startswith("/"):
            return target
        scheme, separator, rest = target.partition("://")
        authority, slash, path = rest.partition("/")
        if separator and scheme.lower() in ("http", "https") and authority.lower() in self._hosts:
            return slash + path
        raise MisdirectedRequest("the request target names another server", key="listen.hosts")

    def preflight(self, head: Head) -> dict[str, str]:
        """Header fields of the answer to OPTIONS: a CORS preflight (Fetch standard), or just Allow."""
        self.route(head)
        origin = head.fields.get("Origin")
        if origin is None:
            return {"Allow": ", ".join(METHODS)}
        if origin not in self._any_origins:
            raise ForbiddenOrigin("this Origin is not allowed", key="listen.allowed_origins")
        wanted = head.fields.get("Access-Control-Request-Headers") or ""
        return {
            "Access-Control-Allow-Origin": origin,
            "Vary": "Origin",
            "Access-Control-Allow-Methods": "POST, GET, DELETE",
            "Access-Control-Allow-Headers": ", ".join(_cors_headers(wanted)),
            "Access-Control-Max-Age": "600",
        }

    def cors(self, origin: str | None) -> dict[str, str]:
        """Header fields that let a browser page of an allowed origin read an answer; empty without an Origin."""
        if origin is None or origin not in self._any_origins:
            return {}
        return {
            "Access-Control-Allow-Origin": origin,
            "Vary": "Origin",
            "Access-Control-Expose-Headers": "Mcp-Session-Id, WWW-Authenticate, Retry-After",
        }

    def identify(self, head: Head, when: datetime.datetime) -> str:
        """The client's name; raises Unauthenticated, or ForbiddenOrigin before it comes to that."""
        origin = head.fields.get("Origin")
        if origin is not None and origin not in self._any_origins:
            raise ForbiddenOrigin("this Origin is not allowed", key="listen.allowed_origins")
        return self._tokens.authenticate(head.fields.getall("Authorization", ()), when)

    def admit(self, head: Head, client: str, upstream: str, now: float) -> Admission:
        """Let an identified client go on to an upstream, or raise why not; charges its rate limit."""
        admission = self._admissions[client, upstream]
        policy_name = admission.policy_name
        origin = head.fields.get("Origin")
        if origin is not None and origin not in self._origins_of[policy_name]:
            raise ForbiddenOrigin(
                "this Origin is not allowed for this client", key=f"policies.{policy_name}.allowed_origins"
            )
        if head.method not in METHODS:
            raise MethodNotAllowed("the endpoint has POST, GET and DELETE", headers={"Allow": ", ".join(METHODS)})
        self._check_media(head, admission.max_body, admission.max_body_key)
        self._limiter.admit(client, policy_name, upstream, now)
        return admission

    def passed(self, head: Head, admission: Admission) -> Passed:
        """What to remember of a head that has just been admitted."""
        return Passed(admission, self._tokens.valid_until(head.fields.getall("Authorization", ())), head.mcp)

    def charge(self, admission: Admission, now: float) -> None:
        """Charge the rate limit for a request that needs no other look; raises RateLimited."""
        self._limiter.admit(admission.client, admission.policy_name, admission.upstream, now)

    def _admission(self, client: str, upstream: str) -> Admission:
        policy_name = self._config.clients[client].policy
        policy = self._config.policies[policy_name]
        limits = self._config.limits
        max_body, key = policy.max_request_size, f"policies.{policy_name}.max_request_size"
        if limits.max_message_size < max_body:
            max_body, key = limits.max_message_size, "limits.max_message_size"
        own = self._config.upstreams[upstream]
        supported = between(
            (policy.min_revision, policy.max_revision),
            (own.min_revision, own.max_revision),
            # HTTP+SSE is a session by itself.
            (None, LEGACY[-1] if own.transport == "sse" else None),
        )
        return Admission(
            client,
            policy_name,
            policy,
            upstream,
            max_body,
            key,
            supported,
            upstream_allowed(policy, upstream),
            self._limiter.limits_tools(client, policy_name),
            Session("", "", client, upstream, None, {}),
        )

    def _check_media(self, head: Head, max_body: int, key: str) -> None:
        fields = head.fields
        if head.method == "POST":
            fields_of.check_content_type(fields)
            fields_of.check_accept(fields, "application/json", "text/event-stream")
            length = fields.get("Content-Length")
            if length is not None and int(length) > max_body:
                raise RequestTooLarge(f"the request is larger than {max_body} bytes", key=key)
            return
        if fields.get("Content-Encoding") is not None:
            raise UnsupportedMediaType("a request body must not be compressed: send it without Content-Encoding")
        if fields.get("Transfer-Encoding") is not None or (fields.get("Content-Length") or "0") != "0":
            raise BadRequest(f"{head.method} has no body here", reason="body-not-expected")
        if head.method == "GET":
            fields_of.check_accept(fields, "text/event-stream")


_CORS_FIXED = (
    "Authorization", "Content-Type", "Accept", "MCP-Protocol-Version", "Mcp-Session-Id", "Last-Event-ID", "Mcp-Method",
    "Mcp-Name",
)  # fmt: skip


def _cors_headers(wanted: str) -> list[str]:
    """The fields of MCP, and those Mcp-Param-* that the page asks for (rule 6.14)."""
    extra = [each.strip() for each in wanted.split(",")]
    return [*_CORS_FIXED, *(each for each in extra if fields_of.is_param_field(each))]
