"""One result of any size through a gateway process: how fast it passes, and what that costs in memory.

    python -m scripts.large_result [--size 1GiB] [--sse] [--secrets 100]

An upstream of our own streams a tool's result of one long text, with tokens at odd offsets; a gateway with the default
hooks runs as a process of its own; a client reads what comes out and looks for the tokens.  Prints the throughput, the
gateway's memory before and at most, the time to the first byte, and what was redacted.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from gateway.config.units import format_size, size

__all__ = ["Figures", "Seen", "measure"]

TOKEN = b"ghp_" + b"a1B2c3D4e5F6" * 3
MARK = b"[redacted:github-token]"
PROSE = b"The quick brown fox jumps over the lazy dog, and then it sleeps for a while.\\n"
BLOCK = 256 * 1024
CALL = json.dumps(
    {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "large", "arguments": {}}}
).encode()


@dataclass(frozen=True, slots=True)
class Seen:
    """What a client sees: ``size`` in bytes on the wire; seconds from the request to the last byte and to the first;
    whether that came before the upstream had sent its last; marks and tokens; whether the answer was whole."""

    size: int
    seconds: float
    first_byte: float
    first_before_last: bool
    redacted: int
    leaked: int
    whole: bool


@dataclass(frozen=True, slots=True)
class Figures:
    """``idle_rss`` and ``peak_rss`` of the gateway, in bytes; ``secrets``: the tokens that were sent."""

    seen: Seen
    idle_rss: int
    peak_rss: int
    secrets: int


class Upstream:
    """Answers each POST with one result of ``size`` bytes, in chunks, as JSON or as an event."""

    def __init__(self, size: int, secrets: int, *, sse: bool) -> None:
        self.size = size
        self.secrets = secrets
        self.sse = sse
        self.sent_last = False

    def body(self) -> Iterator[bytes]:
        yield (b"event: message\ndata: " if self.sse else b"") + (
            b'{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"'
        )
        lines = self.size // (self.secrets + 1) // len(PROSE)
        block = BLOCK // len(PROSE)
        for number in range(self.secrets + 1):
            for first in range(0, lines, block):
                yield PROSE * min(block, lines - first)
            if number < self.secrets:
                # Odd distances, so that tokens meet the edges of reads in every way.
                yield b"x" * (number * 7 % 97) + b" " + TOKEN + b" "
        yield b'"}]}}' + (b"\n\n" if self.sse else b"")

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(
                int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
            )
            await reader.readexactly(length)
            kind = b"text/event-stream" if self.sse else b"application/json"
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: " + kind + b"\r\nTransfer-Encoding: chunked\r\n\r\n")
            for part in self.body():
                writer.write(b"%x\r\n%b\r\n" % (len(part), part))
                await writer.drain()
            self.sent_last = True
            writer.write(b"0\r\n\r\n")
            await writer.drain()
        writer.close()


def rss(pid: int, field: str = "VmRSS") -> int:
    """A process's memory in bytes: ``VmRSS`` now, ``VmHWM`` at most so far."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise LookupError(field)


async def measure(size: int, secrets: int = 100, *, sse: bool = False) -> Figures:
    """One result through a gateway of its own."""
    upstream = Upstream(BLOCK, 1, sse=sse)
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0, limit=BLOCK)
    with tempfile.TemporaryDirectory() as folder:
        process = await _start_gateway(Path(folder), server.sockets[0].getsockname()[1])
        try:
            assert process.stdout is not None
            url = urlsplit((await asyncio.wait_for(process.stdout.readline(), 60)).split()[1].decode())
            await _call(url, upstream)  # a small one first: what is loaded late is loaded now
            idle = rss(process.pid)
            upstream.size, upstream.secrets, upstream.sent_last = size, secrets, False
            seen = await _call(url, upstream)
            peak = rss(process.pid, "VmHWM")
        finally:
            process.terminate()
            await process.wait()
            server.close()
    return Figures(seen, idle, peak, secrets)


async def _start_gateway(folder: Path, port: int) -> asyncio.subprocess.Process:
    document = {
        "listen": {"port": 0},
        "admin": {"port": 0},
        "upstreams": {"up": {"url": f"http://127.0.0.1:{port}/mcp"}},
        "clients": {"anybody": {}},
        "policies": {"default": {"allowed_upstreams": ["*"], "allowed_tools": ["*"], "require_auth": False}},
        "audit": {"path": str(folder / "audit.jsonl")},
        "logging": {"level": "error"},
    }
    config = folder / "gateway.yaml"
    config.write_text(json.dumps(document))
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", "from gateway.cli import main; main()", "serve", "--config", str(config),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL, cwd=folder,
    )  # fmt: skip


async def _call(url: SplitResult, upstream: Upstream) -> Seen:
    """The call, and what the client sees of its answer."""
    reader, writer = await asyncio.open_connection(url.hostname, url.port, limit=BLOCK)
    try:
        begin = time.perf_counter()
        writer.write(
            b"POST %b HTTP/1.1\r\nHost: %b\r\nContent-Type: application/json\r\n"
            b"Accept: application/json, text/event-stream\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b"
            % (url.path.encode(), url.netloc.encode(), len(CALL), CALL)
        )
        total = redacted = leaked = 0
        kept = b""
        first = 0.0
        before_last = False
        while data := await reader.read(BLOCK):
            if not total:
                first = time.perf_counter() - begin
                before_last = not upstream.sent_last
            total += len(data)
            text = kept + data
            redacted += text.count(MARK)
            leaked += text.count(TOKEN[:12])
            kept = text[1 - len(TOKEN[:12]) :]
            marked = text.rfind(b"[redacted")
            if marked >= 0 and len(text) - marked < len(MARK):
                kept = text[marked:]
        whole = kept.endswith(b"0\r\n\r\n")
        return Seen(total, time.perf_counter() - begin, first, before_last, redacted, leaked, whole)
    finally:
        writer.close()


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--size", type=size, default=size("1GiB"), help="bytes of the result, such as 64MiB or 1GiB")
    parser.add_argument("--secrets", type=int, default=100, help="tokens in it")
    parser.add_argument("--sse", action="store_true", help="as an event instead of a JSON body")
    options = parser.parse_args()
    figures = asyncio.run(measure(options.size, options.secrets, sse=options.sse))
    seen = figures.seen
    print(f"{format_size(options.size)} as {'an event' if options.sse else 'JSON'}")
    print(f"throughput    {seen.size / seen.seconds / 1e6:.0f} MB/s")
    print(f"first byte    {1000 * seen.first_byte:.1f} ms, before the last was sent: {seen.first_before_last}")
    print(f"memory        idle {figures.idle_rss / 2**20:.1f} MiB, at most {figures.peak_rss / 2**20:.1f} MiB: "
          f"{(figures.peak_rss - figures.idle_rss) / 2**20:+.1f}")  # fmt: skip
    print(f"redacted      {seen.redacted} of {figures.secrets}, leaked {seen.leaked}, whole {seen.whole}")
    sys.exit(seen.redacted != figures.secrets or seen.leaked or not seen.whole)


if __name__ == "__main__":
    main()
