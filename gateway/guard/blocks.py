"""Text that a message hands over in pieces: a client shows the blocks of a result one after the other."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator
from typing import Any

from .edit import Place

__all__ = ["Joined", "join"]

# Of a long block only so much at either end takes part: less than this is any secret, keys of 2,048 bits included.
_EDGE = 2048
# Stands for what is left out; no rule matches across it.
_GAP = "\n|\n"
# Where blocks are: of a result, of a resource, of a prompt or of what a server has a model asked.
_MEMBERS = ("content", "contents", "messages")


class Joined:
    """The edges of successive texts as one text, and where in the message its parts are."""

    __slots__ = ("_pieces", "text")

    def __init__(self, pieces: list[tuple[Place, str]]) -> None:
        self._pieces = pieces
        self.text = "".join(
            [text if len(text) <= 2 * _EDGE else text[:_EDGE] + _GAP + text[-_EDGE:] for _, text in pieces]
        )

    def parts(self, spans: Iterable[tuple[int, int]]) -> Iterator[list[tuple[Place, int, int]]]:
        """For each stretch of the text, in order: of each block in it the place, and where in the block it is."""
        starts: list[int] = []
        origins: list[tuple[Place, int]] = []
        size = 0
        for place, text in self._pieces:
            starts.append(size)
            origins.append((place, 0))
            if len(text) > 2 * _EDGE:
                starts.append(size + _EDGE + len(_GAP))
                origins.append((place, len(text) - _EDGE))
                size += 2 * _EDGE + len(_GAP)
            else:
                size += len(text)
        starts.append(size)
        for start, end in spans:
            found = []
            index = bisect.bisect_right(starts, start) - 1
            while index < len(origins) and starts[index] < end:
                place, origin = origins[index]
                first, last = max(start, starts[index]), min(end, starts[index + 1])
                if first < last:
                    found.append((place, origin + first - starts[index], origin + last - starts[index]))
                index += 1
            yield found


def join(document: dict[str, Any]) -> Joined | None:
    """The texts of successive blocks - content of a result, contents of a resource, messages of a prompt - joined.

    None where there are less than two.  Blocks without text, such as images between two texts, do not separate them.
    """
    name = "result"
    body = document.get(name)
    if type(body) is not dict:
        name = "params"
        body = document.get(name)
        if type(body) is not dict:
            return None
    pieces: list[tuple[Place, str]] = []
    for member in _MEMBERS:
        blocks = body.get(member)
        if type(blocks) is list and (len(blocks) > 1 or member == "messages"):
            for index, block in enumerate(blocks):
                if type(block) is dict:
                    text = block.get("text")
                    if type(text) is str:
                        pieces.append(((name, member, index, "text"), text))
                    else:
                        _gather(block, (name, member, index), pieces)
    return Joined(pieces) if len(pieces) > 1 else None


def _gather(block: dict[str, Any], place: Place, pieces: list[tuple[Place, str]]) -> None:
    # An embedded resource, or what a message of a prompt or a sampling request says: one block, or some.
    for member in ("resource", "content"):
        inner = block.get(member)
        if type(inner) is str:
            pieces.append(((*place, member), inner))
        blocks = [((*place, member), inner)]
        if type(inner) is list:
            blocks = [((*place, member, index), entry) for index, entry in enumerate(inner)]
        for where, entry in blocks:
            if type(entry) is dict and type(entry.get("text")) is str:
                pieces.append(((*where, "text"), entry["text"]))
