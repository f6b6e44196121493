"""All that exchanges share: one immutable configuration and what was built from it."""

from __future__ import annotations

from dataclasses import dataclass

from ..config import Config
from ..guard.chain import Chain
from ..guard.limits import Concurrency, Limiter
from ..guard.loading import build
from ..protocol.params import ToolHeaders
from ..protocol.seal import KeyRing
from ..protocol.sessions import Sessions
from ..protocol.states import RequestStates
from ..protocol.tasks import TaskOwners
from ..record.audit import Audit
from ..record.metrics import Metrics
from ..wire.strict import Limits as JsonLimits
from .gate import Gate

__all__ = ["Site"]


@dataclass(slots=True)
class Site:
    """What one running gateway consists of, apart from its sockets.

    ``max_message_size`` and ``inline_message`` are those of ``limits``; ``max_result_sizes`` are the upstreams' own
    limits, by name.
    ``draining`` is set once the gateway has been told to stop: new requests are refused, streams end.
    """

    config: Config
    gate: Gate
    chains: dict[str, Chain]
    max_message_size: int
    max_result_sizes: dict[str, int | None]
    limiter: Limiter
    concurrency: Concurrency
    sessions: Sessions
    states: RequestStates
    tool_headers: dict[str, ToolHeaders]
    tasks: TaskOwners
    audit: Audit
    metrics: Metrics
    json_limits: JsonLimits
    inline_message: int
    draining: bool = False

    @classmethod
    def of(cls, config: Config) -> Site:
        """Build everything from a configuration; raises HookConfigError for a hook that cannot be loaded."""
        limits = config.limits
        limiter = Limiter(config.policies, config.clients)
        metrics = Metrics(config.clients, config.upstreams)
        audit = Audit(config.audit.path, config.audit.mode, config.audit.max_file_size, config.audit.keep_files)
        ring = KeyRing(config.sealing.keys)
        sessions = Sessions(ring, config.sealing.session_lifetime, limits.max_sessions)
        metrics.watch_audit(audit)
        metrics.watch_sessions(lambda: len(sessions))
        chains = {name: build(config.hooks, name) for name in config.upstreams}
        for name, chain in chains.items():
            metrics.hooks_configured(name, chain.modes)
        return cls(
            config=config,
            gate=Gate(config, limiter),
            chains=chains,
            max_message_size=limits.max_message_size,
            max_result_sizes={name: upstream.max_result_size for name, upstream in config.upstreams.items()},
            limiter=limiter,
            concurrency=Concurrency(config.policies),
            sessions=sessions,
            states=RequestStates(ring, config.sealing.request_state_lifetime),
            tool_headers={name: ToolHeaders() for name in config.upstreams},
            tasks=TaskOwners(limits.max_tasks, config.sealing.session_lifetime),
            audit=audit,
            metrics=metrics,
            json_limits=JsonLimits(limits.json_depth, limits.json_nodes, limits.json_number_chars),
            inline_message=limits.inline_message,
        )
