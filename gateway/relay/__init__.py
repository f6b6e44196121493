"""The only room that moves bytes: aiohttp endpoints on one side, pooled client sessions on the other.

``gate`` and ``exchange`` are sans-IO: they decide.  ``endpoint``, ``upstream`` and ``server`` await.
"""

from __future__ import annotations
