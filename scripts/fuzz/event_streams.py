"""Server-sent events: any cutting gives the frames that the standard gives, and every byte is in one of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

from gateway.wire.errors import PeerError
from gateway.wire.sse import Decoder, Frame, comment, encode, with_id

from .damage import damaged
from .reference import blocks
from .seeds import corpus
from .target import Target, choices, cut

__all__ = ["EventStreams"]

_BOM = b"\xef\xbb\xbf"
_TOKENS = (
    b"\n", b"\n\n", b"\r", b"\r\n", b"\r\r", b"\r\n\r\n", b"\n\r", b"\r\n\n", b":", b": ", b"data", b"data:",
    b"data: ", b"event: message\n", b"id: 1\n", b"id: a\0b\n", b"id\n", b"retry: 5\n", b"retry: 99999999999999999\n",
    b"retry: -1\n", "retry: \u0661\n".encode(), b"Data: x\n", b" data: x\n", b"\0", _BOM, "\u2028".encode(),
    "\u0085".encode(), b"\x0b", b"\x0c", b"\x1c", b"x" * 120,
)  # fmt: skip
_LINES = (
    b"data: {}", b"data:{}", b"data", b"data:", b"data:  x ", b'data: {"jsonrpc":"2.0","id":7,"result":{}}',
    b"event: message", b"event:message", b"event", b"event: x", b"id: 7", b"id", b"id: a\0b", b"retry: 3000",
    b"retry: x", b"retry", b": ping", b":", b"::", b"DATA: x", b"other: x", b"other", b"data : x", b" data: x",
    b"data: " + b"x" * 70, "data: é\u2028漢".encode(), b"data: \xff", b"data: a\x0bb\x0cc",
)  # fmt: skip
_ENDS = (b"\n", b"\n", b"\n", b"\r\n", b"\r\n", b"\r")


class EventStreams(Target):
    """``make_decoder`` makes a ``Decoder``, or another one that is to be caught."""

    name = "sse"
    invariant = (
        "any cutting of a stream gives the frames and the verdict that a plain reading of the WHATWG standard gives, "
        "the raw parts add up to the stream, and what is encoded is decoded"
    )

    def __init__(self, make_decoder: Callable[[int, int], Decoder] = Decoder) -> None:
        super().__init__()
        self._make_decoder = make_decoder

    def make(self, source: random.Random) -> bytes:
        if source.random() < 0.15:
            stream = source.choice(corpus("sse"))
        else:
            end = source.choice(_ENDS)
            parts = [_BOM] if source.random() < 0.1 else []
            for _ in range(source.randint(0, 14)):
                if source.random() < 0.1:
                    end = source.choice(_ENDS)
                parts.append((b"" if source.random() < 0.35 else source.choice(_LINES)) + end)
            stream = b"".join(parts)
        return damaged(stream, source, _TOKENS) if source.random() < 0.5 else stream

    def check(self, data: bytes) -> None:
        source = choices(data)
        bounds = (1 << 20, 1 << 20) if source.random() < 0.7 else (source.randint(5, 90), source.randint(5, 160))
        expected, exceeds = blocks(data, *bounds)
        self.counts["exceeds" if exceeds else "frames" if expected else "no frame"] += 1
        for pieces in ([data], cut(data, source), cut(data, source)):
            frames, is_broken = self._decode(data, pieces, bounds)
            assert [_spelled(frame) for frame in frames] == [block.spelled for block in expected], frames
            assert is_broken == exceeds, "the bounds are kept differently"
        if not exceeds:
            for frame in self._make_decoder(*bounds).feed(data):
                self._check_writing(frame)

    def _decode(self, data: bytes, pieces: Iterable[bytes], bounds: tuple[int, int]) -> tuple[list[Frame], bool]:
        decoder = self._make_decoder(*bounds)
        frames: list[Frame] = []
        try:
            for piece in pieces:
                frames += decoder.feed(piece)
            rest = decoder.rest
            decoder.close()
        except PeerError as error:
            assert error is decoder.error, "an error that does not stay"
            return frames, True
        whole = b"".join(frame.raw for frame in frames) + rest
        assert whole in (data, data.removeprefix(_BOM)), "the raw parts are not the stream"
        return frames, False

    def _check_writing(self, frame: Frame) -> None:
        """What is made of a frame is read as it was meant."""
        if frame.data is not None:
            text = frame.data.replace(b"\r", b"\n")
            again = self._make_decoder(1 << 20, 1 << 20).feed(
                comment(b"x") + encode(frame.data, event=frame.event, id=frame.id, retry=frame.retry)
            )
            assert [_spelled(each)[:4] for each in again[1:]] == [(text, frame.event, frame.id, frame.retry)], again
        if frame.id is not None and not frame.raw.startswith(_BOM):
            [other] = self._make_decoder(1 << 20, 1 << 20).feed(with_id(frame, b"new"))
            assert other.id == b"new", "the id was not replaced"
            assert _without_id(other) == _without_id(frame), "more than the id was replaced"


def _spelled(frame: Frame) -> tuple[object, ...]:
    return frame.data, frame.event, frame.id, frame.retry, frame.comments, frame.unknown


def _without_id(frame: Frame) -> tuple[object, ...]:
    return frame.data, frame.event, frame.retry, frame.comments, frame.unknown
