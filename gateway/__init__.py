"""MCP Gateway: a message-aware streaming relay between MCP clients and remote MCP servers."""

__version__ = "0.1.0"
