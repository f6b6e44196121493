"""``mcpgw pins``: what an upstream offers now, compared with what somebody has approved."""

from __future__ import annotations

from .compare import Item, Status, approve, compare, state_of
from .look import Look, look, pinned
from .offer import Offer, OfferError, fetch
from .render import render

__all__ = [
    "Item", "Look", "Offer", "OfferError", "Status", "approve", "compare", "fetch", "look", "pinned", "render",
    "state_of",
]  # fmt: skip
