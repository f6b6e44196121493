"""What ``sanitize`` makes of texts that go on from one notification to the next."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import HookEntry
from gateway.guard.flows import Flows
from gateway.guard.hook import PASS, Block, Exchange, Hold, Replace, Verdict
from gateway.guard.loading import HookConfigError, build
from gateway.guard.sanitize import SanitizeHook
from tests.guard.messages import exchange, notification, result

TOKEN = "ghp" + "_" + "FAKE0fake1TEST2test3ABCD4efgh5IJKL6m7"
PLACEHOLDER = "[redacted:github-token]"
BEGIN, END = "-----BEGIN " + "PRIVATE KEY-----", "-----END " + "PRIVATE KEY-----"
HOOK = SanitizeHook()


class Stream:
    """Notifications one after the other; ``out`` is what has become of them, in the order of their going."""

    def __init__(self, hook: SanitizeHook = HOOK) -> None:
        self.at: Exchange = exchange()
        self.out: list[Any] = []
        self._hook = hook
        self._held: list[tuple[Any, Hold]] = []

    def take(self, *texts: Any, method: str = "notifications/message", member: str = "data", **params: Any) -> Stream:
        for text in texts:
            message = notification(method, **params, **({} if text is None else {member: text}))
            verdict = self._hook.on_message(message, self.at)
            self._let_go()
            if isinstance(verdict, Hold):
                self._held.append((message, verdict))
            else:
                self._write(message, verdict, member)
        return self

    def progress(self, *texts: Any, token: Any = 1) -> Stream:
        return self.take(*texts, method="notifications/progress", member="message", progressToken=token, progress=1)

    def pass_time(self, seconds: float) -> Stream:
        self.at.now += seconds
        self._let_go()
        return self

    @property
    def held(self) -> int:
        return len(self._held)

    @property
    def found(self) -> list[tuple[str, str]]:
        return [(finding.rule, finding.action) for finding in self.at.findings]

    def _let_go(self) -> None:
        due = [each for each in self._held if each[1].until <= self.at.now]
        self._held = [each for each in self._held if each not in due]
        for message, hold in due:
            self._write(message, hold.release(), "message" if "progressToken" in message.params else "data")

    def _write(self, message: Any, verdict: Verdict, member: str) -> None:
        if isinstance(verdict, Block):
            self.out.append(verdict.error.reason)
        else:
            passed = verdict.message if isinstance(verdict, Replace) else message
            self.out.append(passed.params.get(member))


def test_a_text_of_many_pieces() -> None:
    stream = Stream().progress("see ", *TOKEN, " there")
    assert stream.held == 0
    assert "".join(stream.out) == f"see {TOKEN[:3]}{PLACEHOLDER} there"
    assert stream.found == [("github-token", "redact")]


def test_things_are_told_apart() -> None:
    stream = Stream().progress(TOKEN[:9], token=1).progress(TOKEN[9:], token="1")
    assert stream.out == [TOKEN[9:]]
    stream.progress(TOKEN[9:], token=1)
    assert stream.out == [TOKEN[9:], PLACEHOLDER, ""]
    stream = Stream().take(TOKEN[:9], logger="a").take(TOKEN[9:], logger="b").take(TOKEN[9:], logger=["a"])
    assert stream.out == [TOKEN[9:], TOKEN[9:]]


def test_places_are_told_apart() -> None:
    stream = Stream().take({"a": [TOKEN[:9]], "b": "x"}, {"b": TOKEN[9:]}, {"a": [TOKEN[9:]], "b": "x"})
    assert stream.out == [{"a": [PLACEHOLDER], "b": "x"}, {"b": TOKEN[9:]}, {"a": [""], "b": "x"}]


def test_one_without_a_text_keeps_its_place() -> None:
    stream = Stream().progress(f"a {TOKEN[:9]}", None, token=1)
    assert (stream.out, stream.held) == ([], 2)
    assert stream.progress(" b").out == [f"a {TOKEN[:9]}", None, " b"]


def test_time_goes_by_for_each() -> None:
    stream = Stream().progress(TOKEN[:9]).pass_time(0.03).progress(TOKEN[9:20])
    assert stream.pass_time(0.03).out == [TOKEN[:9]]
    assert stream.pass_time(0.03).out == [TOKEN[:9], TOKEN[9:20]]
    assert stream.progress(TOKEN[20:]).out == [TOKEN[:9], TOKEN[9:20], PLACEHOLDER]
    assert stream.found == [("github-token", "flag"), ("github-token", "redact")]


def test_a_line_may_begin_with_a_secret() -> None:
    """The last letter of one line is no part of a word that begins the next."""
    stream = Stream().take("first", TOKEN[:9], f"{TOKEN[9:]} ")
    assert stream.out == ["first", PLACEHOLDER, " "]


def test_a_whole_secret_at_the_end_waits_for_nothing() -> None:
    stream = Stream().take(f"it is {TOKEN}")
    assert stream.out == [f"it is {PLACEHOLDER}"]
    assert stream.take("andmore", " and more").out == [f"it is {PLACEHOLDER}", "", " and more"]
    assert stream.found == [("github-token", "redact")]


def test_a_stand_in_is_let_through() -> None:
    stream = Stream().take("it is ghp_xxxxxx", "x" * 40, " and more")
    assert stream.out == ["it is ghp_xxxxxx", "x" * 40, " and more"]
    assert not stream.found


def test_a_password_in_front_of_what_says_that_it_is_one() -> None:
    stream = Stream().take("at https://alice:hunter22", "@example.com/ there")
    assert stream.out == ["at https://alice:[redacted:url-password]", "@example.com/ there"]
    stream = Stream().take("at https://alice:hunter22").pass_time(1).take("@example.com/ there")
    assert stream.out == ["at https://alice:hunter22", "@example.com/ there"]
    assert stream.found == [("url-password", "flag")]


def test_two_secrets_in_a_row() -> None:
    stream = Stream().take(f"{TOKEN} {TOKEN[:12]}", f"{TOKEN[12:]} {TOKEN[:9]}", f"{TOKEN[9:]}.")
    assert stream.out == [f"{PLACEHOLDER} {PLACEHOLDER}", f" {PLACEHOLDER}", "."]


@pytest.mark.parametrize("lines", [3, 300])
def test_a_key_that_goes_on_and_on(lines: int) -> None:
    line = "MIIE" + "vQIBADANBgkqhkiG9w0BAQEFAASC" * 2
    stream = Stream().take("see " + BEGIN + "\n", *[line + "\n"] * lines, END, "\nafter")
    assert "".join(stream.out) == "see [redacted:private-key]\nafter"
    assert stream.found == [("private-key", "redact")]


def test_a_rule_that_only_flags_holds_nothing() -> None:
    stream = Stream(SanitizeHook(action="flag")).take(TOKEN[:9], TOKEN[9:])
    assert stream.out == [TOKEN[:9], TOKEN[9:]]
    assert stream.found == [("github-token", "flag")]


def test_a_rule_that_blocks_withholds_what_is_not_out() -> None:
    stream = Stream(SanitizeHook(action="block")).take("x ", TOKEN[:9]).pass_time(1).take(TOKEN[9:20], TOKEN[20:], " y")
    assert stream.out == ["x ", TOKEN[:9], "content-blocked", "content-blocked", " y"]


def test_a_stream_may_end() -> None:
    stream = Stream(SanitizeHook(on_split="end")).take(TOKEN[:9]).pass_time(1).take(TOKEN[9:])
    assert stream.out == [TOKEN[:9], "split-secret"]


def test_more_texts_than_are_remembered() -> None:
    """Memory is bounded; a message that is held still goes."""
    stream = Stream().progress(TOKEN[:9], token="first")
    for number in range(200):
        stream.progress("no ghp_ here", token=number)
    stream.progress(TOKEN[9:], token="first")
    assert stream.pass_time(1).held == 0
    assert len(stream.out) == 202
    flows = stream.at.state["sanitize"]
    assert len(flows._texts) == len(flows._flows) == 64
    many = Stream().take({str(number): TOKEN[:9] for number in range(100)})
    assert many.held == 1
    assert many.pass_time(1).out == [{str(number): TOKEN[:9] for number in range(100)}]


_PIECES = (
    "",
    "x",
    "the key is ",
    TOKEN[:3],
    TOKEN[:9],
    TOKEN[3:],
    TOKEN[9:],
    TOKEN,
    "SK" + "0f" * 9,
    "0f" * 7,
    BEGIN,
    END,
)


@given(st.lists(st.tuples(st.sampled_from(_PIECES), st.sampled_from((1, 2)), st.sampled_from((0.0, 1.0))), max_size=9))
def test_what_goes_by_at_once_goes_as_on_the_long_way(steps: list[tuple[str, int, float]]) -> None:
    def outcome() -> tuple[list[Any], list[tuple[str, str]]]:
        stream = Stream()
        for text, token, seconds in steps:
            stream.progress(text, token=token).pass_time(seconds)
        stream.pass_time(1)
        return stream.out, stream.found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Flows, "_goes_by", lambda *_: False)
        expected = outcome()
    assert outcome() == expected


def test_more_matches_than_are_gone_through() -> None:
    stream = Stream(SanitizeHook(max_hits=1)).take(" ".join([TOKEN] * 100))
    assert stream.out == ["too-many-secrets"]


def test_what_is_no_notification_is_not_held() -> None:
    assert HOOK.on_message(result("tools/call", content=[{"type": "text", "text": TOKEN[:9]}]), exchange()) is PASS
    assert HOOK.on_message(notification("notifications/tools/list_changed"), exchange()) is PASS


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_hold": "soon"}, "max_hold: expected a duration"),
        ({"max_hold": True}, "max_hold: expected a duration"),
        ({"on_split": "stop"}, "on_split: expected flag or end, not 'stop'"),
    ],
)
def test_options_that_cannot_be_used(options: dict[str, Any], message: str) -> None:
    entry = HookEntry.model_validate({"kind": "sanitize", "options": options})
    with pytest.raises(HookConfigError, match=message):
        build([entry], "up")
