"""Performs the steps of a script on a connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

from ..wire import sse
from .connection import Connection, cut
from .script import (
    Chunk,
    Close,
    Comment,
    End,
    Event,
    Hang,
    Head,
    Json,
    Repeat,
    Reset,
    Send,
    Signal,
    SplitAt,
    Step,
    Steps,
    Wait,
    WaitFor,
    answer_bytes,
    chunk_bytes,
    event_bytes,
    head_bytes,
)

__all__ = ["Player", "Signals"]

FLOOD_WRITE = 64 * 1024


class Signals:
    """Named events between a test and its scripts.  Each wait ends after ``patience`` seconds with TimeoutError."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._events: dict[str, asyncio.Event] = {}

    def __getitem__(self, name: str) -> asyncio.Event:
        return self._events.setdefault(name, asyncio.Event())

    async def wait(self, name: str) -> None:
        """Until ``name`` is signalled."""
        await self.patiently(self[name], f"the signal {name!r}")

    async def patiently(self, event: asyncio.Event, what: str) -> None:
        """Until the event; ``what`` is named in the TimeoutError."""
        try:
            async with asyncio.timeout(self._patience):
                await event.wait()
        except TimeoutError:
            raise TimeoutError(f"waited {self._patience} s for {what}") from None


class Player:
    """Performs steps on one connection.  It knows whether the last head was chunked, and how to split."""

    def __init__(self, connection: Connection, signals: Signals) -> None:
        self._connection = connection
        self._signals = signals
        self._chunked = True
        self._split: SplitAt | None = None

    async def play(self, steps: Steps) -> None:
        """All steps in order.  Raises ConnectionError when the peer is gone."""
        if isinstance(steps, AsyncIterator):
            try:
                async for step in steps:
                    await self.perform(step)
            finally:
                if isinstance(steps, AsyncGenerator):
                    await steps.aclose()
        else:
            for step in steps:
                await self.perform(step)

    async def perform(self, step: Step) -> None:
        """One step."""
        match step:
            case Wait(seconds):
                await asyncio.sleep(seconds)
            case WaitFor(name):
                await self._signals.wait(name)
            case Signal(name):
                self._signals[name].set()
            case Hang():
                await self._signals.patiently(self._connection.gone, "the peer to go")
            case Close(half):
                if half:
                    self._connection.send_fin()
                else:
                    await self._connection.close()
            case Reset():
                await self._connection.reset()
            case SplitAt():
                self._split = step if step.sizes or step.every else None
            case Repeat(inner, times):
                await self._repeat(self._bytes(inner), times)
            case _:
                await self._write(self._bytes(step))

    def _bytes(self, step: Send | Head | Chunk | Event | Comment | Json | End) -> bytes:
        match step:
            case Send(data):
                return data
            case Head():
                self._chunked = step.chunked
                return head_bytes(step)
            case Json():
                return answer_bytes(step)
            case Chunk(data):
                return chunk_bytes(data)
            case End():
                return b"0\r\n\r\n"
            case Event():
                return self._framed(event_bytes(step))
            case Comment(text):
                return self._framed(sse.comment(text.encode()))

    def _framed(self, data: bytes) -> bytes:
        return chunk_bytes(data) if self._chunked else data

    async def _repeat(self, data: bytes, times: int) -> None:
        at_once = max(1, FLOOD_WRITE // max(1, len(data)))
        block = data * at_once
        while times > 0:
            await self._write(block if times >= at_once else data * times)
            times -= at_once
            await asyncio.sleep(0)

    async def _write(self, data: bytes) -> None:
        split = self._split
        if split is None:
            await self._connection.write(data)
        else:
            await self._connection.write_pieces(cut(data, split.sizes, split.every), split.pause)
