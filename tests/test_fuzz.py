"""The fuzzer finds nothing in what there is, and finds what is wrong when something is."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import jiter
import pytest

from gateway.guard.hook import PASS, Exchange, Verdict
from gateway.protocol.message import Message
from gateway.wire import sse
from gateway.wire.errors import JsonSyntaxError
from gateway.wire.strict import Limits, Twins, parse
from scripts.fuzz.__main__ import main
from scripts.fuzz.connections import responses
from scripts.fuzz.documents import Documents
from scripts.fuzz.event_streams import EventStreams
from scripts.fuzz.json_texts import JsonTexts
from scripts.fuzz.run import TARGETS, Figures, Grown
from scripts.fuzz.target import Failure, Target, smaller

SEED = 20_26
INPUTS = {"json": 2000, "sse": 2000, "messages": 2000, "guard": 1500, "config": 300, "http": 250}


def first_failure(target: Target, inputs: int) -> Failure | None:
    with target:
        return target.check_all(SEED, range(inputs))


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_is_found(name: str) -> None:
    with TARGETS[name]() as target:
        for begin in range(0, INPUTS[name], target.batch):
            failure = target.check_all(SEED, range(begin, begin + target.batch))
            assert failure is None, failure and f"{failure.input!r}\n{failure.what}"
        assert len(target.counts) > 1, "every input had the same fate"


# -- it has teeth -----------------------------------------------------------------------------------------------------


def last_member_wins(data: bytes, limits: Limits, *, twins: Twins) -> Any:
    try:
        return json.loads(data.decode())
    except (ValueError, RecursionError):
        raise JsonSyntaxError("syntax", "not JSON") from None


def lossy(data: bytes, limits: Limits, *, twins: Twins) -> Any:
    document = parse(data, limits, twins=twins)
    return float(document) if type(document) is int else document


def infinite(data: bytes, limits: Limits, *, twins: Twins) -> Any:
    try:
        return jiter.from_json(data, catch_duplicate_keys=True)
    except ValueError:
        raise JsonSyntaxError("syntax", "not JSON") from None


def leaky(data: bytes, limits: Limits, *, twins: Twins) -> Any:
    if data[:1] == b"\xff":
        raise KeyError(data[:1])
    return parse(data, limits, twins=twins)


@pytest.mark.parametrize("defective", [last_member_wins, lossy, infinite, leaky])
def test_a_defective_parser_is_caught(defective: Callable[..., Any]) -> None:
    failure = first_failure(JsonTexts(defective), 20_000)
    assert failure is not None
    assert failure.target == "json"


class SplitsTooMuch(sse.Decoder):
    """Takes a vertical tab for the end of a line."""

    def feed(self, data: bytes) -> list[sse.Frame]:
        return super().feed(data.replace(b"\x0b", b"\n"))


class ForgetsItsBounds(sse.Decoder):
    def __init__(self, max_line: int, max_event: int) -> None:
        super().__init__(1 << 30, 1 << 30)


class SeesChunks(sse.Decoder):
    """Ends a frame where a chunk ends."""

    def feed(self, data: bytes) -> list[sse.Frame]:
        return super().feed(data + b"\n\n") if data.endswith(b"}") else super().feed(data)


@pytest.mark.parametrize("defective", [SplitsTooMuch, ForgetsItsBounds, SeesChunks])
def test_a_defective_decoder_is_caught(defective: Callable[[int, int], sse.Decoder]) -> None:
    assert first_failure(EventStreams(defective), 5000) is not None


class Blind:
    name = "sanitize"

    def on_message(self, message: Message, exchange: Exchange) -> Verdict:
        return PASS


def test_a_hook_that_redacts_nothing_is_caught() -> None:
    failure = first_failure(Documents(Blind()), 200)
    assert failure is not None
    assert "came through" in failure.what


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfour",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfours",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfour\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfour\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX : y\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/0.9 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
        b"Traceback (most recent call last):\r\n\r\n",
    ],
)
def test_what_is_no_answer_is_caught(answer: bytes) -> None:
    with pytest.raises(AssertionError):
        responses(answer)


def test_answers_follow_each_other() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfour\r\n0\r\n\r\n"
    sized = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 4\r\n\r\nfour"
    assert responses(b"HTTP/1.1 100 Continue\r\n\r\n" + chunked + sized) == [100, 200, 400]


# -- what it says -----------------------------------------------------------------------------------------------------


def test_inputs_depend_on_seed_and_number_alone() -> None:
    target = JsonTexts()
    assert target.input(1, 5) == JsonTexts().input(1, 5)
    assert len({target.input(seed, number) for seed in (1, 2) for number in range(50)}) > 90


def test_inputs_are_made_smaller() -> None:
    assert smaller(b"x" * 500 + b"ab" + b"y" * 500, lambda data: b"ab" in data, 1000) == b"ab"
    assert smaller(b"abc", lambda data: data == b"abc", 1000) == b"abc"
    assert smaller(b"x" * 512 + b"!", lambda data: b"!" in data, 1) == b"x" * 256 + b"!"


def test_memory_that_grows_is_an_error() -> None:
    Figures("json", memory=[(1000, 1049), (1000, 900)]).check_growth()
    Figures("json").check_growth()
    with pytest.raises(Grown, match=r"json: memory grew by 6\.0%"):
        Figures("json", memory=[(1000, 900), (1000, 1060)]).check_growth()


def test_the_command_shares_the_inputs_between_processes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--target", "sse", "--inputs", "300", "--processes", "2"]) == 0
    assert "300 inputs" in capsys.readouterr().out


class Broken(Target):
    name = "sse"
    invariant = "no input holds a colon"

    def make(self, source: random.Random) -> bytes:
        return source.choice((b"a", b"b")) * source.randint(0, 20) + source.choice((b"", b":"))

    def check(self, data: bytes) -> None:
        assert b":" not in data, "a colon"


def test_the_command_shows_one_input(capsys: pytest.CaptureFixture[str], tmp_path: Any) -> None:
    assert main(["--target", "sse", "--index", "3"]) == 0
    assert "holds" in capsys.readouterr().out
    file = tmp_path / "input"
    file.write_bytes(b"data: x\n\n")
    assert main(["--target", "sse", "--file", str(file)]) == 0
    assert "b'data: x\\n\\n'" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["--index", "3"])


def test_a_failure_names_a_small_input() -> None:
    failure = first_failure(Broken(), 100)
    assert failure is not None
    assert failure.input == b":"
    assert "a colon" in failure.what
