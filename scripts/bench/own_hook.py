"""A hook of one's own that lets everything pass: what calling one costs."""

from __future__ import annotations

from gateway.guard.hook import PASS, Exchange, Verdict
from gateway.protocol.message import Message

__all__ = ["Nothing"]


class Nothing:
    """Sees every message, and does nothing."""

    name = "nothing"

    def on_message(self, message: Message, exchange: Exchange) -> Verdict:
        """Passes."""
        return PASS
