"""``mcpgw doctor``: what an MCP server does, and what to configure for it.

``examine`` asks a server harmless questions, right and wrong ones, as the gateway would ask them.  It never calls a
tool, reads no resource, follows no redirect or link, and ends the sessions that it opens.

``report``      what was found, and the words in which strangers' text may appear in it
``client``      one HTTP exchange, bounded in time and size
``visit``       what all probes share: the client, the report, sessions and how requests are made
``reach``, ``eras``, ``sse``, ``sessions``, ``strictness``, ``connections``, ``definitions``   the probes
``advice``      the configuration that follows
``render``      the report as text
"""

from __future__ import annotations

from .examine import examine
from .render import render
from .report import Report

__all__ = ["Report", "examine", "render"]
