"""Bytes to frames and back, without IO: event streams, strict JSON, the JSON-RPC envelope."""

from __future__ import annotations
