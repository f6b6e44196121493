"""Messages that a hook holds back: what goes before them, when they go, and that none is lost."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from gateway.guard.hook import PASS, Block, Drop, Exchange, Hold, Replace, Verdict
from gateway.protocol.errors import ContentBlocked, UpstreamTimeout
from gateway.protocol.message import Message
from gateway.relay.held import MAX_BYTES, MAX_MESSAGES
from gateway.wire import sse

from .conftest import EVENT_STREAM
from .test_exchange import CALL, RESULT, documents, event, streaming

TOKEN = "ghp" + "_" + "FAKE0fake1TEST2test3ABCD4efgh5IJKL6m7"
PLACEHOLDER = "[redacted:github-token]"
QUESTION = {"jsonrpc": "2.0", "id": "q", "method": "ping"}


def log(text: Any, logger: str | None = None) -> dict[str, Any]:
    params = {"level": "info", "data": text, **({} if logger is None else {"logger": logger})}
    return {"jsonrpc": "2.0", "method": "notifications/message", "params": params}


def texts(data: bytes) -> list[Any]:
    return [each["params"]["data"] if "params" in each else each.get("method", "answer") for each in documents(data)]


class Holding:
    """Holds what says ``hold``, for a second, and lets it go as ``held``; ``go`` makes all that it holds due."""

    name = "holding"

    def __init__(self, verdict: Any = None) -> None:
        self.holds: list[Hold] = []
        self.verdict = verdict

    def on_message(self, message: Message, exchange: Exchange) -> Verdict:
        text = message.params.get("data")
        if text == "go":
            for each in self.holds:
                each.until = exchange.now
        if text != "hold":
            return PASS
        self.holds.append(Hold(exchange.now + 1.0, lambda: self._let_go(message)))
        return self.holds[-1]

    def _let_go(self, message: Message) -> Verdict:
        if self.verdict is not None:
            return self.verdict
        return Replace(message.with_document({**message.document, "params": {**message.params, "data": "held"}}))


class Behind:
    """Sees what comes out; holds ``held`` itself where it is told to."""

    name = "behind"

    def __init__(self, holds: bool = False) -> None:
        self.seen: list[Any] = []
        self._holds = holds

    def on_message(self, message: Message, exchange: Exchange) -> Verdict:
        self.seen.append(message.params.get("data"))
        if self._holds and self.seen[-1] == "held":
            return Hold(exchange.now + 1.0, lambda: PASS)
        return PASS


class Asking:
    """Asks about what was held."""

    name = "asking"

    async def on_message(self, message: Message, exchange: Exchange) -> Verdict:
        return PASS


def hooks(*kinds: str, **more: Any) -> list[Any]:
    return ["policy", *({"kind": f"{__name__}:{kind}", "name": kind.lower(), **more} for kind in kinds)]


SPLIT = {"hooks": ["policy", "sanitize"]}


# -- the interface ------------------------------------------------------------------------------------------------------


def test_what_is_held_goes_when_its_time_has_come(play):
    book = play(hooks=hooks("Holding", "Behind"))
    exchange = streaming(book)
    assert exchange.held_until is None
    assert exchange.receive(event(log("hold")), 10.0) == b""
    assert exchange.held_until == 11.0
    assert exchange.flush(10.5) == b""
    assert exchange.held_until == 11.0
    assert texts(exchange.flush(11.0)) == ["held"]
    assert exchange.held_until is None
    assert texts(exchange.receive(event(RESULT), 12.0)) == ["answer"]


def test_others_overtake_and_what_is_due_goes_first(play):
    exchange = streaming(play(hooks=hooks("Holding")), CALL)
    chunk = event(log("hold")) + event(log("a")) + event(log("hold")) + event(log("b"))
    assert texts(exchange.receive(chunk, 10.0)) == ["a", "b"]
    assert texts(exchange.receive(event(log("go")) + event(log("c")), 10.5)) == ["held", "held", "go", "c"]
    assert exchange.held_until is None


def test_one_whose_time_is_over_goes_after_what_came_with_it(play):
    exchange = streaming(play(hooks=hooks("Holding")))
    exchange.receive(event(log("hold")), 10.0)
    assert texts(exchange.receive(b": x\n\n", 12.0)) == ["held"]


def test_everything_held_goes_before_the_answer(play):
    exchange = streaming(play(hooks=hooks("Holding")))
    data = exchange.receive(event(log("hold")) + event(log("a")) + event(RESULT) + event(log("late")), 10.0)
    assert texts(data) == ["a", "held", "answer"]
    assert exchange.done and exchange.held_until is None


@pytest.mark.parametrize("ending", ["end", "fail", "drain"])
def test_no_message_is_lost_at_the_end(play, ending):
    exchange = streaming(play(hooks=hooks("Holding")))
    exchange.receive(event(log("hold")), 10.0)
    last = exchange.fail(UpstreamTimeout("late")) if ending == "fail" else getattr(exchange, ending)()
    [held, error] = documents(last)
    assert held["params"]["data"] == "held"
    assert error["error"] and error["id"] == 7
    assert exchange.held_until is None


@pytest.mark.parametrize("ending", ["end", "fail", "drain"])
def test_no_message_is_lost_at_the_end_of_a_stream_without_an_answer(play, ending):
    book = play(hooks=hooks("Holding"))
    exchange, _ = book.get(Mcp_Session_Id=book.session())
    exchange.answer_head(200, CIMultiDict(EVENT_STREAM), book.clock)
    assert exchange.receive(event(log("hold")), 10.0) == b""
    last = exchange.fail(UpstreamTimeout("late")) if ending == "fail" else getattr(exchange, ending)()
    assert texts(last) == ["held"]


def test_hooks_behind_see_it_when_it_goes(play):
    book = play(hooks=hooks("Holding", "Behind"))
    [_, _, behind] = [link.hook for link in book.site.chains["up"]._links]
    exchange = streaming(book)
    exchange.receive(event(log("hold")) + event(log("a")), 10.0)
    assert behind.seen == [None, "a"]  # the request, and what overtook
    exchange.flush(11.0)
    assert behind.seen == [None, "a", "held"]


def test_two_hooks_may_hold_one_after_the_other(play):
    entries = hooks("Holding", "Behind")
    entries[-1]["options"] = {"holds": True}
    exchange = streaming(play(hooks=entries))
    exchange.receive(event(log("hold")), 10.0)
    assert exchange.flush(11.0) == b""
    assert exchange.held_until == 12.0
    assert texts(exchange.flush(12.0)) == ["held"]
    exchange.receive(event(log("hold")), 20.0)
    assert texts(exchange.receive(event(RESULT), 20.5)) == ["held", "answer"]


def test_a_hook_behind_may_ask(play):
    entries = hooks("Holding")
    entries.append({"kind": f"{__name__}:Asking", "timeout": "1s", "methods": ["notifications/*"]})
    exchange = streaming(play(hooks=entries))
    exchange.receive(event(log("hold")), 10.0)
    assert exchange.pending is None
    assert exchange.receive(event(RESULT), 10.1) == b""
    assert exchange.pending is not None
    assert texts(exchange.resume_stream(PASS)) == ["held", "answer"]


def test_a_hook_that_would_have_to_ask_at_the_end_is_not_asked(play):
    entries = hooks("Holding")
    entries.append({"kind": f"{__name__}:Asking", "timeout": "1s", "methods": ["notifications/*"]})
    book = play(hooks=entries)
    exchange = streaming(book)
    exchange.receive(event(log("hold")), 10.0)
    [error] = documents(exchange.end())
    assert error["error"]["data"]["reason"] == "upstream-no-answer"
    assert book.audit()[-1]["rule"] == "hook-timeout"


@pytest.mark.parametrize("verdict", [Drop("boring"), Block(ContentBlocked("no"))])
def test_what_was_held_may_be_withheld_after_all(play, verdict):
    book = play(hooks=hooks("Holding"))
    book.site.chains["up"]._links[1].hook.verdict = verdict
    exchange = streaming(book)
    exchange.receive(event(log("hold"), id=b"5"), 10.0)
    data = exchange.flush(11.0)
    assert documents(data) == []
    assert b"id: " in data  # the cursor moves on all the same
    assert book.audit()[-1]["event"] == "message.blocked"


@pytest.mark.parametrize("verdict", [Hold(0.0, lambda: PASS), "nonsense"])
def test_a_hook_that_does_not_say_what_becomes_of_it_fails(play, verdict):
    book = play(hooks=hooks("Holding"))
    book.site.chains["up"]._links[1].hook.verdict = verdict
    exchange = streaming(book)
    exchange.receive(event(log("hold")), 10.0)
    assert exchange.flush(11.0) == b""
    assert book.audit()[-1]["rule"] == "hook-failed"


class HoldsAll:
    """Holds what must not be held."""

    name = "holds-all"

    def on_message(self, message: Message, exchange: Exchange) -> Verdict:
        return Hold(exchange.now + 1.0, lambda: PASS)


@pytest.mark.parametrize("document", [QUESTION, RESULT])
def test_requests_and_answers_are_never_held(play, document):
    book = play(hooks=hooks("HoldsAll", directions=["server"]))
    exchange = streaming(book)
    data = exchange.receive(event(document), 10.0)
    assert exchange.held_until is None
    assert book.audit()[-1]["rule"] == "hook-failed"
    assert bool(documents(data)) == (document is RESULT)


def test_a_hook_in_the_shadow_holds_nothing(play):
    exchange = streaming(play(hooks=hooks("Holding", mode="shadow")))
    assert texts(exchange.receive(event(log("hold")), 10.0)) == ["hold"]
    assert exchange.held_until is None


def test_what_is_held_is_bounded(play):
    exchange = streaming(play(hooks=hooks("Holding")))
    data = b"".join(exchange.receive(event(log("hold")), 10.0) for _ in range(MAX_MESSAGES + 3))
    assert texts(data) == ["held"] * 3
    padded = {**log("hold"), "pad": "x" * (MAX_BYTES // 2)}
    assert len(texts(exchange.receive(event(padded) + event(padded), 10.0))) == MAX_MESSAGES + 1


# -- event ids ------------------------------------------------------------------------------------------------------------


def ids(data: bytes) -> list[bytes | None]:
    return [frame.id for frame in sse.Decoder(10**7, 10**7).feed(data)]


def test_the_cursor_does_not_move_past_what_is_held(play):
    """A client that comes back gets what follows the last id (rule 5.3)."""
    book = play(hooks=hooks("Holding"))
    exchange = streaming(book)  # without a session, ids pass as they are
    exchange.bound = None
    assert ids(exchange.receive(event(log("a"), id=b"1"), 10.0)) == [b"1"]
    chunk = event(log("hold"), id=b"2") + event(log("b"), id=b"3") + b"id: 4\ndata:\n\n" + event(log("hold"), id=b"5")
    data = exchange.receive(chunk, 10.0)
    assert texts(data) == ["b"]
    assert ids(data) == [None, None]
    assert ids(exchange.flush(11.0)) == [None, b"5"]
    assert ids(exchange.receive(event(log("c")) + event(log("d"), id=b"6"), 12.0)) == [None, b"6"]


def test_one_without_an_id_brings_the_newest_along(play):
    exchange = streaming(play(hooks=hooks("Holding")))
    exchange.bound = None
    data = exchange.receive(event(log("hold")) + event(log("b"), id=b"3"), 10.0)
    assert ids(data) == [None]
    assert ids(exchange.flush(11.0)) == [b"3"]


# -- secrets over several messages -------------------------------------------------------------------------------------------


def test_a_secret_in_two_messages(play):
    book = play(**SPLIT)
    exchange = streaming(book)
    assert exchange.receive(event(log(f"key {TOKEN[:20]}")), 10.0) == b""
    assert exchange.held_until == pytest.approx(10.05)
    assert texts(exchange.receive(event(log(f"{TOKEN[20:]} done")), 10.01)) == [f"key {PLACEHOLDER}", " done"]
    assert exchange.held_until is None
    assert texts(exchange.receive(event(RESULT), 10.02)) == ["answer"]
    exchange.close(10.03)
    [finding] = book.audit()[-1]["findings"]
    assert (finding["rule"], finding["action"], finding["place"]) == ("github-token", "redact", "/params/data")


def test_what_was_no_secret_goes_on_at_once(play):
    exchange = streaming(play(**SPLIT))
    raw = event(log(f"key {TOKEN[:20]}"))
    assert exchange.receive(raw, 10.0) == b""
    other = event(log(" and so on"))
    assert exchange.receive(other, 10.01) == raw + other  # byte for byte


def test_others_do_not_wait_for_it(play):
    book = play(**SPLIT)
    exchange = streaming(book)
    data = exchange.receive(
        event(log(f"key {TOKEN[:20]}", "a")) + event(log("b", "b")) + event(log(TOKEN[20:], "a")), 10.0
    )
    assert texts(data) == ["b", f"key {PLACEHOLDER}", ""]


def test_a_secret_whose_beginning_is_out(play):
    book = play(**SPLIT)
    exchange = streaming(book)
    exchange.receive(event(log(f"key {TOKEN[:20]}")), 10.0)
    assert texts(exchange.flush(10.05)) == [f"key {TOKEN[:20]}"]
    assert texts(exchange.receive(event(log(f"{TOKEN[20:]} done")), 11.0)) == [f"{PLACEHOLDER} done"]
    exchange.receive(event(RESULT), 11.0)
    exchange.close(12.0)
    assert [each["action"] for each in book.audit()[-1]["findings"]] == ["flag", "redact"]


def test_such_a_secret_may_end_the_stream(play):
    book = play(hooks=["policy", {"kind": "sanitize", "options": {"on_split": "end", "max_hold": "20ms"}}])
    exchange = streaming(book)
    exchange.receive(event(log(f"key {TOKEN[:20]}")), 10.0)
    assert exchange.held_until == pytest.approx(10.02)
    exchange.flush(10.05)
    [error] = documents(exchange.receive(event(log(TOKEN[20:])) + event(log("more")) + event(RESULT), 11.0))
    assert error["id"] == 7
    assert error["error"]["data"] == {
        "origin": "gateway", "reason": "split-secret", "key": "hooks", "request": "r-1", "rule": "github-token",
    }  # fmt: skip
    assert exchange.done
    exchange.close(12.0)
    assert book.audit()[-1]["outcome"] == "split-secret"


def test_nothing_is_held_where_the_configuration_says_so(play):
    book = play(hooks=["policy", {"kind": "sanitize", "options": {"max_hold": 0}}])
    exchange = streaming(book)
    data = exchange.receive(event(log(f"key {TOKEN[:20]}")) + event(log(TOKEN[20:])), 10.0)
    assert texts(data) == [f"key {TOKEN[:20]}", PLACEHOLDER]


def test_in_the_shadow_findings_alone(play):
    book = play(hooks=["policy", {"kind": "sanitize", "mode": "shadow"}])
    exchange = streaming(book)
    raw = event(log(f"key {TOKEN[:20]}")) + event(log(TOKEN[20:])) + event(RESULT)
    assert exchange.receive(raw, 10.0) == raw
    exchange.close(12.0)
    assert [each["action"] for each in book.audit()[-1]["findings"]] == [
        "shadow-flag",
        "shadow-redact",
        "shadow-replace",
    ]


def test_a_rule_that_blocks_withholds_every_part(play):
    options = {"actions": {"github-token": "block"}}
    book = play(hooks=["policy", {"kind": "sanitize", "options": options}])
    exchange = streaming(book)
    data = exchange.receive(b"".join(event(log(each)) for each in ("x", TOKEN[:9], TOKEN[9:], " y")), 10.0)
    assert texts(data) == ["x", " y"]


def test_a_key_of_many_lines(play):
    """What is known to be a secret waits for nothing, however long it is."""
    exchange = streaming(play(**SPLIT))
    begin, end = "-----BEGIN " + "PRIVATE KEY-----\n", "-----END " + "PRIVATE KEY-----\n"
    lines = [begin, *("MIIE" + "vQIBADANBgkqhkiG9w0BAQEFAASC" * 2 + "\n",) * 400, end, "after"]
    out = []
    for index, line in enumerate(lines):
        out += texts(exchange.receive(event(log(line)), 10.0 + index / 1000))
        if index > 2:
            assert exchange.held_until is None
    assert "".join(out) == "[redacted:private-key]\nafter"


SECRETS = {
    "github-token": TOKEN,
    "json-web-token": "eyJ" + "hbGciOiJIUzI1NiJ9.eyJzdWIiOiJmYWtlLXVzZXIifQ.RkFLRXNpZ25hdHVyZQ",
    "aws-access-key-id": "AKIA" + "T3STFAKE5K2Y7ZQX",
}


def test_a_text_in_any_pieces(play):
    """Nothing of a secret gets out but what a deadline let go, and everything else does, in order."""
    book = play(**SPLIT)

    @settings(max_examples=200, deadline=None)
    @given(st.data())
    def run(data):
        rule = data.draw(st.sampled_from(sorted(SECRETS)))
        secret = SECRETS[rule]
        lead, trail = (
            data.draw(st.sampled_from(["", "the key is ", "é "])),
            data.draw(st.sampled_from([" and ", " é", "\n"])),
        )
        text = lead + secret + trail
        begin = len(lead)
        cuts = sorted(data.draw(st.sets(st.integers(1, len(text) - 1), max_size=12)))
        pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        flushed = data.draw(st.sets(st.sampled_from(cuts))) if cuts else set()
        exchange = streaming(book)
        out: list[str] = []
        at, now = 0, 10.0
        for piece in pieces:
            chunk = event(log(piece, "deltas")) + event(log(f"<{at}>", "others")) * data.draw(st.integers(0, 1))
            out += texts(exchange.receive(chunk, now))
            at += len(piece)
            if at in flushed:
                now += 0.06
                out += texts(exchange.flush(now))
            now += 0.001
        out += texts(exchange.receive(event(RESULT), now))
        exchange.close(now)
        assert out.pop() == "answer"
        others = [each for each in out if each.startswith("<")]
        assert others == sorted(others, key=lambda each: int(each[1:-1]))
        got = "".join(each for each in out if not each.startswith("<"))
        assert len(out) - len(others) == len(pieces)
        keyword = {"github-token": 4, "json-web-token": 3, "aws-access-key-id": 4}[rule]
        inside = [cut - begin for cut in flushed if keyword <= cut - begin < len(secret)]
        actions = [each.action for each in exchange._findings]
        bare = [lead + secret[:count] + f"[redacted:{rule}]" + trail for count in range(keyword)]
        if not inside:
            assert got in bare
            assert "flag" not in actions
        else:
            assert secret not in got
            assert got.startswith(lead) and got.endswith(trail)
            assert f"[redacted:{rule}]" in got
            leaked = got[len(lead) :].split("[", 1)[0]
            assert secret.startswith(leaked)
            assert leaked in ("", *(secret[:each] for each in (*inside, *range(keyword))))
            assert ("flag" in actions) == (len(leaked) >= keyword)

    run()


def documented() -> type[Any]:
    """The example of docs/hooks.md."""
    text = (Path(__file__).parents[2] / "docs" / "hooks.md").read_text()
    [code] = [code for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "class Once" in code]
    names: dict[str, Any] = {}
    exec(code, names)
    kind: type[Any] = names["Once"]
    return kind


Once = documented()


def test_the_documented_example(play):
    exchange = streaming(play(hooks=hooks("Once", directions=["server"], methods=["notifications/message"])))
    assert texts(exchange.receive(event(log("a")) * 2 + event(log("b")), 10.0)) == ["a"]
    assert texts(exchange.flush(10.1)) == ["b"]
    assert texts(exchange.receive(event(log("b")) + event(RESULT), 11.0)) == ["b", "answer"]
