"""What is remembered: audit records and metrics."""

from __future__ import annotations
