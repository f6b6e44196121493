"""The hooks: each judges one message.  No IO in the hot path, nothing of HTTP.

``hook`` is the interface, ``chain`` runs what the configuration lists; ``policy``, ``arguments``, ``pins``,
``injection`` and ``sanitize`` are built in.
"""

from __future__ import annotations
