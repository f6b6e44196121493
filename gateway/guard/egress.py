"""Where a URL in an argument leads: one strict reading that client libraries agree on, and public addresses only.

Whatever two readers could take for two different hosts is refused, not repaired: user information, backslashes,
characters that are stripped or folded on the way, addresses in any notation but the usual one.  Names are judged as
they are written; nothing here resolves them.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import NamedTuple

from .glob import MAX_NAME_CHARS, Globs

__all__ = ["Egress", "Target", "UrlRefused", "is_public", "read_url"]

# As long as any target that the gateway itself accepts.
_MAX_URL_CHARS = 8192

# Controls, spaces and line separators are stripped by some readers (WHATWG, 4.4) and end the URL for others.
_STRIPPED = re.compile(
    r"[\x00-\x20\x7f-\xa0\\\u1680\u180e\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\ufeff\ud800-\udfff]"
)
_URL = re.compile(
    r"(?P<scheme>[A-Za-z]{1,16})://(?P<host>[A-Za-z0-9._-]{1,129}|\[[0-9A-Fa-f:.]{2,45}\])(?::(?P<port>[0-9]{1,5}))?"
    r"(?:[/?#].*)?"
)
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
# What WHATWG ("ends in a number") and inet_aton take for the last part of an IPv4 address.
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_IPV4 = re.compile(r"(?:(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])(?:\.(?!\Z)|\Z)){4}")

# Names that never lead to the public Internet (RFC 6761, RFC 6762, RFC 8375, ICANN's .internal), or by custom do not.
_LOCAL_SUFFIXES = frozenset(
    ("localhost", "localdomain", "local", "internal", "intranet", "private", "corp", "home", "lan", "arpa", "test",
     "invalid", "onion", "alt")
)  # fmt: skip

# The registries of special-purpose addresses of IANA, as far as they are not globally reachable, and multicast.
_IPV4_LOCAL = tuple(
    map(
        ipaddress.IPv4Network,
        ("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
         "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24",
         "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3",
         # Azure's metadata and health service, on an address that looks public.
         "168.63.129.16/32"),
    )
)  # fmt: skip
_IPV6_GLOBAL = ipaddress.IPv6Network("2000::/3")
_IPV6_LOCAL = tuple(map(ipaddress.IPv6Network, ("2001::/23", "2001:db8::/32", "3fff::/20", "2620:4f:8000::/48")))
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class UrlRefused(ValueError):
    """A URL that must not be used.  The text says why, without the URL."""


class Target(NamedTuple):
    """Where a URL leads.

    ``scheme``  in lower case
    ``host``    in lower case, without a final dot; an address in its canonical form, without brackets
    ``address`` the host as an address; None for a name
    """

    scheme: str
    host: str
    address: ipaddress.IPv4Address | ipaddress.IPv6Address | None


def read_url(text: str) -> Target:
    """The URL as every client library reads it.  Raises UrlRefused where they might differ."""
    if len(text) > _MAX_URL_CHARS:
        raise UrlRefused(f"it is longer than {_MAX_URL_CHARS} characters")
    if _STRIPPED.search(text):
        raise UrlRefused("it holds a space, a backslash, or a control or invisible character")
    match = _URL.fullmatch(text)
    if match is None:
        raise UrlRefused(
            "it is not scheme://host[:port]/... with a plain host: no user information, no escapes, no letters outside "
            "ASCII (write them as xn--)"
        )
    port = match["port"]
    if port is not None and not 0 < int(port) < 65536:
        raise UrlRefused("its port is not a number from 1 to 65535")
    scheme, host = match["scheme"].lower(), match["host"].lower()
    if host.startswith("["):
        try:
            address = ipaddress.IPv6Address(host[1:-1])
        except ValueError as error:
            raise UrlRefused("its host is no IPv6 address") from error
        return Target(scheme, address.compressed, address)
    host = host.removesuffix(".")
    labels = host.split(".")
    # A longer name is legal and rare, and patterns do not speak of it.
    if len(host) > MAX_NAME_CHARS or not all(map(_LABEL.fullmatch, labels)):
        raise UrlRefused("its host is no host name")
    if _NUMBER.fullmatch(labels[-1]):
        if not _IPV4.fullmatch(host):
            raise UrlRefused("its host is an address in an unusual notation; write four decimal numbers")
        return Target(scheme, host, ipaddress.IPv4Address(host))
    return Target(scheme, host, None)


def is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether the address is global unicast; of one that carries IPv4 addresses, whether those are.

    >>> is_public(ipaddress.ip_address("64:ff9b::10.0.0.1"))
    False
    """
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _IPV4_LOCAL)
    if address.scope_id is not None:
        return False
    carried: tuple[ipaddress.IPv4Address | None, ...] = (address.ipv4_mapped,)
    if address in _NAT64:
        carried = (ipaddress.IPv4Address(int(address) & 0xFFFFFFFF),)
    elif address.sixtofour is not None:
        carried = (address.sixtofour,)
    elif address.teredo is not None:
        carried = address.teredo
    found = [inner for inner in carried if inner is not None]
    if found:
        return all(map(is_public, found))
    return address in _IPV6_GLOBAL and not any(address in network for network in _IPV6_LOCAL)


class Egress:
    """Which URLs an argument may hold.

    ``schemes`` in lower case
    ``allow``   patterns of host names or addresses, of which one must match
    ``deny``    patterns of which none may match
    ``private`` hosts, written out, that are used although they are not public
    """

    __slots__ = ("_allow", "_deny", "_private", "_schemes")

    def __init__(
        self,
        schemes: Iterable[str] = ("https", "http"),
        allow: Iterable[str] = ("*",),
        deny: Iterable[str] = (),
        private: Iterable[str] = (),
    ) -> None:
        self._schemes = frozenset(schemes)
        self._allow = Globs(pattern.lower() for pattern in allow)
        self._deny = Globs(pattern.lower() for pattern in deny)
        self._private = frozenset(host.lower() for host in private)

    def check(self, text: str) -> Target:
        """Where the URL leads.  Raises UrlRefused when it must not be used."""
        target = read_url(text)
        if target.scheme not in self._schemes:
            raise UrlRefused(f"its scheme is not {' or '.join(sorted(self._schemes))}")
        host = target.host
        if host in self._deny or host not in self._allow:
            raise UrlRefused("its host is not one of the allowed ones")
        if host in self._private:
            return target
        if target.address is not None:
            if not is_public(target.address):
                raise UrlRefused("its host is no public address")
        elif "." not in host or host.rpartition(".")[2] in _LOCAL_SUFFIXES:
            raise UrlRefused("its host is no public name")
        return target

    def must_resolve(self, text: str) -> str | None:
        """The host name of a URL, for whoever can look it up: every address of it must be public.

        None for an address, and for a name in ``private``.  Raises UrlRefused.
        """
        target = self.check(text)
        return None if target.address is not None or target.host in self._private else target.host
