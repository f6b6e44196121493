"""Who is calling: the credentials of clients."""

from __future__ import annotations
