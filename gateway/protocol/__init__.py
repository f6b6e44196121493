"""What MCP means: revisions, methods, messages, header fields, errors, sessions.  No IO."""

from __future__ import annotations
