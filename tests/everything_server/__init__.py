"""An MCP server on the official SDK with one of everything, and the client that goes with it.

The names, the contents and the questions are those that the official conformance suite asks for: ``make conformance``.
"""

from __future__ import annotations
