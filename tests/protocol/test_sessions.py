from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.protocol.errors import BadRequest, InvalidParams, UnknownSession, UpstreamProtocolError
from gateway.protocol.message import Call
from gateway.protocol.seal import KeyRing
from gateway.protocol.sessions import MAX_OPEN, Session, Sessions
from gateway.protocol.states import RequestStates


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def sessions(ring: KeyRing | None = None, lifetime: float = 60, capacity: int = 10) -> tuple[Sessions, Clock]:
    clock = Clock()
    return Sessions(ring or KeyRing(), lifetime, capacity, clock), clock


def bind(live: Sessions, id: str = "abc") -> Session:
    return live.bind(id, "alice", "up", "2025-11-25", {"roots": {}})


def said_by(session: Session) -> tuple[object, ...]:
    return (session.id, session.upstream_id, session.revision, session.capabilities, session.digest, session.context)


def test_a_session_answers_to_its_caller_only():
    """Rules 3.7 and 3.13."""
    live, _ = sessions()
    session = bind(live)
    assert "abc" not in session.id
    assert said_by(live.find(session.id, "alice", "up")) == said_by(session)
    said = set()
    for id, client, upstream in (
        (session.id, "bob", "up"),
        (session.id, "alice", "other"),
        (session.id[:-1] + "_", "alice", "up"),
        ("abc", "alice", "up"),
        ("", "alice", "up"),
    ):
        with pytest.raises(UnknownSession) as refused:
            live.find(id, client, upstream)
        said.add(str(refused.value))
    assert len(said) == 1


def test_another_copy_with_the_same_keys_knows_it():
    key = os.urandom(32)
    one, other = sessions(KeyRing([key]))[0], sessions(KeyRing([os.urandom(32), key]))[0]
    session = bind(one)
    assert said_by(other.find(session.id, "alice", "up")) == said_by(session)
    event = one.seal_event_id(session, b"e-1", Call(7, "tools/call", "get"))
    assert other.open_event_id(session, event.decode()) == ("e-1", Call(7, "tools/call", "get"))
    asked = one.sign_request_id(session, 3, "roots/list")
    assert other.read_request_id(session, asked) == Call(3, "roots/list")


def test_sessions_end():
    live, clock = sessions()
    session = bind(live)
    clock.now += 60
    live.find(session.id, "alice", "up")
    clock.now += 1
    with pytest.raises(UnknownSession):
        live.find(session.id, "alice", "up")
    ended = bind(live, "def")
    live.forget(ended)
    with pytest.raises(UnknownSession):
        live.find(ended.id, "alice", "up")
    assert live.find(bind(live, "def").id, "alice", "up")  # an upstream may use an id again


def test_what_is_remembered_is_bounded():
    live, _ = sessions(capacity=3)
    for number in range(20):
        session = bind(live, f"s{number}")
        live.open_call(session, Call(1, "ping"))
        live.sign_request_id(session, number, "ping")
        live.forget(bind(live, f"t{number}"))
    assert len(live) == 3
    for number in range(2 * MAX_OPEN):
        live.open_call(session, Call(f"n{number}", "ping"))
    live.open_call(session, Call("n0", "ping"))  # forgotten, so that it can be used again
    with pytest.raises(BadRequest):
        live.open_call(session, Call(f"n{2 * MAX_OPEN - 1}", "ping"))


@pytest.mark.parametrize("id", ["", "with space", "line\nbreak", "\x00", "x" * 2000])
def test_ids_that_are_none(id):
    with pytest.raises(UpstreamProtocolError):
        bind(sessions()[0], id)


def test_large_capabilities_are_cut_to_their_names():
    live, _ = sessions()
    session = live.bind("abc", "alice", "up", None, {"sampling": {"x": "y" * 5000}, "roots": {}})
    assert live.find(session.id, "alice", "up").capabilities == {"sampling": {}, "roots": {}}
    assert len(session.id) < 1000


def test_an_id_in_flight_is_not_used_again():
    live, _ = sessions()
    session = bind(live)
    live.open_call(session, Call(1, "ping"))
    live.open_call(session, Call("1", "ping"))  # another id
    with pytest.raises(BadRequest):
        live.open_call(session, Call(1, "ping"))
    live.close_call(session, 1)
    live.open_call(session, Call(1, "ping"))
    live.close_call(session, "nobody")
    live.close_call(session, None)


@given(id=st.binary(max_size=40), number=st.one_of(st.integers(-(2**53) + 1, 2**53 - 1), st.text(max_size=20)))
def test_ids_of_events_and_requests_belong_to_their_session(id, number):
    """Rules 4.1 and 5.6."""
    live, _ = sessions()
    mine, other = bind(live), bind(live, "def")
    call = Call(number, "tools/call", "get")
    event = live.seal_event_id(mine, id, call)
    assert live.open_event_id(mine, event.decode()) == (id.decode("latin-1"), call)
    asked = live.sign_request_id(mine, number, "roots/list")
    assert live.read_request_id(mine, asked) == Call(number, "roots/list")
    assert live.signed_request_id(mine, number) == asked
    assert live.signed_request_id(other, number) is None
    for read, text in ((live.open_event_id, event.decode()), (live.read_request_id, asked)):
        for session, presented in ((other, text), (mine, text + "A"), (mine, text[1:]), (mine, "")):
            with pytest.raises(BadRequest):
                read(session, presented)
    for nothing in (None, number):
        with pytest.raises(BadRequest):
            live.read_request_id(mine, nothing)


def test_request_states():
    clock = Clock()
    states = RequestStates(KeyRing(), 60, clock)
    call, params = Call(7, "tools/call", "get"), {"name": "get", "arguments": {"b": 1, "a": 2}, "_meta": {"x": 1}}
    sealed = states.seal("inner", "alice", "up", call, params)
    assert "inner" not in sealed
    again = {**params, "arguments": {"a": 2, "b": 1}, "_meta": {}, "inputResponses": {"q": {}}, "requestState": sealed}
    assert states.open(sealed, "alice", "up", Call(8, "tools/call", "get"), again) == "inner"
    for client, upstream, method, name, changed in (
        ("bob", "up", "tools/call", "get", again),
        ("alice", "other", "tools/call", "get", again),
        ("alice", "up", "prompts/get", "get", again),
        ("alice", "up", "tools/call", "drop", again),
        ("alice", "up", "tools/call", "get", {**again, "arguments": {"a": 2, "b": 2}}),
        ("alice", "up", "tools/call", "get", {**again, "task": {}}),
    ):
        with pytest.raises(InvalidParams):
            states.open(sealed, client, upstream, Call(8, method, name), changed)
    for text in (None, 7, "", "inner", sealed + "A"):
        with pytest.raises(InvalidParams):
            states.open(text, "alice", "up", call, again)
    clock.now += 61
    with pytest.raises(InvalidParams):
        states.open(sealed, "alice", "up", call, again)


def test_request_states_of_calls_with_large_integers():
    """More than 64 bits, which orjson does not write."""
    states = RequestStates(KeyRing(), 60)
    call, params = Call(7, "tools/call", "get"), {"name": "get", "arguments": {"b": 10**30, "a": 1}}
    sealed = states.seal("inner", "alice", "up", call, params)
    again = {**params, "arguments": {"a": 1, "b": 10**30}}
    assert states.open(sealed, "alice", "up", call, again) == "inner"
    with pytest.raises(InvalidParams):
        states.open(sealed, "alice", "up", call, {**params, "arguments": {"a": 1, "b": 10**30 + 1}})


def test_an_upstream_that_gives_everybody_the_same_id():
    """One caller's requests, cancellations and end are not another's."""
    live, _ = sessions()
    alice, bob = (live.bind("same", client, "up", "2025-11-25", {}) for client in ("alice", "bob"))
    live.open_call(alice, Call(7, "ping"))
    live.open_call(bob, Call(7, "ping"))
    live.cancel_call(bob, 7)
    assert live.is_cancelled(bob, 7)
    assert not live.is_cancelled(alice, 7)
    live.forget(bob)
    assert live.find(alice.id, "alice", "up").context == alice.context
    with pytest.raises(UnknownSession):
        live.find(bob.id, "bob", "up")


def test_a_cancelled_id_may_be_used_again():
    live, _ = sessions()
    session = bind(live)
    live.open_call(session, Call(1, "ping"))
    live.cancel_call(session, 1)
    live.cancel_call(session, "nobody")
    live.cancel_call(session, None)
    assert live.is_cancelled(session, 1)
    live.open_call(session, Call(1, "ping"))
    assert not live.is_cancelled(session, 1)
