"""Bearer tokens: who is calling, by the SHA-256 of what they present.

The configuration holds digests alone, and a token is looked up by its digest: how long that takes depends on the
digest of a guess, which a guesser cannot steer, and not on how much of a token was guessed.  Nothing here logs, keeps
or repeats a token.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import math
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from ..config import Client, Policy
from ..protocol.errors import AudienceError, Unauthenticated
from ..wire.names import Cleared

__all__ = ["MAX_TOKEN_CHARS", "Tokens", "names_credential", "new_token", "reject_token_elsewhere"]

# Room for a large JWT; what is longer is not hashed.
MAX_TOKEN_CHARS = 4096
_MAX_FIELD_CHARS = MAX_TOKEN_CHARS + 16

# RFC 6750, 2.1: b64token.  No comma, no second word: "tok,Bearer tok2" is one value that two readers split differently.
_BEARER = re.compile(r"bearer {1,8}([A-Za-z0-9\-._~+/]+=*)", re.ASCII | re.IGNORECASE)
_SCHEME = re.compile(r"bearer(?![!#$%&'*+.^_`|~0-9A-Za-z-])", re.ASCII | re.IGNORECASE)

_QUERY_NAMES = frozenset(("access_token", "authorization", "bearer", "id_token", "refresh_token", "token"))
_BODY_NAMES = frozenset(("access_token", "authorization"))
_QUERY_SEPARATOR = re.compile("[&;]")


class _Holder(NamedTuple):
    """Whose token has this digest, and until when (None = for ever)."""

    digest: bytes
    client: str | None
    expires: datetime.datetime | None


class Tokens:
    """The tokens of all clients.

    A client may have several (old and new while one replaces the other), each with an expiry of its own.  The client
    without any token, if its policy says ``require_auth: false``, is everybody who shows no credentials; somebody who
    shows wrong ones is refused all the same.
    """

    __slots__ = ("_anonymous", "_challenge", "_holders", "_nobody")

    def __init__(self, clients: Mapping[str, Client], policies: Mapping[str, Policy], realm: str = "mcp") -> None:
        """``realm`` is what the challenge shows (RFC 9110, 11.5).  Raises ValueError when two clients share a token or
        two are anonymous: then it could not be said who calls."""
        if re.fullmatch(r"[ !#-\[\]-~]*", realm, re.ASCII) is None:
            raise ValueError("a realm is printable ASCII without quotes and backslashes")
        self._challenge = f'Bearer realm="{realm}"'
        self._holders: dict[bytes, _Holder] = {}
        self._anonymous: str | None = None
        # No SHA-256 that anybody can present leads here: what is compared with it differs.
        self._nobody = _Holder(secrets.token_bytes(32), None, None)
        for name, client in clients.items():
            if not client.all_tokens and not policies[client.policy].require_auth:
                if self._anonymous is not None:
                    raise ValueError(f"clients {self._anonymous} and {name} both have no token")
                self._anonymous = name
            for token in client.all_tokens:
                holder = _Holder(bytes.fromhex(token.sha256), name, token.expires)
                other = self._holders.setdefault(holder.digest, holder)
                if other.client != name:
                    raise ValueError(f"clients {other.client} and {name} list the same token")
                # Listed twice by one client, with and without an expiry: the expiry was meant.
                if holder.expires is not None and (other.expires is None or holder.expires < other.expires):
                    self._holders[holder.digest] = holder

    def authenticate(self, authorization: Sequence[str], now: datetime.datetime) -> str:
        """The name of the client that calls; raises Unauthenticated with a challenge (rules 8.1, 8.9; RFC 6750, 3).

        ``authorization`` holds the value of every Authorization field of the request, ``now`` is an aware time.
        """
        if not authorization:
            if self._anonymous is not None:
                return self._anonymous
            raise self._no_credentials("this endpoint needs a bearer token")
        if len(authorization) > 1:
            raise self._invalid("more than one Authorization field")
        field = authorization[0]
        match = _BEARER.fullmatch(field) if len(field) <= _MAX_FIELD_CHARS else None
        if match is None and _SCHEME.match(field) is None:
            raise self._no_credentials("the only authentication scheme here is Bearer")
        if match is None or len(match[1]) > MAX_TOKEN_CHARS:
            raise self._invalid("the Authorization field does not hold exactly one bearer token")
        digest = hashlib.sha256(match[1].encode("ascii")).digest()
        # The comparison is made for unknown tokens too, so that they take the same way.
        holder = self._holders.get(digest, self._nobody)
        if not hmac.compare_digest(holder.digest, digest) or holder.client is None:
            raise self._invalid("the bearer token is not valid")
        if holder.expires is not None and now >= holder.expires:
            raise self._invalid("the bearer token has expired", reason="token-expired")
        return holder.client

    def valid_until(self, authorization: Sequence[str]) -> float:
        """When credentials that were accepted expire, in POSIX seconds; infinity for those that do not."""
        match = _BEARER.fullmatch(authorization[0]) if authorization else None
        if match is None:
            return math.inf
        holder = self._holders[hashlib.sha256(match[1].encode("ascii")).digest()]
        return math.inf if holder.expires is None else holder.expires.timestamp()

    def _no_credentials(self, message: str) -> Unauthenticated:
        # Without error=: the caller may not have known that it needs a token (RFC 6750, 3.1).
        return Unauthenticated(message, headers={"WWW-Authenticate": self._challenge})

    def _invalid(self, message: str, *, reason: str = "invalid-token") -> Unauthenticated:
        challenge = f'{self._challenge}, error="invalid_token"'
        return Unauthenticated(message, reason=reason, headers={"WWW-Authenticate": challenge})

    def __repr__(self) -> str:
        return f"<Tokens {len(self._holders)} tokens, anonymous client: {self._anonymous}>"


def new_token() -> tuple[str, str]:
    """A fresh token of 256 random bits, and the digest that goes into the configuration (64 hexadecimal digits).

    The prefix lets secret scanners recognise a token that leaked.
    """
    token = "mcpgw_" + secrets.token_urlsafe(32)
    return token, hashlib.sha256(token.encode("ascii")).hexdigest()


def reject_token_elsewhere(query: str) -> None:
    """Raises AudienceError when a query string (without its ``?``) holds a credential (rule 8.11).

    URLs end in histories and logs: a token seen in one is to be replaced, so it is refused even where it is not needed.
    Names are compared after percent-decoding, whatever their case, ``-`` or ``_``.  Linear in the query's length.
    """
    if query and any(
        _folded(name) in _QUERY_NAMES
        for part in _QUERY_SEPARATOR.split(query)
        for name, _ in parse_qsl(part, keep_blank_values=True)
    ):
        raise AudienceError("credentials belong in the Authorization field, never in the URL: replace this token")


def names_credential(members: dict[str, Any]) -> bool:
    """True when a member is meant for a credential: asked of the ``params`` of a message and of their ``_meta``.

    The message itself has no room for one (``wire.envelope``), and a tool's own arguments may be called whatever the
    tool wants (rule 8.11 is about the caller's token).
    """
    return not _has_no_token(members)


_has_no_token = Cleared(lambda name: _folded(name) in _BODY_NAMES)


def _folded(name: str) -> str:
    return name.strip().casefold().replace("-", "_")
