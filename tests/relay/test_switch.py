"""Who gets a message of a stream that all requests of a session share."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.protocol.errors import UpstreamProtocolError
from gateway.relay.switch import FULL, Outlet, Switch
from gateway.wire import sse

IDS = st.one_of(st.integers(-3, 3), st.sampled_from(["-1", "0", "1", "2", ""]))


def frame(message: Any, **fields: Any) -> sse.Frame:
    data = message if isinstance(message, bytes) else json.dumps(message).encode()
    return sse.Frame(sse.encode(data, event=b"message", **fields), data, b"message", **fields)


def read(outlet: Outlet) -> list[Any]:
    frames = sse.Decoder(10**7, 10**7).feed(outlet.read_nowait(-1))
    return [json.loads(each.data) for each in frames if each.data]


def result(id: Any, value: Any = 0) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id, "result": {"value": value}}


def progress(token: Any, value: int = 0) -> dict[str, Any]:
    params = {"progressToken": token, "progress": value}
    return {"jsonrpc": "2.0", "method": "notifications/progress", "params": params}


@given(st.lists(IDS, unique_by=lambda id: (type(id), id)), st.data())
def test_each_request_gets_its_own_messages_in_order(ids: list[Any], data: st.DataObject) -> None:
    switch = Switch()
    outlets = {(type(id), id): switch.wait(id, id) for id in ids}
    messages = [(id, progress(id, step)) for id in ids for step in range(2)] + [(id, result(id)) for id in ids]
    order = data.draw(st.permutations(range(len(messages))))
    expected: dict[Any, list[Any]] = {key: [] for key in outlets}
    answered = set()
    for at in order:
        id, message = messages[at]
        switch.take(frame(message))
        if (type(id), id) not in answered:
            expected[type(id), id].append(message)
        if "result" in message:
            answered.add((type(id), id))
    for key, outlet in outlets.items():
        got = read(outlet)
        # Progress of a request that has been answered may go to another one, where the exchange drops it.
        assert [each for each in got if "result" in each] == [each for each in expected[key] if "result" in each]
        assert [each for each in got if each in expected[key]] == expected[key]
        assert outlet.at_eof()


@pytest.mark.parametrize("other", ["7", 7.0, True, None, [7], {"a": 7}])
def test_an_id_is_its_type_and_value(other: Any) -> None:
    switch = Switch()
    outlet = switch.wait(7, None)
    assert switch.take(frame(result(other))) is None
    assert not outlet.at_eof()
    assert switch.take(frame(result(7))) is outlet
    assert read(outlet) == [result(7)]
    assert outlet.at_eof()


def test_an_error_without_an_id_answers_the_only_request() -> None:
    error = {"jsonrpc": "2.0", "id": None, "error": {"code": -32700, "message": "?"}}
    switch = Switch()
    first = switch.wait(1, None)
    assert switch.take(frame(error)) is first
    first, second = switch.wait(1, None), switch.wait(2, None)
    assert switch.take(frame(error)) is None
    assert not first.size + second.size


def test_the_rest_goes_to_the_listener_then_to_a_request_then_is_kept() -> None:
    switch = Switch()
    note = [{"jsonrpc": "2.0", "method": "notifications/message", "params": {"n": n}} for n in range(4)]
    switch.take(frame(note[0]))
    outlet = switch.wait(1, None)
    switch.take(frame(note[1]))
    listener = switch.listen()
    switch.take(frame(note[2]))
    listener.close()
    switch.take(frame(note[3]))
    assert read(listener) == []
    assert read(outlet) == [note[1], note[3]]
    assert not switch.is_listened_to


def test_what_is_kept_is_bounded_and_the_newest() -> None:
    switch = Switch()
    for number in range(100):
        switch.take(frame({"jsonrpc": "2.0", "method": "x", "params": {"n": number, "pad": "x" * 10_000}}))
    numbers = [each["params"]["n"] for each in read(switch.listen())]
    assert numbers == list(range(100 - len(numbers), 100))
    assert len(numbers) == FULL // 10_100


def test_a_sign_of_life_reaches_all_and_does_not_pile_up() -> None:
    switch = Switch()
    outlets = [switch.wait(1, None), switch.wait(2, None), switch.listen()]
    for _ in range(1000):
        switch.take(sse.Frame(b": ping\n\n", comments=(b"ping",)))
    assert {each.read_nowait(-1) for each in outlets} == {b":\n\n"}


def test_no_event_ids_pass() -> None:
    switch = Switch()
    outlet = switch.wait(1, None)
    switch.take(frame(result(1), id=b"9", retry=5))
    assert outlet.read_nowait(-1) == sse.encode(json.dumps(result(1)).encode(), event=b"message")


def test_what_cannot_be_read_is_nobodys() -> None:
    with pytest.raises(UpstreamProtocolError):
        Switch().take(frame(b"{"))


def test_other_events_are_dropped() -> None:
    switch = Switch()
    outlet = switch.wait(1, None)
    switch.take(sse.Frame(b"", b"{", b"endpoint"))
    assert not outlet.size


@pytest.mark.parametrize(("message", "initialized"), [(result(1), True), ({"id": 1, "error": {}}, False)])
def test_the_first_answer_is_that_to_initialize(message: Any, initialized: bool) -> None:
    switch = Switch()
    switch.wait(1, None)
    assert switch.initialized is None
    switch.take(frame(message))
    assert switch.initialized is initialized


async def test_an_outlet_waits_for_its_reader_and_its_writer() -> None:
    switch = Switch()
    outlet = switch.wait(1, None)
    reading = asyncio.create_task(outlet.readany())
    await asyncio.sleep(0)
    outlet.put(b"a" * (FULL + 1))
    outlet.put(b"b")
    assert outlet.full
    writing = asyncio.create_task(outlet.room())
    assert await reading == b"a" * (FULL + 1) + b"b"
    await writing
    outlet.end(ConnectionResetError())
    assert not outlet.at_eof()
    with pytest.raises(ConnectionResetError):
        await outlet.readany()
    assert outlet.at_eof()
    assert await outlet.readany() == b""


async def test_one_that_nobody_reads_any_more_holds_up_nobody() -> None:
    switch = Switch()
    outlet = switch.wait(1, None)
    outlet.put(b"a" * (FULL + 1))
    writing = asyncio.create_task(outlet.room())
    await asyncio.sleep(0)
    outlet.close()
    await writing
    assert switch.idle
    outlet.put(b"more")
    assert outlet.size == 0
