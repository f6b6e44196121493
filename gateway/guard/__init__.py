"""The hooks: each judges one message.  No IO in the hot path, nothing of HTTP.

``hook`` is the interface for hooks of one's own, ``chain`` runs them, ``policy`` and ``sanitize`` are the built-in ones.
"""
