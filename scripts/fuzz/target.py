"""What is fuzzed: a target makes inputs from a source of randomness, and checks one property of each."""

from __future__ import annotations

import abc
import random
import traceback
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import ClassVar, Self

__all__ = ["Failure", "Target", "choices", "cut", "smaller"]


@dataclass(frozen=True, slots=True)
class Failure:
    """An input of which the property does not hold.  ``index`` with the seed makes it again; ``input`` may be smaller.

    ``what`` is the exception's own text with its frames.
    """

    target: str
    index: int
    input: bytes
    what: str


class Target(abc.ABC):
    """One property.  Used as a context manager, because some need a folder or a running gateway.

    ``invariant``  the property in one sentence
    ``batch``      how many inputs ``check_all`` is given at a time
    ``tries``      checks that finding a smaller input may cost
    ``counts``     what became of the inputs, so that a run that never got past the first check is seen
    """

    name: ClassVar[str]
    invariant: ClassVar[str]
    batch: ClassVar[int] = 100
    tries: ClassVar[int] = 2_000

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    @abc.abstractmethod
    def make(self, source: random.Random) -> bytes:
        """An input; the same for a source in the same state."""

    @abc.abstractmethod
    def check(self, data: bytes) -> None:
        """Raises whatever it likes when the property does not hold of ``data``.  Depends on nothing else."""

    def input(self, seed: int, index: int) -> bytes:
        """The input of this number."""
        return self.make(random.Random(f"{seed}/{self.name}/{index}"))  # noqa: S311

    def check_all(self, seed: int, indexes: Sequence[int]) -> Failure | None:
        """The first of these inputs that fails, made smaller."""
        for index in indexes:
            data = self.input(seed, index)
            try:
                self.check(data)
            except Exception as error:
                return self.failure(index, data, error)
        return None

    def failure(self, index: int, data: bytes, error: Exception) -> Failure:
        """The smallest input that could be found in a while, and what is wrong with it."""

        def fails(other: bytes) -> bool:
            try:
                self.check(other)
            except Exception as again:
                return _place(again) == _place(error)
            return False

        found = smaller(data, fails, self.tries)
        what = "".join(traceback.format_exception(error, limit=-4, chain=False))
        return Failure(self.name, index, found, what)


def _place(error: BaseException) -> object:
    """What was raised where: an input that fails for another reason is another find."""
    frames = traceback.extract_tb(error.__traceback__)
    return type(error), frames[-1].filename, frames[-1].lineno


def choices(data: bytes) -> random.Random:
    """Randomness that depends on the input alone, for what the check may choose: it fails again when run again."""
    return random.Random(zlib.crc32(data))  # noqa: S311


def cut(data: bytes, source: random.Random) -> Iterator[bytes]:
    """The same bytes in pieces: single bytes, a few, or many at a time."""
    most = source.choice((1, 2, 3, 8, 40, 400))
    at = 0
    while at < len(data):
        end = at + source.randint(1, most)
        yield data[at:end]
        at = end


def smaller(data: bytes, fails: Callable[[bytes], bool], most: int) -> bytes:
    """A part of ``data`` that still fails: without pieces of half its length, then of a quarter, down to single bytes,
    over again until nothing more can be left out or ``most`` were tried."""
    tries = 0
    size = len(data) // 2
    while size:
        at = 0
        shrunk = False
        while at < len(data):
            tries += 1
            if tries > most:
                return data
            without = data[:at] + data[at + size :]
            if fails(without):
                data, shrunk = without, True
            else:
                at += size
        size = min(size, len(data)) if shrunk and size == 1 else size // 2
    return data
