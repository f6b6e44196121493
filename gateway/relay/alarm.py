"""A deadline that moves with every step of an exchange, without a task and nearly without a timer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["Alarm"]


class Alarm:
    """A timer that is set for every step and so must cost nothing: the loop's own timer is only armed for an earlier
    time than it already waits for, and looks what is due when it fires."""

    __slots__ = ("_call", "_due", "_handle", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._due: float | None = None
        self._call: Callable[[], None] | None = None
        self._handle: asyncio.TimerHandle | None = None

    def set(self, due: float, call: Callable[[], None]) -> None:
        """Call once at that time of the loop's clock, instead of what was set before."""
        self._due, self._call = due, call
        if self._handle is None or self._handle.when() > due:
            self._arm(due)

    def clear(self) -> None:
        """Nothing is due."""
        self._due = self._call = None

    def close(self) -> None:
        """Nothing is due, ever."""
        self.clear()
        if self._handle is not None:
            self._handle.cancel()

    def _arm(self, due: float) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._handle = self._loop.call_at(due, self._fire)

    def _fire(self) -> None:
        self._handle = None
        due, call = self._due, self._call
        if due is None or call is None:
            return
        if self._loop.time() < due:
            self._arm(due)
        else:
            self.clear()
            call()
