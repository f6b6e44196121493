"""What is accepted means the same to every parser that a peer may use."""

from __future__ import annotations

import base64
import json
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jiter
import orjson
import pytest
from hypothesis import given, settings

from gateway.wire.errors import PeerError
from gateway.wire.strict import Twins, dumps, parse
from tests.wire.documents import GENEROUS, TEXTS

Ask = Callable[[bytes], str]


def spell(value: Any) -> str:
    """As parse.mjs does: equal strings are equal values to a parser whose numbers are doubles."""
    if value is None:
        return "z"
    if value is True:
        return "t"
    if value is False:
        return "f"
    if isinstance(value, str):
        return "s" + value.encode().hex()
    if isinstance(value, int | float):
        return "n" + struct.pack(">d", value or 0.0).hex()
    if isinstance(value, list):
        return "[" + ",".join(map(spell, value)) + "]"
    return "{" + ",".join(sorted(f"{name.encode().hex()}:{spell(inner)}" for name, inner in value.items())) + "}"


def accepted(data: bytes, twins: Twins = Twins.PROTOCOL) -> Any:
    """The document, or Ellipsis when it is refused."""
    try:
        return parse(data, GENEROUS, twins=twins)
    except PeerError:
        return ...


@pytest.fixture(scope="module")
def node(needs: Callable[[str, str], str], project: Path) -> Iterator[Ask]:
    program = needs("node", "apt-get install nodejs")
    script = project / "tests" / "wire" / "parse.mjs"
    with subprocess.Popen([program, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        questions, answers = process.stdin, process.stdout
        assert questions is not None
        assert answers is not None

        def ask(data: bytes) -> str:
            questions.write(base64.b64encode(data) + b"\n")
            questions.flush()
            return answers.readline().decode().rstrip("\n")

        yield ask
        questions.close()
        process.wait(timeout=10)


@given(TEXTS)
@settings(max_examples=300)
def test_python_parsers_agree(data: bytes) -> None:
    document = accepted(data)
    if document is ...:
        return
    assert json.loads(data) == document
    assert repr(json.loads(data)) == repr(document)  # 1 is not 1.0, order counts
    assert repr(jiter.from_json(data)) == repr(document)
    # orjson makes doubles of integers beyond 64 bits.
    assert spell(orjson.loads(data)) == spell(document)


@given(TEXTS)
@settings(max_examples=300)
def test_javascript_agrees(node: Ask, data: bytes) -> None:
    document = accepted(data)
    if document is ...:
        return
    assert node(data) == spell(document)
    assert node(dumps(document)) == spell(document)


@pytest.mark.parametrize(
    "data", [b"NaN", b"[1,]", b"{'a':1}", b"01", b'"\n"', b"\xef\xbb\xbf{}", b"// x\n1", b'{"a":1,"a":2}', b"1e400"]
)
def test_what_parsers_disagree_on_is_refused(data: bytes) -> None:
    assert accepted(data) is ...


@given(TEXTS)
@settings(max_examples=300)
def test_what_is_forwarded_is_what_was_judged(data: bytes) -> None:
    """A request is written anew: its text has one meaning, and that is the document the policy saw."""
    document = accepted(data, Twins.ANY)
    if document is not ...:
        assert repr(parse(dumps(document), GENEROUS, twins=Twins.ANY)) == repr(document)
