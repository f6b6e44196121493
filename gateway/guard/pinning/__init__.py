"""What the hook ``pins`` and the commands ``mcpgw pins`` share: definitions, their digests, and the lock files."""

from __future__ import annotations
