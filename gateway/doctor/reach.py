"""Whether a connection can be made at all: name, TCP, TLS, certificate."""

from __future__ import annotations

import asyncio
import datetime
import os
import socket
import ssl
from typing import Any

from ..config.values import is_loopback
from .report import Level
from .visit import Visit

__all__ = ["reach"]

_EXPIRES_SOON = 30.0  # days


async def reach(visit: Visit) -> bool:
    """Connect, and say what stands in the way.  True where a request can be sent.  No HTTP is spoken."""
    url, timeout = visit.client.url, visit.client.timeout
    host, port = url.host or "", url.port or 0
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout):
            addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            started = loop.time()
            _, writer = await asyncio.open_connection(host, port)
    except (socket.gaierror, UnicodeError) as error:
        text = error.strerror if isinstance(error, socket.gaierror) else "it is no name"
        visit.say("reachable", Level.PROBLEM, f"the name {host} does not resolve: {text}")
        return False
    except TimeoutError:
        visit.say("reachable", Level.PROBLEM, f"no connection to {host}, port {port}, within {timeout:g} s")
        return False
    except OSError as error:
        # asyncio's own text names addresses, or several of them.
        text = os.strerror(error.errno) if error.errno else "none of its addresses takes one"
        visit.say("reachable", Level.PROBLEM, f"no connection to {host}, port {port}: {text.lower()}")
        return False
    took = (loop.time() - started) * 1000
    writer.transport.abort()
    count = len({address[4][0] for address in addresses})
    where = "1 address" if count == 1 else f"{count} addresses"
    visit.say("reachable", Level.OK, f"TCP connection to {host}, port {port}, in {took:.0f} ms ({where})")
    if url.scheme == "https":
        return await _handshake(visit, host, port)
    if not is_loopback(host):
        visit.say(
            "plain-http",
            Level.WARNING,
            "plain http: whoever is on the way reads and changes everything, credentials included",
            "Use https, or a network that nobody else is on.",
        )
    return True


async def _handshake(visit: Visit, host: str, port: int) -> bool:
    context = ssl.create_default_context()
    try:
        async with asyncio.timeout(visit.client.timeout):
            _, writer = await asyncio.open_connection(host, port, ssl=context)
    except ssl.SSLCertVerificationError as error:
        visit.say(
            "certificate",
            Level.PROBLEM,
            f"the certificate is refused: {visit.shown(error.verify_message)}",
            "If the certificate is from an authority of your own, name its PEM file as `tls_ca` in the upstream's "
            "section, and run this again with SSL_CERT_FILE set to that file.",
        )
        return False
    except ssl.SSLError as error:
        hint = "; is it plain http?" if error.reason == "WRONG_VERSION_NUMBER" else ""
        visit.say("tls", Level.PROBLEM, f"the TLS handshake failed ({visit.shown(error.reason or 'no reason')}){hint}")
        return False
    except TimeoutError:
        visit.say("tls", Level.PROBLEM, f"the TLS handshake took longer than {visit.client.timeout:g} s")
        return False
    except OSError:
        visit.say("tls", Level.PROBLEM, "the connection broke in the TLS handshake")
        return False
    tls = writer.get_extra_info("ssl_object")
    visit.say("tls", Level.OK, f"{tls.version()}, and the certificate is trusted")
    _expiry(visit, tls.getpeercert() or {})
    writer.transport.abort()
    return True


def _expiry(visit: Visit, certificate: dict[str, Any]) -> None:
    ends = certificate.get("notAfter")
    if not isinstance(ends, str):
        return
    moment = datetime.datetime.fromtimestamp(ssl.cert_time_to_seconds(ends), datetime.UTC)
    days = (moment - datetime.datetime.now(datetime.UTC)).total_seconds() / 86400
    text = f"the certificate is valid until {moment:%Y-%m-%d}"
    if days < _EXPIRES_SOON:
        visit.say("certificate", Level.WARNING, f"{text}: {days:.0f} days", "Have the certificate renewed.")
    else:
        visit.say("certificate", Level.OK, text)
