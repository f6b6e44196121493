"""The same rules, written again in the plainest way and slowly: what the gateway's readers are compared with."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from typing import Any

from gateway.wire.names import PROTOCOL_NAMES
from gateway.wire.strict import Limits, Twins

__all__ = ["Block", "Refused", "blocks", "read_json"]


class Refused(Exception):
    """The text is not JSON that may pass."""


def read_json(data: bytes, limits: Limits, twins: Twins) -> Any:
    """What ``strict.parse`` has to make of ``data``, with the standard library alone.  Raises Refused."""

    def integer(text: str) -> int:
        if len(text) > limits.number_chars:
            raise Refused("number-length")
        return int(text)

    def fraction(text: str) -> float:
        if len(text) > limits.number_chars:
            raise Refused("number-length")
        value = float(text)
        if math.isinf(value):
            raise Refused("not-finite")
        return value

    def constant(text: str) -> float:
        raise Refused(text)

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        if len(set(names)) < len(names):
            raise Refused("duplicate-member")
        folded = [name.replace("\u0130", "i").replace("\u0131", "i").casefold() for name in names]
        for name in set(folded):
            if folded.count(name) > 1 and (twins is Twins.ANY or name in PROTOCOL_NAMES):
                raise Refused("folded-member")
        if any("\0" in name for name in names):
            raise Refused("nul-member")
        return dict(pairs)

    try:
        text = data.decode("utf-8")
        document = json.loads(
            text, parse_int=integer, parse_float=fraction, parse_constant=constant, object_pairs_hook=members
        )
        _measure(document, limits)
        json.dumps(document, ensure_ascii=False).encode("utf-8")  # UnicodeEncodeError for half a surrogate pair
    except (ValueError, RecursionError) as error:
        raise Refused(str(error)) from None
    return document


def _measure(document: Any, limits: Limits) -> None:
    nodes, depth, level = 0, 0, [document]
    while level:
        nodes += len(level)
        containers = [value for value in level if isinstance(value, dict | list)]
        depth += bool(containers)
        level = [each for value in containers for each in (value.values() if isinstance(value, dict) else value)]
    if depth > limits.depth:
        raise Refused("depth")
    if nodes > limits.nodes:
        raise Refused("nodes")


@dataclass
class Block:
    """What stands between two blank lines of an event stream, read as the WHATWG standard says."""

    data: list[bytes] = field(default_factory=list)
    event: bytes | None = None
    id: bytes | None = None
    retry: int | None = None
    comments: list[bytes] = field(default_factory=list)
    unknown: bool = False

    @property
    def spelled(self) -> tuple[object, ...]:
        """To be compared."""
        data = b"\n".join(self.data) if self.data else None
        return data, self.event, self.id, self.retry, tuple(self.comments), self.unknown


def blocks(stream: bytes, max_line: int, max_event: int) -> tuple[list[Block], bool]:
    """The blocks that are complete, and whether the stream then exceeds one of the bounds."""
    stream = stream.removeprefix(b"\xef\xbb\xbf")
    found: list[Block] = []
    block, begin, at = Block(), 0, 0
    while at < len(stream):
        ended = re.compile(rb"\r\n|\n|\r").search(stream, at)
        line = stream[at : ended.start() if ended else len(stream)]
        is_blank = ended is not None and not line
        if len(line) > max_line or (at if is_blank else ended.end() if ended else len(stream)) - begin > max_event:
            return found, True
        if ended is None:
            break
        at = ended.end()
        if is_blank:
            found.append(block)
            block, begin = Block(), at
        else:
            _read_line(line, block)
    return found, False


def _read_line(line: bytes, block: Block) -> None:
    if line.startswith(b":"):
        block.comments.append(line[2:] if line.startswith(b": ") else line[1:])
        return
    name, _, value = line.partition(b":")
    value = value.removeprefix(b" ")
    if name == b"data":
        block.data.append(value)
    elif name == b"event":
        block.event = value
    elif name == b"id":
        if b"\0" not in value:
            block.id = value
    elif name == b"retry":
        # More than 15 digits are ignored: a departure from the standard.
        if re.fullmatch(rb"[0-9]{1,15}", value):
            block.retry = int(value)
    else:
        block.unknown = True
