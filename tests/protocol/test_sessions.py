from __future__ import annotations

import pytest

from gateway.protocol.errors import BadRequest, UnknownSession, UpstreamProtocolError
from gateway.protocol.message import Call
from gateway.protocol.sessions import MAX_OPEN, Sessions


def test_a_session_answers_to_its_caller_only():
    sessions = Sessions(10, 60)
    session = sessions.bind("abc", "alice", "up", 0)
    assert sessions.find("abc", "alice", "up", 1) is session
    messages = set()
    for id, client, upstream in (("abc", "bob", "up"), ("abc", "alice", "other"), ("abcd", "alice", "up")):
        with pytest.raises(UnknownSession) as refused:
            sessions.find(id, client, upstream, 1)
        messages.add(str(refused.value))
    assert len(messages) == 1


def test_an_id_is_given_out_once():
    sessions = Sessions(10, 60)
    sessions.bind("abc", "alice", "up", 0)
    with pytest.raises(UpstreamProtocolError):
        sessions.bind("abc", "bob", "up", 1)
    sessions.bind("abc", "bob", "other", 1)
    sessions.bind("abc", "bob", "up", 100)  # alice's has long been idle
    with pytest.raises(UnknownSession):
        sessions.find("abc", "alice", "up", 100)


def test_idle_sessions_end():
    sessions = Sessions(10, 60)
    sessions.bind("abc", "alice", "up", 0)
    sessions.find("abc", "alice", "up", 50)
    sessions.find("abc", "alice", "up", 110)
    with pytest.raises(UnknownSession):
        sessions.find("abc", "alice", "up", 171)
    assert len(sessions) == 0


def test_the_number_of_sessions_is_bounded():
    sessions = Sessions(3, 60)
    for number in range(10):
        sessions.bind(f"s{number}", "alice", "up", number)
    assert len(sessions) == 3
    sessions.find("s9", "alice", "up", 10)
    with pytest.raises(UnknownSession):
        sessions.find("s0", "alice", "up", 10)


@pytest.mark.parametrize("id", ["", "with space", "line\nbreak", "\x00", "x" * 2000])
def test_ids_that_are_none(id):
    with pytest.raises(UpstreamProtocolError):
        Sessions(3, 60).bind(id, "alice", "up", 0)


def test_open_calls_are_bounded_and_unique():
    session = Sessions(3, 60).bind("abc", "alice", "up", 0)
    session.open_call(Call(1, "ping"), None)
    session.open_call(Call("1", "ping"), "token")  # another id
    with pytest.raises(BadRequest):
        session.open_call(Call(1, "ping"), None)
    for number in range(2, 2 * MAX_OPEN):
        session.open_call(Call(number, "ping"), number)
    assert len(session.calls) == MAX_OPEN
    assert len(session.progress_tokens) <= MAX_OPEN
    for number in range(2 * MAX_OPEN):
        session.open_server_request(number, "roots/list")
    assert len(session.server_requests) == MAX_OPEN
    assert session.answer_server_request(2 * MAX_OPEN - 1) == "roots/list"
    assert session.answer_server_request(2 * MAX_OPEN - 1) is None
    assert session.answer_server_request(None) is None
