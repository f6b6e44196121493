"""Upstreams that are spoken to with TLS, on both lanes."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

LANES = pytest.mark.parametrize("short_lane", [True, False], ids=["short", "full"])


def certificate(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate for 127.0.0.1 that vouches for itself, and a server's context with it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "an upstream")])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    public, private = folder / "public.pem", folder / "private.pem"
    public.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(public, private)
    return public, context


class Echo:
    """Answers tools/call with its argument, as JSON or as events, and counts the connections."""

    def __init__(self) -> None:
        self.connections: set[object] = set()

    async def __call__(self, message: web.BaseRequest) -> web.StreamResponse:
        self.connections.add(message.transport)
        asked = await message.json()
        arguments = asked["params"]["arguments"]
        result = {"content": [{"type": "text", "text": arguments["text"]}]}
        text = json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result})
        if arguments.get("stream"):
            return web.Response(text=f"event: message\ndata: {text}\n\n", content_type="text/event-stream")
        return web.Response(text=text, content_type="application/json")


@contextlib.asynccontextmanager
async def served(context: ssl.SSLContext) -> AsyncIterator[tuple[Echo, str]]:
    """The server, and its URL."""
    echo = Echo()
    runner = web.ServerRunner(web.Server(echo))
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        yield echo, f"https://127.0.0.1:{runner.addresses[0][1]}/mcp"
    finally:
        await runner.cleanup()


@LANES
async def test_calls_and_streams_pass_on_one_connection(serve, tmp_path, short_lane):
    public, context = certificate(tmp_path)
    async with served(context) as (echo, url):
        gateway = await serve(url, upstreams={"up": {"tls_ca": str(public)}}, listen={"short_lane": short_lane})
        async with gateway.client() as client:
            for number in range(6):
                text = f"number {number}" + "x" * (200_000 if number == 4 else 0)
                arguments = {"text": text, "stream": number % 2 == 1}
                answer = await client.call("tools/call", {"name": "echo", "arguments": arguments})
                assert answer["result"]["content"][0]["text"] == text
        assert len(echo.connections) == 1


@LANES
async def test_a_certificate_that_nobody_vouches_for(serve, tmp_path, short_lane):
    _, context = certificate(tmp_path)
    async with served(context) as (echo, url):
        gateway = await serve(url, listen={"short_lane": short_lane})
        async with gateway.client() as client:
            answer = await client.call("tools/call", {"name": "echo", "arguments": {"text": "secret"}})
        assert answer["error"]["data"]["reason"] == "upstream-unreachable"
        assert not echo.connections
