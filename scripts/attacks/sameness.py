"""When two messages mean the same, and when only their texts differ."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import urlsplit

from gateway.harness.script import Received

from .wire import strict

__all__ = ["is_request", "same", "same_request", "shape"]


def is_request(document: Any) -> bool:
    return isinstance(document, dict) and isinstance(document.get("method"), str)


def same(one: Any, other: Any) -> bool:
    """Whether two JSON documents mean the same: 1 is 1.0, true is not 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def same_request(asked: dict[str, Any], received: Received) -> bool:
    try:
        got = strict(received.body)
    except ValueError:
        return False
    if not isinstance(got, dict) or got.get("method") != asked["method"] or ("id" in got) != ("id" in asked):
        return False
    mine, theirs = (dict(message.get("params") or {}) for message in (asked, got))
    if "uri" in mine and "uri" in theirs:
        mine["uri"], theirs["uri"] = _normal(mine["uri"]), _normal(theirs["uri"])
    return same(mine, theirs)


def _normal(uri: Any) -> Any:
    """A URI with what RFC 3986, 6.2.2 and 6.2.3, says to be the same made equal."""
    if not isinstance(uri, str):
        return uri
    parts = urlsplit(uri)
    host = parts.netloc.lower()
    default = {"http": ":80", "https": ":443"}.get(parts.scheme, "")
    host = host.removesuffix(default) if default else host
    path = re.sub(
        r"%([0-9A-Fa-f]{2})",
        lambda found: (
            chr(int(found[1], 16)) if re.match(r"[A-Za-z0-9._~-]", chr(int(found[1], 16))) else found[0].upper()
        ),
        parts.path,
    )
    return parts._replace(netloc=host, path=path).geturl()


def shape(document: Any) -> Any:
    """A document without its texts: what a redaction leaves as it is."""
    match document:
        case str():
            return "text"
        case list():
            return [shape(item) for item in document]
        case dict():
            return sorted(json.dumps(shape(value)) for value in document.values())
    return document
