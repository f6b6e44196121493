"""Inputs that somebody thought of: the bytes of the corpus, as far as they are whole texts."""

from __future__ import annotations

import base64
import functools
import json
from pathlib import Path

__all__ = ["corpus"]

_FILE = Path(__file__).resolve().parents[2] / "tests" / "corpus" / "corpus_open.jsonl"
_MAX_SIZE = 4096


@functools.cache
def corpus(*transports: str) -> tuple[bytes, ...]:
    """The inputs of these transports of the corpus: ``http``, ``jsonrpc``, ``sse``, ``tool_def``, ``result``."""
    found = []
    for line in _FILE.read_text().splitlines():
        case = json.loads(line)
        if case["transport"] not in transports:
            continue
        data = case["input"]
        if not isinstance(data, str):
            data = json.dumps(data)
        elif case["input_encoding"] == "base64":
            found.append(base64.b64decode(data))
            continue
        found.append(data.encode("utf-8", "surrogatepass"))
    if not found:
        raise ValueError(f"the corpus has no case of {transports}")
    return tuple(data for data in found if len(data) <= _MAX_SIZE)
