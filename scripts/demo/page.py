"""Prints the tour: headings, lines, tables.  Colours on a terminal, plain text elsewhere, never wider than 100."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from typing import TextIO

__all__ = ["Page"]

_COLOURS = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}


class Page:
    """A stream that the tour is printed on."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = sys.stdout if stream is None else stream
        self.is_terminal = self.stream.isatty()
        self.colours = self.is_terminal and "NO_COLOR" not in os.environ
        self.width = min(100, shutil.get_terminal_size((100, 24)).columns)

    def paint(self, text: str, colour: str) -> str:
        """``text`` in a colour, where there are any."""
        return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if self.colours else text

    def heading(self, word: str, explanation: str) -> None:
        """Begins a part of the tour."""
        self.line()
        self.line(f"{self.paint(word, 'bold')}  {self.paint(explanation, 'dim')}")

    def line(self, text: str = "") -> None:
        """One line as it is; whoever makes it keeps it short."""
        print(text, file=self.stream, flush=True)

    def said(self, label: str, text: str, colour: str | None = None) -> None:
        """A label and what belongs to it, wrapped."""
        lines = textwrap.wrap(text, self.width - 16, break_on_hyphens=False) or [""]
        for number, part in enumerate(lines):
            head = f"{label:<12}" if number == 0 else " " * 12
            self.line(f"  {self.paint(head, 'cyan')}  {self.paint(part, colour) if colour else part}")
