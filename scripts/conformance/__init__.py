"""The official conformance suite, played directly and through the gateway, and whatever differs."""

from __future__ import annotations
