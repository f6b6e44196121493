"""MCP Gateway: a message-aware streaming relay between MCP clients and remote MCP servers."""

from __future__ import annotations

__version__ = "0.1.0"
