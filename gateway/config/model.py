"""What the configuration holds: one frozen model per section.  Field descriptions are the documentation's text.

Checks that need more than one section are in ``checks``; reading files is in ``load``.
"""

from __future__ import annotations

import datetime
import fnmatch
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from .document import dotted
from .units import Count, Duration, OptionalDuration, OptionalSize, PortNumber, Size, Switch
from .values import (
    Authority,
    CallerName,
    Digest,
    Digests,
    HeaderMap,
    HookName,
    Host,
    Key,
    Moment,
    Origin,
    Pattern,
    PublicUrl,
    UpstreamName,
    UpstreamPattern,
    UpstreamReference,
    UpstreamUrl,
    authority,
    is_loopback,
    is_wildcard,
)

__all__ = [
    "CROSS_CHECK", "Admin", "Audit", "Client", "Config", "HookEntry", "Limits", "Listen", "Logging", "Policy", "Rate",
    "RateLimits", "RevisionName", "Sealing", "Section", "Token", "Upstream",
]  # fmt: skip

CROSS_CHECK = "cross_check"
"""Type of the validation error that carries what ``checks.problems`` found, in ``ctx["findings"]``."""

_DEFAULT_PORTS = {"http": 80, "https": 443}


class Section(BaseModel):
    """A part of the configuration: never changed once read, no unknown keys, no values in error texts."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=True, allow_inf_nan=False
    )


class Listen(Section):
    """The data port: what MCP clients talk to; on loopback unless told otherwise (rule 1.7)."""

    host: Host = Field(default="127.0.0.1", description="Address to listen on.")
    port: PortNumber = Field(default=8080, description="Port to listen on; 0 = any free one.")
    public_url: PublicUrl | None = Field(
        default=None,
        description="What clients use to get here, without the upstream's path; challenges and resource ids are built "
        "from it. Absent: `http://host:port`.",
    )
    hosts: tuple[Authority, ...] = Field(
        default=(),
        description="Accepted `Host` values, such as `gateway.example.com` or `10.0.0.5:8080`. Empty: that of "
        "`public_url` and, when listening on loopback or on every address, the loopback names.",
    )
    allowed_origins: tuple[Origin, ...] = Field(
        default=(),
        description="Accepted `Origin` values, exact, beside those of the accepted hosts themselves. A request "
        "without an `Origin` passes.",
    )
    default_upstream: UpstreamName | None = Field(
        default=None, description="The upstream that is served at `/mcp` too. Absent: the only one, if there is one."
    )
    short_lane: Switch = Field(
        default=True,
        description="Whether plain requests are relayed without a task for each; what is decided about them is the "
        "same. `MCPGW_SHORT_LANE=on` or `off` in the environment takes its place.",
    )

    @property
    def base_url(self) -> str:
        """``public_url``, or what it defaults to; without a slash at the end."""
        return self.public_url or f"http://{authority(self.host, self.port)}"


class Admin(Section):
    """The admin port: health, metrics and what changes the gateway.  Nothing of it is on the data port."""

    host: Host = Field(default="127.0.0.1", description="Address to listen on.")
    port: PortNumber = Field(default=9090, description="Port to listen on; 0 = any free one.")
    token_sha256: Digest | None = Field(
        default=None,
        repr=False,
        description="SHA-256 of the admin token that `/admin/...` asks for. Absent: `/admin/...` is closed.",
    )


RevisionName = Literal["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28"]
"""The revisions that the gateway speaks (``protocol.revisions`` has what they mean)."""


class Upstream(Section):
    """A remote MCP server."""

    url: UpstreamUrl = Field(description="Its endpoint: http or https, without credentials, query or fragment.")
    transport: Literal["streamable-http", "sse"] = Field(
        default="streamable-http", description="`streamable-http`, or `sse` for the HTTP+SSE transport of 2024-11-05."
    )
    headers: HeaderMap = Field(
        default_factory=dict,
        repr=False,
        description="Header fields that go with every request, such as the gateway's own credentials. Values may be "
        "`file:PATH`.",
    )
    connections: Count = Field(default=100, description="Calls at once; more are answered with 503.")
    streams: Count = Field(default=1000, description="Open GET streams at once; more are answered with 503.")
    force_close: Switch = Field(default=False, description="`true`: a new connection for every request.")
    max_result_size: OptionalSize = Field(
        default=None,
        description="Largest result. Absent or `unlimited`: any; what is larger than `limits.inline_message` is "
        "judged as it streams.",
    )
    min_revision: RevisionName | None = Field(
        default=None, description="The oldest protocol revision that is spoken with it. Absent: the oldest there is."
    )
    max_revision: RevisionName | None = Field(
        default=None, description="The newest protocol revision that is spoken with it. Absent: the newest there is."
    )
    tls_ca: str | None = Field(
        default=None,
        description="PEM file of the authorities to trust instead of the system's, relative to the configuration file.",
    )


class Token(Section):
    """A bearer token, known by its digest alone."""

    sha256: Digest = Field(repr=False, description="SHA-256 of the token; `mcpgw token CLIENT` prints one.")
    expires: Moment | None = Field(
        default=None, description="When it stops being accepted, with a time zone. Absent: never."
    )

    def is_expired(self, now: datetime.datetime) -> bool:
        """Whether the token is no longer accepted at ``now`` (aware)."""
        return self.expires is not None and now >= self.expires


class Client(Section):
    """Somebody who calls.  Without any token: everybody who shows none (one such client at most)."""

    policy: CallerName = Field(default="default", description="The policy that says what this client may do.")
    token_sha256: Digests = Field(
        default=(), repr=False, description="SHA-256 of the client's token, or a list of them. May be `file:PATH`."
    )
    tokens: tuple[Token, ...] = Field(default=(), repr=False, description="Tokens that may expire.")

    @property
    def all_tokens(self) -> tuple[Token, ...]:
        """The tokens of both keys."""
        return tuple(Token(sha256=digest) for digest in self.token_sha256) + self.tokens


class Rate(Section):
    """A token bucket: so many requests a minute, and a few more at once."""

    max_requests_per_minute: Count = Field(description="How many requests a minute.")
    burst: Count | None = Field(
        default=None, description="Requests at once before the rate holds. Absent: a sixth of the rate, at least 1."
    )

    @field_validator("burst", mode="after")
    @classmethod
    def _burst(cls, value: int | None, info: ValidationInfo) -> int | None:
        return _default_burst(value, info.data.get("max_requests_per_minute"))


class RateLimits(Section):
    """Buckets in addition to the policy's own: a call has to find room in all that concern it."""

    tools: dict[Pattern, Rate] = Field(
        default_factory=dict, description="Per tool name or glob; each client has its own bucket for each entry."
    )
    upstreams: dict[UpstreamName, Rate] = Field(
        default_factory=dict, description="Per upstream; each client has its own bucket for each entry."
    )


class Policy(Section):
    """What a client may do.  Whatever is not named is refused."""

    allowed_upstreams: tuple[UpstreamReference, ...] = Field(
        default=(), description="Names of upstreams; `*` = all. No other patterns."
    )
    allowed_methods: tuple[Pattern, ...] = Field(
        default=("*",),
        description="Methods or globs. `*` = all that MCP itself defines; methods of extensions must be written out.",
    )
    allowed_tools: tuple[Pattern, ...] = Field(
        default=(), description="Tool names or globs. Empty = none, `*` = all; others are not listed either."
    )
    allowed_resources: tuple[Pattern, ...] = Field(
        default=(), description="Resource URIs or globs. Empty = none, `*` = all."
    )
    allowed_prompts: tuple[Pattern, ...] = Field(
        default=(), description="Prompt names or globs. Empty = none, `*` = all."
    )
    allowed_server_requests: tuple[Pattern, ...] = Field(
        default=("*",),
        description="Requests that upstreams may make of the client, such as `sampling/createMessage`, or globs.",
    )
    max_requests_per_minute: Count | None = Field(
        default=600, description="Requests per minute of one client; `null` = no limit."
    )
    burst: Count | None = Field(
        default=None,
        description="Requests at once before the rate holds. Absent: a sixth of `max_requests_per_minute`, at least 1.",
    )
    rate_limits: RateLimits = Field(default_factory=RateLimits, description="Further limits per tool and upstream.")
    max_request_size: Size = Field(default=1024**2, description="Largest request body.")
    max_concurrent_calls: Count = Field(default=32, description="Calls under way at once, per client.")
    max_concurrent_streams: Count = Field(default=32, description="Open GET streams at once, per client.")
    allowed_origins: tuple[Origin, ...] = Field(
        default=(),
        description="`Origin` values that clients of this policy may send beside those of `listen.allowed_origins`.",
    )
    min_revision: RevisionName | None = Field(
        default=None, description="The oldest protocol revision that these clients may speak. Absent: any."
    )
    max_revision: RevisionName | None = Field(
        default=None, description="The newest protocol revision that these clients may speak. Absent: any."
    )
    require_auth: Switch = Field(
        default=True, description="`false`: a client without tokens may have this policy, so everybody has it."
    )
    deny_status: Literal[200, 403] = Field(
        default=200, description="HTTP status of a refused request; 200 keeps agents reading the reason."
    )

    @field_validator("burst", mode="after")
    @classmethod
    def _burst(cls, value: int | None, info: ValidationInfo) -> int | None:
        return _default_burst(value, info.data.get("max_requests_per_minute"))


class HookEntry(Section):
    """One hook of the chain.  Written as its kind alone, or as a mapping."""

    kind: str = Field(
        min_length=1, description="A built-in hook's name, or a class of your own as `package.module:Class`."
    )
    name: HookName = Field(
        default="", validate_default=False, description="What records and metrics call it. Absent: the hook's own name."
    )
    mode: Literal["enforce", "shadow"] = Field(
        default="enforce", description="`shadow` records what the hook would have done and lets everything through."
    )
    directions: tuple[Literal["client", "server"], ...] = Field(
        default=("client", "server"), min_length=1, description="Whose messages it sees."
    )
    methods: tuple[Pattern, ...] = Field(
        default=("*",), min_length=1, description="Methods or globs it sees; a response counts as its request's method."
    )
    timeout: Duration | None = Field(
        default=None, description="How long an asynchronous hook may take before the message is blocked."
    )
    upstreams: tuple[UpstreamPattern, ...] = Field(
        default=("*",), min_length=1, description="Names of upstreams, or globs, on which it runs."
    )
    options: dict[str, Any] = Field(default_factory=dict, description="What the hook itself understands.")

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, value: object) -> object:
        if isinstance(value, str):
            value = {"kind": value}
        if isinstance(value, dict) and "name" not in value and isinstance(value.get("kind"), str):
            value = {**value, "name": value["kind"]}
        return value

    def runs_on(self, upstream: str) -> bool:
        """Whether the hook is part of the upstream's chain."""
        return any(fnmatch.fnmatchcase(upstream, pattern) for pattern in self.upstreams)


class Audit(Section):
    """The record of what was asked for and what became of it."""

    path: str = Field(
        default="var/audit.jsonl", min_length=1, description="The file, relative to the working directory."
    )
    mode: Literal["required", "best_effort", "off"] = Field(
        default="required", description="`required`: a call that cannot be recorded is refused with 503."
    )
    max_file_size: Size = Field(default=64 * 1024**2, description="Size at which a new file is begun.")
    keep_files: Count = Field(default=10, description="How many older files are kept beside the current one.")


class Limits(Section):
    """Bounds that hold for every peer.  An error that one of them causes names its key."""

    inline_message: Size = Field(
        default=64 * 1024, description="Up to this size a message is read whole before it is judged."
    )
    max_message_size: Size = Field(default=16 * 1024**2, description="Largest message of an upstream.")
    max_header_size: Size = Field(default=16 * 1024, description="All header fields of a message together.")
    max_header_count: Count = Field(default=100, description="Most header fields of a message.")
    max_target_size: Size = Field(default=8 * 1024, description="Longest request line.")
    max_batch: Count = Field(default=50, description="Most messages in one batch (revision 2025-03-26).")
    json_depth: Count = Field(default=64, le=128, description="Deepest nesting of JSON; 128 at most.")
    json_nodes: Count = Field(default=250_000, description="Most values in one JSON message.")
    streamed_members: Count = Field(
        default=50_000,
        description="Most members of the objects that are open at once in a result that is judged as it streams.",
    )
    json_number_chars: Count = Field(default=128, le=308, description="Longest JSON number; 308 at most.")
    header_timeout: Duration = Field(default=10.0, description="Time for a request's header to arrive.")
    body_idle_timeout: Duration = Field(default=10.0, description="Longest pause within a request's body.")
    body_timeout: Duration = Field(default=60.0, description="Time for a request's body to arrive.")
    write_timeout: Duration = Field(default=30.0, description="Longest time that a client takes nothing.")
    connect_timeout: Duration = Field(default=5.0, description="Time to connect to an upstream.")
    first_byte_timeout: Duration = Field(default=120.0, description="Time for an upstream's answer to begin.")
    idle_timeout: Duration = Field(default=300.0, description="Longest pause within an upstream's answer.")
    stream_idle_timeout: OptionalDuration = Field(
        default=0.0, description="Longest pause within a GET stream; 0 = any."
    )
    keepalive_interval: Duration = Field(
        default=15.0, description="Pause after which an event stream gets a comment, so that proxies keep it open."
    )
    connection_idle_timeout: Duration = Field(default=75.0, description="How long a client's idle connection is kept.")
    drain_timeout: OptionalDuration = Field(
        default=10.0, description="How long calls may go on once the gateway was told to stop; 0 = not at all."
    )
    max_connections: Count = Field(default=10_000, description="Most client connections.")
    max_sessions: Count = Field(
        default=10_000, description="Most sessions that are remembered: HTTP+SSE ones, and others with calls under way."
    )
    max_tasks: Count = Field(default=10_000, description="Most tasks whose owners are remembered.")
    session_idle_timeout: Duration = Field(default=3600.0, description="How long an idle session is remembered.")


class Sealing(Section):
    """What clients are given to bring back: session ids, event ids, request states.  Nobody else can make them."""

    keys: tuple[Key, ...] = Field(
        default=(),
        repr=False,
        description="Keys of 32 random bytes in base64; may be `file:PATH`. The first one seals, all of them open. "
        "Copies of the gateway that share them share their sessions. Absent: one of the process's own.",
    )
    session_lifetime: Duration = Field(default=86400.0, description="How long a session id is good for.")
    request_state_lifetime: Duration = Field(
        default=3600.0, description="How long a client may take to answer what a call asks it (`input_required`)."
    )


class Logging(Section):
    """The program's own log, on stderr."""

    level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="Least level shown.")
    format: Literal["text", "json"] = Field(default="text", description="`json`: one object per line.")


class Config(Section):
    """The whole configuration."""

    listen: Listen = Field(default_factory=Listen, description="The data port.")
    admin: Admin = Field(default_factory=Admin, description="The admin port.")
    upstreams: dict[UpstreamName, Upstream] = Field(
        default_factory=dict, description="The MCP servers, by name; each is served at `/NAME/mcp`. At least one."
    )
    clients: dict[CallerName, Client] = Field(default_factory=dict, description="Who may call, by name.")
    policies: dict[CallerName, Policy] = Field(default_factory=dict, description="What clients may do, by name.")
    hooks: tuple[HookEntry, ...] = Field(
        default=(HookEntry(kind="policy", name="policy"), HookEntry(kind="sanitize", name="sanitize")),
        description="What judges every message, in this order. `policy` must be among them.",
    )
    audit: Audit = Field(default_factory=Audit, description="The audit record.")
    limits: Limits = Field(default_factory=Limits, description="Bounds that hold for every peer.")
    sealing: Sealing = Field(default_factory=Sealing, description="Keys for what clients bring back.")
    logging: Logging = Field(default_factory=Logging, description="The program's own log.")

    @model_validator(mode="after")
    def _cross_check(self, info: ValidationInfo) -> Config:
        from .checks import Declared, problems

        declared = info.context if isinstance(info.context, Declared) else None
        found = problems(self, declared)
        if found:
            text = "; ".join(f"{dotted(finding.path)}: {finding.message}" for finding in found)
            raise PydanticCustomError(CROSS_CHECK, "{text}", {"text": text, "findings": found})
        return self

    def hooks_for(self, upstream: str) -> tuple[HookEntry, ...]:
        """The hooks that run on an upstream, in order."""
        return tuple(entry for entry in self.hooks if entry.runs_on(upstream))

    @property
    def default_upstream(self) -> str | None:
        """The upstream that ``/mcp`` serves: the one named, else the only one, else None."""
        if self.listen.default_upstream is None and len(self.upstreams) == 1:
            return next(iter(self.upstreams))
        return self.listen.default_upstream

    @property
    def anonymous_client(self) -> str | None:
        """The name of the client without tokens, if there is one."""
        return next((name for name, client in self.clients.items() if not client.all_tokens), None)

    @property
    def accepted_hosts(self) -> frozenset[str]:
        """Host values, in lower case, that requests may carry (rule 1.6: anything else is DNS rebinding)."""
        if self.listen.hosts:
            return frozenset(self.listen.hosts)
        scheme, _, rest = self.listen.base_url.partition("://")
        public = rest.partition("/")[0]
        default = _DEFAULT_PORTS[scheme]
        host = public.removesuffix(f":{default}")
        accepted = {public} if host == public and _has_port(public) else {host, f"{host}:{default}"}
        if is_loopback(self.listen.host) or is_wildcard(self.listen.host):
            port = self.listen.port
            for name in ("localhost", "127.0.0.1", "::1"):
                accepted.add(authority(name, port))
                if port in _DEFAULT_PORTS.values():
                    accepted.add(authority(name, None))
        return frozenset(accepted)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is allowed but should be looked at, as ``key: sentence``."""
        from .checks import warnings

        return warnings(self)


def _default_burst(burst: int | None, rate: int | None) -> int | None:
    return max(1, rate // 6) if burst is None and rate is not None else burst


def _has_port(public: str) -> bool:
    return public.rpartition(":")[2].isdigit() and not public.endswith("]")
