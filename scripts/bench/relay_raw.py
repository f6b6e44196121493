"""A relay of bytes without rules, on asyncio's protocols alone: the ceiling of what a Python process can do here.

    relay_raw.py PORT UPSTREAM_PORT

Requests and answers are framed by hand and passed on as they are; connections to the upstream are kept.
"""

from __future__ import annotations

import asyncio
import gc
import re
import sys

import uvloop

LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
CHUNKED = re.compile(rb"\r\ntransfer-encoding:[ \t]*chunked", re.IGNORECASE)
IDLE: list[Upstream] = []


class Framing:
    """Finds the end of one message in its bytes."""

    __slots__ = ("chunked", "left", "line")

    def __init__(self) -> None:
        self.chunked = False
        self.left = 0  # bytes of the body or of the chunk with its line end
        self.line = b""  # a chunk's size line that is not complete

    def begin(self, head: bytes) -> None:
        length = LENGTH.search(head)
        self.chunked = length is None and CHUNKED.search(head) is not None
        self.left = int(length[1]) if length else 0
        self.line = b""

    def is_complete(self, data: bytes, at: int = 0) -> bool:
        """Whether the message ends with these bytes, of which the body's begin at ``at``."""
        if not self.chunked:
            self.left -= len(data) - at
            return self.left <= 0
        if self.line:
            data, at = self.line + data[at:], 0
            self.line = b""
        size = len(data)
        while True:
            if self.left:
                taken = min(self.left, size - at)
                self.left -= taken
                at += taken
            if at >= size:
                return False
            end = data.find(b"\r\n", at)
            if end < 0:
                self.line = data[at:]
                return False
            length = int(data[at:end], 16)
            if length == 0:
                return True
            at = end + 2
            self.left = length + 2


class Client(asyncio.Protocol):
    """A client's connection."""

    __slots__ = ("begun", "framing", "transport", "upstream")

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self.framing = Framing()
        self.upstream: Upstream | None = None
        self.begun = b""

    def data_received(self, data: bytes) -> None:
        if self.upstream is not None:
            self.upstream.send(data)
            return
        if self.begun:
            data = self.begun + data
            self.begun = b""
        end = data.find(b"\r\n\r\n")
        if end < 0:
            self.begun = data
            return
        self.upstream = IDLE.pop() if IDLE else Upstream()
        self.upstream.serve(self, data)

    def pause_writing(self) -> None:
        if self.upstream is not None and self.upstream.transport is not None:
            self.upstream.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.upstream is not None and self.upstream.transport is not None:
            self.upstream.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.upstream is not None:
            self.upstream.abandon()


class Upstream(asyncio.Protocol):
    """A connection to the server, for one client at a time."""

    __slots__ = ("begun", "client", "framing", "in_body", "transport", "unsent")

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.client: Client | None = None
        self.framing = Framing()
        self.in_body = False
        self.unsent = b""
        self.begun = b""

    def serve(self, client: Client, data: bytes) -> None:
        self.client = client
        self.in_body = False
        if self.transport is None:
            self.unsent = data
            connecting = asyncio.ensure_future(LOOP.create_connection(lambda: self, "127.0.0.1", UPSTREAM_PORT))
            connecting.add_done_callback(self.connected)
        else:
            self.transport.write(data)

    def connected(self, task: asyncio.Future[object]) -> None:
        if task.exception() is not None and self.client is not None:
            self.client.transport.abort()

    def send(self, data: bytes) -> None:
        if self.transport is None:
            self.unsent += data
        else:
            self.transport.write(data)

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        if self.client is None:
            transport.abort()
        else:
            transport.write(self.unsent)
            self.unsent = b""

    def data_received(self, data: bytes) -> None:
        client = self.client
        if client is None:
            return
        if self.in_body:
            client.transport.write(data)
            complete = self.framing.is_complete(data)
        else:
            if self.begun:
                data = self.begun + data
                self.begun = b""
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self.begun = data
                return
            client.transport.write(data)
            self.framing.begin(data[: end + 2])
            self.in_body = True
            complete = self.framing.is_complete(data, end + 4)
        if complete:
            self.client = client.upstream = None
            IDLE.append(self)

    def abandon(self) -> None:
        self.client = None
        if self.transport is not None:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self in IDLE:
            IDLE.remove(self)
        if self.client is not None:
            self.client.transport.close()


async def main(port: int) -> None:
    global LOOP
    LOOP = asyncio.get_running_loop()
    server = await LOOP.create_server(Client, "127.0.0.1", port, backlog=1024)
    gc.collect()
    gc.freeze()
    await server.serve_forever()


if __name__ == "__main__":
    UPSTREAM_PORT = int(sys.argv[2])
    uvloop.run(main(int(sys.argv[1])))
