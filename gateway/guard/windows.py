"""Judging a result that is too large to hold: what a hook can do about it, and who can.

An answer beyond ``limits.inline_message`` is let out while it arrives, if every hook that its method selects agrees.
A hook agrees with a method ``windows(message, exchange)``, which is asked once, when the answer has begun; ``message``
has its envelope, but nothing of the result's contents.  It returns

- ``PASS`` when the contents are none of its business.  It is then asked as ever, with ``on_message``, before the
  answer's last byte is let out.  What it sees is an outline: of ``result`` only those members that say what kind of
  result it is (``resultType``, ``inputRequests``, ``requestState``, ``task``, ``taskId``);
- a :class:`Windows`, which gets the contents piece by piece and gives back what may be seen of them;
- None when it has to see the whole.

A hook without that method has to see the whole, and so has one that is asynchronous or in the shadow.  Such an answer
is held up to ``limits.max_message_size`` and refused beyond.

Pieces are JSON text as it came, and strict: they have been read before.  What a hook does not change leaves byte for
byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..wire.incremental import Container, OpenString
from .hook import Block

__all__ = ["InTurn", "LongText", "Unchanged", "Windows", "Withheld"]


class Withheld(Exception):
    """Nothing more of the answer may pass.  ``verdict`` says why."""

    def __init__(self, verdict: Block) -> None:
        super().__init__(verdict.error.reason)
        self.verdict = verdict


class LongText(Protocol):
    """One string that is too long to hold."""

    def feed(self, raw: bytes, final: bool) -> bytes:
        """The string's next bytes, whole characters and escapes, without its quotes; ``final`` when it ends with them.
        Returns what may be seen now, as JSON text too, and keeps what depends on what follows.  Raises Withheld."""
        ...


class Windows(Protocol):
    """Judges the contents of one answer."""

    def block(self, raw: bytes, container: Container, *, in_name: bool) -> bytes:
        """A part of the document that cuts no string, and no member before its value begins.  Returns what is let out
        instead; all of it.  Raises Withheld.

        ``container`` is what is open where it begins, ``in_name`` whether a name comes next if that is an object.
        """
        ...

    def text(self, container: Container, string: OpenString) -> LongText:
        """A string begins that is too long to hold."""
        ...


class Unchanged:
    """For answers at whose contents nobody looks."""

    def block(self, raw: bytes, container: Container, *, in_name: bool) -> bytes:
        """As it came."""
        return raw

    def text(self, container: Container, string: OpenString) -> LongText:
        """As it comes."""
        return self

    def feed(self, raw: bytes, final: bool) -> bytes:
        """As it comes."""
        return raw


class InTurn:
    """Several hooks, in order: each gets what those before it let out."""

    def __init__(self, judges: Sequence[Windows]) -> None:
        self._judges = tuple(judges)

    def block(self, raw: bytes, container: Container, *, in_name: bool) -> bytes:
        """As for every Windows."""
        for judge in self._judges:
            raw = judge.block(raw, container, in_name=in_name)
        return raw

    def text(self, container: Container, string: OpenString) -> LongText:
        """As for every Windows."""
        return _TextInTurn([judge.text(container, string) for judge in self._judges])


class _TextInTurn:
    """One long string, before several hooks."""

    def __init__(self, texts: Sequence[LongText]) -> None:
        self._texts = tuple(texts)

    def feed(self, raw: bytes, final: bool) -> bytes:
        """As for every LongText."""
        for text in self._texts:
            raw = text.feed(raw, final)
        return raw
