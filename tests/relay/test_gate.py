"""What the gate remembers of one head must not let another one in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from gateway.protocol.errors import BadRequest, GatewayError, HeaderMismatch, HeaderTooLarge, MisdirectedRequest
from gateway.protocol.headers import SINGLE_FIELDS
from gateway.relay.gate import _MAX_SHAPE_CHARS, _MAX_SHAPES, Gate, Head

HOST = ("Host", "127.0.0.1:8080")


@pytest.fixture
def gate(play: Callable[..., Any]) -> Gate:
    made: Gate = play().site.gate
    return made


def head(*fields: tuple[str, str], version: tuple[int, int] = (1, 1)) -> Head:
    return Head("POST", "/up/mcp", version, CIMultiDictProxy(CIMultiDict(fields)))


@pytest.mark.parametrize("name", SINGLE_FIELDS)
@pytest.mark.parametrize("fold", [str.lower, str.upper, str])
def test_a_field_that_stands_twice_is_refused_every_time(gate: Gate, name: str, fold: Callable[[str], str]) -> None:
    for _ in range(2):
        assert gate.route(head(HOST, (name, "a"))) == "up"
        with pytest.raises(HeaderMismatch):
            gate.route(head(HOST, (name, "a"), (fold(name), "a")))
        with pytest.raises(HeaderMismatch):
            gate.route(head(HOST, (name, "a"), ("X", "b"), (fold(name), "c")))


def test_other_fields_may_stand_twice(gate: Gate) -> None:
    for _ in range(2):
        assert gate.route(head(HOST, ("Accept", "a"), ("accept", "b"))) == "up"


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ((("host", "127.0.0.1:8080"),), MisdirectedRequest),
        ((("TRANSFER-encoding", "gzip"),), BadRequest),
        ((("transfer-encoding", "chunked"), ("Transfer-Encoding", "chunked")), BadRequest),
        ((("uPgrade", "h2c"),), BadRequest),
    ],
)
def test_unusual_framing_is_refused_every_time(
    gate: Gate, fields: tuple[tuple[str, str], ...], error: type[GatewayError]
) -> None:
    for _ in range(2):
        assert gate.route(head(HOST)) == "up"
        with pytest.raises(error):
            gate.route(head(HOST, *fields))


def test_the_size_of_a_head_is_that_of_all_its_fields(play: Callable[..., Any]) -> None:
    gate = play(limits={"max_header_size": 1024}).site.gate
    few = [(f"X-{number}", "v" * 30) for number in range(8)]
    assert gate.route(head(HOST, *few)) == "up"
    for fields in ([*few, ("X-1", "v" * 800)], [(name, value * 5) for name, value in few], [("Accept", "")] * 200):
        for _ in range(2):
            with pytest.raises(HeaderTooLarge):
                gate.route(head(HOST, *fields))


def test_what_is_remembered_is_bounded(gate: Gate) -> None:
    for number in range(2 * _MAX_SHAPES):
        gate.route(head(HOST, (f"X-{number}", "v")))
        gate.route(head(HOST, ("X" * _MAX_SHAPE_CHARS + str(number), "v")))
    assert len(gate._shapes) <= _MAX_SHAPES
    assert all(sum(map(len, names)) <= _MAX_SHAPE_CHARS for names in gate._shapes)
