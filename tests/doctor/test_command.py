"""``mcpgw doctor`` as a program: against the demonstration's server, over TLS, against nobody."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from gateway.cli import main
from gateway.harness import ScriptedMcp, unused_port
from tests.end_to_end.sdk.processes import weather_server

TOKEN = "weather-t0ken-for-the-doctor"


def mcpgw(*arguments: str) -> Result:
    return CliRunner().invoke(main, ("doctor", *arguments))


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["ftp://127.0.0.1/"],
        ["http://127.0.0.1/mcp?key=1"],
        ["http://user:pass@127.0.0.1/mcp"],
        ["http://127.0.0.1/", "--header", "X-A"],
        ["http://127.0.0.1/", "--header", "Mcp-Session-Id: 1"],
        ["http://127.0.0.1/", "--timeout", "0"],
        ["http://127.0.0.1/", "--timeout", "soon"],
    ],
    ids=" ".join,
)
def test_bad_usage(arguments: list[str]) -> None:
    result = mcpgw(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.strip()
    assert "Traceback" not in result.stderr


def test_nobody_there() -> None:
    result = mcpgw(f"http://127.0.0.1:{unused_port()}/mcp", "--header", f"Authorization: Bearer {TOKEN}", "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert report["servable"] is False
    assert TOKEN not in result.output


def test_the_server_of_the_demonstration(tmp_path: Path) -> None:
    with weather_server(tmp_path, TOKEN) as url:
        refused = mcpgw(url)
        shown = mcpgw(url, "--header", f"Authorization: Bearer {TOKEN}", "--timeout", "5s")
    assert refused.exit_code == 1
    assert "wants credentials" in refused.stdout
    assert (shown.exit_code, shown.stderr) == (0, f"examining {url}; no tool is called\n")
    assert TOKEN not in shown.output
    assert "could not be found out" not in shown.stdout
    assert "PROBLEM" not in shown.stdout
    assert "4 of 4 sessions were ended" in shown.stdout
    snippet = shown.stdout.partition("What to configure\n")[2].partition("\n\n")[0]
    assert yaml.safe_load(snippet.partition("\n  - ")[0]) == {
        "upstreams": {"weather": {"url": url, "headers": {"Authorization": "Bearer ${WEATHER_TOKEN}"}}}
    }


# -- TLS ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def certificate(tmp_path: Path, needs: Callable[[str, str], str]) -> Path:
    """A self-signed certificate for localhost, with its key, in one PEM file."""
    openssl = needs("openssl", "apt-get install openssl")
    file = tmp_path / "localhost.pem"
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "90", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(file), "-out", str(tmp_path / "cert.pem")]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    with file.open("a") as out:
        out.write((tmp_path / "cert.pem").read_text())
    return file


@contextlib.asynccontextmanager
async def tls(certificate: Path, port: int) -> AsyncIterator[int]:
    """A port that speaks TLS and hands everything on to another one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def run(*arguments: str, **environment: str) -> tuple[int | None, str]:
    program = Path(sys.executable).parent / "mcpgw"
    process = await asyncio.create_subprocess_exec(
        program, "doctor", *arguments, env={**os.environ, **environment}, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, out.decode()


async def test_a_certificate_of_ones_own(certificate: Path) -> None:
    async with ScriptedMcp() as server, tls(certificate, int(server.url.split(":")[2].partition("/")[0])) as port:
        url = f"https://localhost:{port}/mcp"
        code, shown = await run(url)
        assert code == 1
        assert "the certificate is refused: self-signed certificate" in shown
        assert "tls_ca" in shown
        assert server.requests == []

        code, shown = await run(url.replace("localhost", "127.0.0.1"), SSL_CERT_FILE=str(certificate))
        assert code == 1
        assert "the certificate is refused: IP address mismatch" in shown

        code, shown = await run(url, SSL_CERT_FILE=str(certificate))
        assert code == 0
        assert "ok      TLSv1.3, and the certificate is trusted" in shown
