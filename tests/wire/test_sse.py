"""The event stream: bytes in, frames out, in any cutting."""

from __future__ import annotations

import re
from typing import NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.wire.errors import LimitExceeded
from gateway.wire.sse import Decoder, Frame, comment, encode
from tests.wire.documents import CUTS, pieces


def decode(stream: bytes, *, max_line: int = 1 << 20, max_event: int = 1 << 20) -> list[Frame]:
    return Decoder(max_line, max_event).feed(stream)


@pytest.mark.parametrize(
    ("stream", "frame"),
    [
        (b"data: x\n\n", Frame(b"data: x\n\n", b"x")),
        (b"data:x\n\n", Frame(b"data:x\n\n", b"x")),
        (b"data:  x \n\n", Frame(b"data:  x \n\n", b" x ")),
        (b"data: a\ndata:\ndata: b\n\n", Frame(b"data: a\ndata:\ndata: b\n\n", b"a\n\nb")),
        (b"data\n\n", Frame(b"data\n\n", b"")),
        (b"data: \n\n", Frame(b"data: \n\n", b"")),
        (b"event: message\ndata: {}\n\n", Frame(b"event: message\ndata: {}\n\n", b"{}", b"message")),
        (b"event: message\r\ndata: {}\r\n\r\n", Frame(b"event: message\r\ndata: {}\r\n\r\n", b"{}", b"message")),
        (b"event: message\rdata: {}\r\r", Frame(b"event: message\rdata: {}\r\r", b"{}", b"message")),
        (
            b"event: message\r\ndata: a\rb\n\r\n",
            Frame(b"event: message\r\ndata: a\rb\n\r\n", b"a", b"message", unknown=True),
        ),
        (b"event: message\ndata: a\r\n\n", Frame(b"event: message\ndata: a\r\n\n", b"a", b"message")),
        (b"event: a\nevent: b\ndata: x\n\n", Frame(b"event: a\nevent: b\ndata: x\n\n", b"x", b"b")),
        (b"event\ndata: x\n\n", Frame(b"event\ndata: x\n\n", b"x", b"")),
        (b"id: 7\ndata: x\n\n", Frame(b"id: 7\ndata: x\n\n", b"x", id=b"7")),
        (b"id: 7\nid: 8\0\ndata: x\n\n", Frame(b"id: 7\nid: 8\0\ndata: x\n\n", b"x", id=b"7")),
        (b"id\n\n", Frame(b"id\n\n", id=b"")),
        (b"retry: 3000\n\n", Frame(b"retry: 3000\n\n", retry=3000)),
        (b"retry: 3s\n\n", Frame(b"retry: 3s\n\n")),
        (b"retry:\n\n", Frame(b"retry:\n\n")),
        (b"retry: " + b"9" * 5000 + b"\n\n", Frame(b"retry: " + b"9" * 5000 + b"\n\n")),
        (b": ping\n:\n\n", Frame(b": ping\n:\n\n", comments=(b"ping", b""))),
        (b"Data: x\nevent : y\n\n", Frame(b"Data: x\nevent : y\n\n", unknown=True)),
        (
            b"data: a\xe2\x80\xa8\x85\x0b\x0c\x1cb\n\n",
            Frame(b"data: a\xe2\x80\xa8\x85\x0b\x0c\x1cb\n\n", b"a\xe2\x80\xa8\x85\x0b\x0c\x1cb"),
        ),
        (b"data: \xff\n\n", Frame(b"data: \xff\n\n", b"\xff")),
        (b"\n", Frame(b"\n")),
        (b"\r\n", Frame(b"\r\n")),
        (b"data: x\r\n\n", Frame(b"data: x\r\n\n", b"x")),
        (b"data: x\n\r\n", Frame(b"data: x\n\r\n", b"x")),
    ],
)
def test_one_frame(stream: bytes, frame: Frame) -> None:
    assert decode(stream) == [frame]


def test_frames_follow_each_other() -> None:
    frames = decode(b": hi\n\nid: 1\ndata: a\n\n\ndata: b\n\ndata: lost")
    assert [frame.raw for frame in frames] == [b": hi\n\n", b"id: 1\ndata: a\n\n", b"\n", b"data: b\n\n"]
    assert [frame.data for frame in frames] == [None, b"a", None, b"b"]


def test_a_frame_that_no_blank_line_ends_is_discarded() -> None:
    decoder = Decoder(100, 100)
    assert decoder.feed(b"data: a\n\ndata: b\n") == [Frame(b"data: a\n\n", b"a")]
    assert (decoder.partial, decoder.rest) == (True, b"data: b\n")
    decoder.close()
    assert (decoder.partial, decoder.rest) == (True, b"")


def test_after_a_whole_frame_nothing_is_partial() -> None:
    decoder = Decoder(100, 100)
    assert not decoder.partial
    decoder.feed(b"data: a\r\n\r")
    assert not decoder.partial
    assert decoder.feed(b"\n") == []
    assert not decoder.partial
    decoder.close()
    assert not decoder.partial


def test_a_lone_cr_ends_its_frame_at_once() -> None:
    decoder = Decoder(100, 100)
    assert decoder.feed(b"data: a\r\n\r") == [Frame(b"data: a\r\n\r", b"a")]
    assert decoder.feed(b"\ndata: b\r") == []
    assert decoder.feed(b"\n\r\n") == [Frame(b"\ndata: b\r\n\r\n", b"b")]
    assert decoder.feed(b"\r") == [Frame(b"\r")]
    assert decoder.feed(b"\r") == [Frame(b"\r")]
    assert decoder.feed(b"") == []
    assert decoder.feed(b"\n\n") == [Frame(b"\n\n")]


@pytest.mark.parametrize("cuts", [[1], [2], [3], [100], [1, 2]])
def test_the_byte_order_mark_is_dropped_once(cuts: list[int]) -> None:
    decoder = Decoder(100, 100)
    frames = [
        frame
        for piece in pieces(b"\xef\xbb\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\n", cuts)
        for frame in decoder.feed(piece)
    ]
    assert frames == [Frame(b"data: a\n\n", b"a"), Frame(b"\xef\xbb\xbfdata: b\n\n", unknown=True)]


def test_half_a_byte_order_mark_is_text() -> None:
    decoder = Decoder(100, 100)
    decoder.feed(b"\xef\xbb")
    assert (decoder.partial, decoder.rest) == (True, b"\xef\xbb")
    assert decoder.feed(b"\n\n") == [Frame(b"\xef\xbb\n\n", unknown=True)]


# -- limits


@pytest.mark.parametrize("cuts", [[1], [2], [100]])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_a_line_may_be_as_long_as_allowed(end: bytes, cuts: list[int]) -> None:
    for stream, allowed in [
        (b"data: 1234" + end * 2, True),
        (b": 34567890" + end + b"data: 1234" + end * 2, True),
        (b"data: 12345" + end * 2, False),
        (b"id: 1" + end + b"data: 12345" + end * 2, False),
        (b"id: 1" + end + b"data: 12345", False),
    ]:
        decoder = Decoder(10, 1000)
        for piece in pieces(stream, cuts):
            if decoder.error is None:
                decoder.feed(piece) if allowed else _feed_quietly(decoder, piece)
        assert (decoder.error is None) == allowed, stream


def _feed_quietly(decoder: Decoder, piece: bytes) -> None:
    try:
        decoder.feed(piece)
    except LimitExceeded as error:
        assert error is decoder.error


def test_an_event_may_be_as_large_as_allowed() -> None:
    assert decode(b"id: 1\ndata: 1\n\n", max_event=14)
    with pytest.raises(LimitExceeded) as caught:
        decode(b"id: 1\ndata: 1\n\n", max_event=13)
    assert (caught.value.reason, caught.value.limit) == ("too-large", "limits.max_message_size")


def test_frames_before_a_broken_limit_are_not_lost() -> None:
    decoder = Decoder(10, 100)
    assert [frame.data for frame in decoder.feed(b"data: a\n\ndata: too long")] == [b"a"]
    assert decoder.error is not None
    for _ in range(2):
        with pytest.raises(LimitExceeded):
            decoder.feed(b"")
        with pytest.raises(LimitExceeded):
            decoder.close()


# -- encoding


def test_encode() -> None:
    assert encode(b"{}") == b"data: {}\n\n"
    assert encode(b"") == b"data: \n\n"
    assert encode(b"a\nb\r\nc\rd", event=b"message", id=b"7", retry=5) == (
        b"event: message\nid: 7\nretry: 5\ndata: a\ndata: b\ndata: c\ndata: d\n\n"
    )
    assert comment() == b":\n\n"
    assert comment(b"ping") == b": ping\n\n"


@pytest.mark.parametrize("name", ["event", "id"])
@pytest.mark.parametrize("value", [b"a\nb", b"a\rb"])
def test_a_field_cannot_forge_another(name: str, value: bytes) -> None:
    with pytest.raises(ValueError, match="forge"):
        encode(b"", **{name: value})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="forge"):
        comment(value)
    with pytest.raises(ValueError, match="NUL"):
        encode(b"", id=b"\0")


LINE = st.binary(max_size=20).filter(lambda text: not set(text) & set(b"\r\n\0"))


@given(st.binary(max_size=60), st.none() | LINE, st.none() | LINE, st.none() | st.integers(0, 10**15 - 1))
def test_what_is_encoded_is_decoded(data: bytes, event: bytes | None, id: bytes | None, retry: int | None) -> None:
    raw = encode(data, event=event, id=id, retry=retry)
    assert decode(raw) == [Frame(raw, re.sub(rb"\r\n?", b"\n", data), event, id, retry)]


@given(LINE)
def test_what_is_commented_is_decoded(text: bytes) -> None:
    assert decode(comment(text)) == [Frame(comment(text), comments=(text,))]


# -- properties

STREAMS = st.lists(
    st.sampled_from(
        [
            b"\n",
            b"\r",
            b"\r\n",
            b"\n\n",
            b"\r\n\r\n",
            b"data",
            b"data:",
            b"data: x",
            b": c",
            b"id: 1",
            b"id: \0",
            b"event: message",
            b"event: message\ndata: {}\n\n",
            b"event: message\r\ndata: {}\r\n\r\n",
            b"retry: 5",
            b"Data: x",
            b"\xef\xbb\xbf",
            b"\xff",
        ]
    )
    | st.binary(max_size=3),
    max_size=12,
).map(b"".join)


class Dispatched(NamedTuple):
    data: bytes
    event: bytes
    last_event_id: bytes


def by_the_book(stream: bytes) -> list[Dispatched]:
    """The standard's own algorithm, word for word, on a whole stream."""
    events, data, event, last_event_id = [], b"", b"", b""
    *lines, _unfinished = re.split(rb"\r\n|\r|\n", stream.removeprefix(b"\xef\xbb\xbf"))
    for line in lines:
        if line == b"":
            if data:
                events.append(Dispatched(data.removesuffix(b"\n"), event or b"message", last_event_id))
            data, event = b"", b""
            continue
        if line.startswith(b":"):
            continue
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"event":
            event = value
        elif field == b"data":
            data += value + b"\n"
        elif field == b"id" and b"\0" not in value:
            last_event_id = value
    return events


@given(STREAMS, CUTS)
@example(b"event: message\r\ndata: a\rb\n\r\n", [1000])
def test_frames_are_what_the_standard_dispatches(stream: bytes, cuts: list[int]) -> None:
    """Rule 4.12."""
    decoder = Decoder(1000, 1000)
    last_event_id, dispatched = b"", []
    for piece in pieces(stream, cuts):
        for frame in decoder.feed(piece):
            last_event_id = last_event_id if frame.id is None else frame.id
            if frame.data is not None:
                dispatched.append(Dispatched(frame.data, frame.event or b"message", last_event_id))
    assert dispatched == by_the_book(stream)


@given(STREAMS, CUTS, st.integers(1, 40), st.integers(1, 60))
def test_the_cutting_changes_nothing(stream: bytes, cuts: list[int], max_line: int, max_event: int) -> None:
    whole, cut = Decoder(max_line, max_event), Decoder(max_line, max_event)
    results = []
    for decoder, chunks in ((whole, [stream]), (cut, [*pieces(stream, cuts)])):
        frames: list[Frame] = []
        try:
            for chunk in chunks:
                frames += decoder.feed(chunk)
        except LimitExceeded:
            assert decoder.error is not None
        if decoder.error is None:
            raw = b"".join(frame.raw for frame in frames)
            assert raw + decoder.rest == stream.removeprefix(b"\xef\xbb\xbf")
        results.append(
            ([(f.data, f.event, f.id, f.retry, f.comments, f.unknown) for f in frames], decoder.error is None)
        )
    assert results[0] == results[1]
    assert whole.partial == cut.partial or whole.error


# -- time: each of these would take minutes if any byte were looked at once per chunk


@pytest.mark.timeout(20)
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_one_long_line_in_small_pieces(end: bytes) -> None:
    stream = b"data: " + b"x" * 8_000_000 + end * 2
    decoder = Decoder(16 << 20, 16 << 20)
    (frame,) = [frame for piece in pieces(stream, [4096]) for frame in decoder.feed(piece)]
    assert frame.data is not None
    assert len(frame.data) == 8_000_000


@pytest.mark.timeout(20)
def test_one_byte_at_a_time() -> None:
    stream = b"data: " + b"x" * 500_000 + b"\n\n"
    decoder = Decoder(1 << 20, 1 << 20)
    assert len([frame for piece in pieces(stream, [1]) for frame in decoder.feed(piece)]) == 1


@pytest.mark.timeout(20)
@pytest.mark.parametrize("cuts", [[7], [65536]])
def test_many_empty_lines_of_data(cuts: list[int]) -> None:
    decoder = Decoder(1 << 20, 16 << 20)
    (frame,) = [frame for piece in pieces(b"data:\n" * 400_000 + b"\n", cuts) for frame in decoder.feed(piece)]
    assert frame.data == b"\n" * 399_999
