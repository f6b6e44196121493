"""An HTTP/1.1 server on loopback that does what a script says, right or wrong, and remembers all that it was sent.

It is no web server: it sends broken HTTP as readily as good HTTP, and it notices to the moment when a peer leaves.
Every wait is bounded by ``patience``; leaving the ``async with`` block ends every task and socket.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Self

from .connection import Connection
from .http1 import BadHttp, Body, read_head
from .player import Player, Signals
from .script import Answer, Received, Script, Step, Steps, answer_with, error_answer, status_answer

__all__ = ["ScriptedUpstream", "unused_port"]

HOST = "127.0.0.1"
MAX_BODY = 256 * 1024 * 1024


def unused_port() -> int:
    """A loopback port that refuses connections.  Nothing reserves it: ask again for each test."""
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        return int(sock.getsockname()[1])


class ScriptedUpstream:
    """``async with ScriptedUpstream(script) as upstream``: a peer at ``upstream.url``.

    ``script``      a callable ``(Received) -> steps`` (an iterable or an async iterator), or a mapping from JSON-RPC
                    method to such a callable or to plain steps.  Mapping keys: a method; "GET", "DELETE"; "response"
                    for a posted JSON-RPC response; "*" for the rest.  What a mapping leaves out is answered as a bare
                    server would: 202 for notifications and responses, -32601 for requests, 405 for GET and DELETE.
    ``on_connect``  steps that run before the first request of a connection is read
    ``on_head``     called with each request before its body is read; steps that it returns are the whole answer.  After
                    them the body is read and thrown away, and the connection ends.  None goes on as usual.
    ``half_open``   a peer's FIN does not end the script (by default it does, as with most servers)
    ``patience``    seconds that WaitFor, Hang and the awaitables of this class wait at most
    ``send_buffer`` ``receive_buffer``  SO_SNDBUF and SO_RCVBUF in bytes: small ones make back-pressure come early

    ``requests``    all complete requests, in the order of their last byte;  ``incomplete`` those cut short or answered
                    by ``on_head``;  ``malformed`` what was not HTTP
    ``connections`` one :class:`Connection` each, also after its end
    ``errors``      exceptions that scripts raised; the first is raised when the block ends
    """

    def __init__(
        self,
        script: Script,
        *,
        path: str = "/mcp",
        port: int = 0,
        on_connect: Iterable[Step] = (),
        on_head: Callable[[Received], Steps | None] | None = None,
        half_open: bool = False,
        patience: float = 30.0,
        send_buffer: int | None = None,
        receive_buffer: int | None = None,
    ) -> None:
        self.requests: list[Received] = []
        self.incomplete: list[Received] = []
        self.malformed: list[BadHttp] = []
        self.connections: list[Connection] = []
        self.errors: list[BaseException] = []
        self._script = script
        self._path = path
        self._port = port
        self._on_connect = tuple(on_connect)
        self._on_head = on_head
        self._half_open = half_open
        self._patience = patience
        self._buffers = ((socket.SO_SNDBUF, send_buffer), (socket.SO_RCVBUF, receive_buffer))
        self._signals = Signals(patience)
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._playing: set[int] = set()
        self._open: set[int] = set()
        self._changed = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._stopped = False

    # -- life ---------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        sock = socket.socket()
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            for option, size in self._buffers:
                if size is not None:
                    sock.setsockopt(socket.SOL_SOCKET, option, size)
            sock.bind((HOST, self._port))
            self._server = await asyncio.get_running_loop().create_server(self._accept, sock=sock)
        except BaseException:
            sock.close()
            raise
        self._port = sock.getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()
        # A script that is itself wrong must fail its test, but not hide the test's own failure.
        if self.errors and error is None:
            raise self.errors[0]

    async def stop(self) -> None:
        """Stops listening, ends every script and closes every connection, as the end of a process does.  Safe to call
        again."""
        self._stopped = True
        if self._server is not None:
            self._server.close()
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks.clear()
        for connection in self.connections:
            await connection.close()
        if self._server is not None:
            await self._server.wait_closed()

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._port

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        return f"http://{HOST}:{self._port}"

    @property
    def url(self) -> str:
        """The MCP endpoint."""
        return self.origin + self._path

    # -- what tests ask -----------------------------------------------------------------------------------------------

    @property
    def connections_made(self) -> int:
        """Connections accepted so far."""
        return len(self.connections)

    @property
    def open_connections(self) -> int:
        """Connections that neither end has closed."""
        return len(self._open)

    @property
    def bytes_sent(self) -> int:
        """Bytes that the kernel took, over all connections."""
        return sum(connection.bytes_sent for connection in self.connections)

    async def connected(self, count: int = 1) -> Connection:
        """The ``count``-th connection (from 1), as soon as it is made."""
        await self._until(lambda: len(self.connections) >= count, f"connection {count}")
        return self.connections[count - 1]

    async def received(self, count: int = 1) -> Received:
        """The ``count``-th complete request (from 1), as soon as it is there."""
        await self._until(lambda: len(self.requests) >= count, f"request {count}")
        return self.requests[count - 1]

    async def closed(self, number: int) -> float:
        """When the peer closed connection ``number`` (from 0); waits for it.  RuntimeError if this end closed it."""
        connection = await self.connected(number + 1)
        await self._until(lambda: not connection.open, f"the end of connection {number}")
        if connection.left is None:
            raise RuntimeError(f"connection {number} was closed by the upstream itself")
        return connection.left

    async def idle(self) -> None:
        """Until no script runs."""
        await self._until(lambda: not self._playing, "the end of all answers")

    async def deserted(self) -> None:
        """Until no connection is open."""
        await self._until(lambda: not self.open_connections, "the end of all connections")

    def signal(self, name: str) -> None:
        """Lets every ``WaitFor(name)`` go on, now and later."""
        self._signals[name].set()

    def clear(self, name: str) -> None:
        """Makes ``WaitFor(name)`` wait again."""
        self._signals[name].clear()

    async def signalled(self, name: str) -> None:
        """Until a script signals ``name``."""
        await self._signals.wait(name)

    async def inject(self, steps: Iterable[Step], connection: int = -1) -> None:
        """Runs steps on a connection (the newest by default) beside its script: bytes that nobody asked for."""
        await Player(self.connections[connection], self._signals).play(steps)

    # -- connections --------------------------------------------------------------------------------------------------

    def _accept(self) -> Connection:
        # Reading far ahead lets a FIN be noticed while a script runs and requests are waiting.
        return Connection(read_ahead=1024 * 1024, on_open=self._opened, on_change=self._connection_changed)

    def _opened(self, connection: Connection) -> None:
        connection.number = len(self.connections)
        self.connections.append(connection)
        if self._stopped:  # accepted before, but asyncio says so only now
            connection.abort()
            return
        self._open.add(connection.number)
        self._tasks[connection.number] = asyncio.get_running_loop().create_task(self._serve(connection))
        self._wake()

    def _connection_changed(self, connection: Connection) -> None:
        if connection.left is not None and not self._half_open and connection.number in self._playing:
            self._tasks[connection.number].cancel()
        if not connection.open:
            self._open.discard(connection.number)
        self._wake()

    async def _serve(self, connection: Connection) -> None:
        try:
            await self._play(connection, self._on_connect)
            while not connection.ended and await self._serve_request(connection):
                pass
        except BadHttp as error:
            self.malformed.append(error)
        except ConnectionError:
            pass  # The peer left, which the connection itself remembers.
        except asyncio.CancelledError:
            if connection.left is None:
                raise
        except Exception as error:
            self.errors.append(error)
        finally:
            await connection.close()
            self._tasks.pop(connection.number, None)
            self._wake()

    async def _serve_request(self, connection: Connection) -> bool:
        """Reads and answers one request; False when the connection must end after it."""
        if not await connection.wait_readable():
            return False
        head = await read_head(connection)
        method, target, _version = head.start
        received = Received(method, target, head.headers, b"", connection.number, connection.taken, False, head.raw)
        body = Body(connection, head.headers, until_close=False)
        early = None if self._on_head is None else self._on_head(received)
        if early is not None:
            self.incomplete.append(received)
            await self._play(connection, early)
            # Closing on unread bytes would send RST, and the answer could be lost with it.
            while not connection.ended and await body.piece():
                pass
            return False
        parts: list[bytes] = []
        size = 0
        try:
            while piece := await body.piece():
                parts.append(piece)
                size += len(piece)
                if size > MAX_BODY:
                    raise BadHttp("a request body beyond every bound", head.raw)
        except BaseException:
            self.incomplete.append(replace(received, body=b"".join(parts)))
            raise
        received = replace(received, body=b"".join(parts), complete=True)
        self.requests.append(received)
        self._wake()
        await self._play(connection, self._answer(received)(received))
        return True

    def _answer(self, received: Received) -> Answer:
        if not isinstance(self._script, Mapping):
            return self._script
        key: str | None = received.method if received.method != "POST" else received.rpc_method
        if key is None and isinstance(received.message, dict):
            key = "response"
        found = self._script.get(key or "*", self._script.get("*"))
        if found is not None:
            return found if callable(found) else answer_with(*found)
        if received.method != "POST":
            return status_answer(405, headers={"Allow": "POST"})
        if received.rpc_method is None or received.id is None:
            return status_answer(202)
        return error_answer(-32601, "the script has no such method")

    async def _play(self, connection: Connection, steps: Steps) -> None:
        if connection.left is not None and not self._half_open:
            return
        self._playing.add(connection.number)
        self._wake()
        try:
            await Player(connection, self._signals).play(steps)
        finally:
            self._playing.discard(connection.number)
            self._wake()

    # -- waiting ------------------------------------------------------------------------------------------------------

    def _wake(self) -> None:
        self._changed.set()

    async def _until(self, condition: Callable[[], bool], what: str) -> None:
        # One event for all changes: a test waits for few things at once, and a missed wake-up cannot happen.
        try:
            async with asyncio.timeout(self._patience):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise TimeoutError(f"waited {self._patience} s for {what}") from None
