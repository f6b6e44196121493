"""Texts of the configuration that must have a certain form: names, addresses, digests, headers, patterns."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import re
from typing import Annotated
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BeforeValidator, StringConstraints

__all__ = [
    "CALLER_NAME", "Authority", "CallerName", "Digest", "Digests", "HeaderMap", "HookName", "Host", "Key", "Moment",
    "Origin", "Pattern", "PublicUrl", "UpstreamName", "UpstreamPattern", "UpstreamReference", "UpstreamUrl",
    "authority", "is_loopback", "is_wildcard",
]  # fmt: skip

_UPSTREAM_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}", re.ASCII)
_UPSTREAM_PATTERN = re.compile(r"[a-z0-9*?-]{1,63}", re.ASCII)
CALLER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", re.ASCII)
_HOOK_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,126}", re.ASCII)
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
_KEY_BYTES = 32
# RFC 9110, 5.6.2 (token) and 5.5 (field-value, less obs-text: what is outside ASCII has no agreed meaning).
_FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}", re.ASCII)
_FIELD_VALUE = re.compile(r"[!-~](?:[ \t!-~]*[!-~])?", re.ASCII)
_HOST_NAME = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_](?:[A-Za-z0-9_-]*)(?:\.[A-Za-z0-9_-]+)*\.?", re.ASCII)
_URL_TEXT = re.compile(r"[!-~]+", re.ASCII)
_URL_PATH = re.compile(r"(?:/[A-Za-z0-9._~!$&'()*+,;=:@%-]*)*", re.ASCII)
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*", re.ASCII)
_DEFAULT_PORTS = {"http": 80, "https": 443}

# aiohttp's parser, at the other end as well, takes fields of up to 8190 bytes.
_MAX_FIELD_VALUE = 8000
# The client of the upstream sets these for each request; a fixed value would break framing (RFC 9112) or lie.
_OWN_FIELDS = frozenset({
    "accept", "accept-encoding", "connection", "content-encoding", "content-length", "content-type", "expect", "host",
    "keep-alive", "last-event-id", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
    "transfer-encoding", "upgrade",
})  # fmt: skip


def _matching(pattern: re.Pattern[str], expected: str) -> AfterValidator:
    def check(value: str) -> str:
        if pattern.fullmatch(value) is None:
            raise ValueError(f"expected {expected}")
        return value

    return AfterValidator(check)


def authority(host: str, port: int | None) -> str:
    """``host:port`` in lower case, an IPv6 address in brackets; without the port where it is None."""
    host = f"[{host}]" if ":" in host else host
    return host.lower() if port is None else f"{host.lower()}:{port}"


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine reach the host: localhost, 127.0.0.0/8, ::1."""
    address = _address(host)
    return host.lower() == "localhost" if address is None else address.is_loopback


def is_wildcard(host: str) -> bool:
    """Whether a listener on it is reached by every address of this machine: 0.0.0.0, ::."""
    address = _address(host)
    return address is not None and address.is_unspecified


def _host(value: str) -> str:
    if _address(value) is None and _HOST_NAME.fullmatch(value) is None:
        raise ValueError("expected a host name or an IP address, without a port")
    return value


def _split(value: str, expected: str) -> SplitResult:
    """The parts of an absolute URL in plain ASCII.  ``urlsplit`` strips what is not, so that is looked for first."""
    if _URL_TEXT.fullmatch(value) is None or "\\" in value:
        raise ValueError(expected)
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        raise ValueError(expected) from None
    if not parts.hostname or port == 0:
        raise ValueError(expected)
    if parts.username is not None or parts.password is not None:
        raise ValueError("expected a URL without a user name or password; credentials belong in headers")
    if _address(parts.hostname) is None and _HOST_NAME.fullmatch(parts.hostname) is None:
        raise ValueError(expected)
    return parts


def _http_url(value: str) -> SplitResult:
    expected = "expected a URL such as https://mcp.example.com/mcp"
    parts = _split(value, expected)
    if parts.scheme not in _DEFAULT_PORTS or not value.startswith(parts.scheme + "://"):
        raise ValueError(expected)
    if "?" in value or "#" in value:
        raise ValueError("expected a URL without a query or fragment")
    segments = parts.path.lower().replace("%2e", ".").split("/")
    if _URL_PATH.fullmatch(parts.path) is None or ".." in segments or "." in segments or "%2f" in parts.path.lower():
        raise ValueError("expected a URL whose path has no '.' or '..' segments and no odd characters")
    return parts


def _upstream_url(value: str) -> str:
    _http_url(value)
    return value


def _public_url(value: str) -> str:
    parts = _http_url(value)
    path = parts.path.rstrip("/")
    if "//" in path or "%" in path:
        raise ValueError("expected a URL with a plain path, or none")
    return f"{parts.scheme}://{parts.netloc.lower()}{path}"


def _origin(value: str) -> str:
    """RFC 6454, 6.2 as browsers send it: lower case, no default port."""
    expected = "expected an origin such as https://app.example.com (no path, no *)"
    parts = _split(value, expected)
    if _SCHEME.fullmatch(parts.scheme) is None or value.lower() != f"{parts.scheme}://{parts.netloc.lower()}":
        raise ValueError(expected)
    port = None if parts.port == _DEFAULT_PORTS.get(parts.scheme) else parts.port
    return f"{parts.scheme}://{authority(parts.hostname or '', port)}"


def _authority(value: str) -> str:
    expected = "expected a Host value such as gateway.example.com or 127.0.0.1:8080"
    parts = _split("http://" + value, expected)
    if parts.netloc != value:
        raise ValueError(expected)
    return authority(parts.hostname or "", parts.port)


def _field_name(value: str) -> str:
    if _FIELD_NAME.fullmatch(value) is None:
        raise ValueError("expected a header name of letters, digits and hyphens")
    if value.lower() in _OWN_FIELDS or value.lower().startswith("mcp-"):
        raise ValueError("this header is set by the gateway for each request and cannot be fixed here")
    return value


def _field_value(value: str) -> str:
    if len(value) > _MAX_FIELD_VALUE or _FIELD_VALUE.fullmatch(value) is None:
        raise ValueError(
            f"expected 1 to {_MAX_FIELD_VALUE} ASCII characters without line breaks, and no spaces at the ends"
        )
    return value


def _no_twins(value: dict[str, str]) -> dict[str, str]:
    if len({name.lower() for name in value}) < len(value):
        raise ValueError("a header is given twice; upper and lower case are the same")
    return value


def _upstream_reference(value: str) -> str:
    if value != "*" and _UPSTREAM_NAME.fullmatch(value) is None:
        raise ValueError("expected an upstream's exact name, or * for all; other patterns are not understood here")
    return value


def _one_or_many(value: object) -> object:
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else value


def _moment(value: object) -> datetime.datetime:
    if isinstance(value, str):
        try:
            value = datetime.datetime.fromisoformat(value)
        except ValueError:
            value = None
    if not isinstance(value, datetime.datetime):
        raise ValueError("expected a date and time such as 2027-01-31T12:00:00Z")
    if value.tzinfo is None:
        raise ValueError("expected a time zone: 2027-01-31T12:00:00Z or 2027-01-31T12:00:00+01:00")
    return value


UpstreamName = Annotated[str, _matching(_UPSTREAM_NAME, "1 to 63 lower-case letters, digits and hyphens")]
"""A segment of the endpoint's path and a metric label."""

UpstreamPattern = Annotated[str, _matching(_UPSTREAM_PATTERN, "an upstream's name, or a pattern of one with * and ?")]
"""A glob over upstream names."""

UpstreamReference = Annotated[str, AfterValidator(_upstream_reference)]
"""An upstream's name, or ``*`` for all; globs are not understood here."""

CallerName = Annotated[str, _matching(CALLER_NAME, "1 to 63 letters, digits, '_', '.' and '-'")]
"""The name of a client or policy: a metric label."""

HookName = Annotated[str, _matching(_HOOK_NAME, "1 to 127 letters, digits, '_', '.', ':' and '-'")]
"""The name of a hook: a metric label; by default its kind."""


def _key(value: object) -> object:
    if isinstance(value, str):
        try:
            raw = base64.b64decode(value, validate=True)
        except ValueError:
            raw = b""
        if len(raw) == _KEY_BYTES:
            return raw
    raise ValueError("expected 32 random bytes in base64 (openssl rand -base64 32 prints some)")


Digest = Annotated[
    str, _matching(_DIGEST, "the SHA-256 of the token as 64 lower-case hexadecimal digits (mcpgw token prints one)")
]
"""SHA-256 in lower-case hexadecimal."""

Digests = Annotated[tuple[Digest, ...], BeforeValidator(_one_or_many)]
"""None, one or several digests; always a tuple once read."""

Moment = Annotated[datetime.datetime, BeforeValidator(_moment)]
"""An aware datetime."""

Host = Annotated[str, AfterValidator(_host)]
"""What to bind to."""

Authority = Annotated[str, AfterValidator(_authority)]
"""A Host header's value, in lower case."""

Origin = Annotated[str, AfterValidator(_origin)]
"""An Origin header's value, in lower case, without a default port."""

Key = Annotated[bytes, BeforeValidator(_key)]
"""32 random bytes, written in base64."""

UpstreamUrl = Annotated[str, AfterValidator(_upstream_url)]
"""http or https, a host, no credentials, query or fragment; otherwise as written."""

PublicUrl = Annotated[str, AfterValidator(_public_url)]
"""As UpstreamUrl; scheme and host in lower case, no slash at the end."""

HeaderMap = Annotated[
    dict[Annotated[str, AfterValidator(_field_name)], Annotated[str, AfterValidator(_field_value)]],
    AfterValidator(_no_twins),
]
"""Header fields that are safe to send with every request."""

Pattern = Annotated[str, StringConstraints(min_length=1, max_length=1024)]
"""A glob; never empty."""
