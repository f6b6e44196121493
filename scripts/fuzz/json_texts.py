"""JSON: every parser reads what is accepted alike, and the incremental reader says what the strict one says."""

from __future__ import annotations

import base64
import json
import random
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jiter
import orjson

from gateway.wire.envelope import classify
from gateway.wire.errors import EnvelopeError, PeerError
from gateway.wire.incremental import Reader, StringWindow
from gateway.wire.strict import Limits, Twins, dumps, parse

from .damage import damaged
from .grammar import JSON_TOKENS, text
from .reference import Refused, read_json
from .seeds import corpus
from .target import Target, choices, cut

__all__ = ["JsonTexts"]

GENEROUS = Limits(depth=64, nodes=250_000, number_chars=128)
TIGHT = Limits(depth=3, nodes=12, number_chars=6)
_WINDOWS = (16, 50, 16 * 1024)
_REFUSED = object()
_NODE = Path(__file__).resolve().parents[2] / "tests" / "wire" / "parse.mjs"
# A name of more than 1 KiB is cut in a pointer.
_LONG_NAME = 1024


class JsonTexts(Target):
    """``parse`` is ``strict.parse``, or another one that is to be caught.  Node.js is asked where it is installed."""

    name = "json"
    invariant = (
        "what strict.parse accepts is read alike by json, orjson, jiter and JavaScript, what it refuses raises "
        "PeerError, a reference agrees on which is which, and so does the incremental Reader in any cutting"
    )

    def __init__(self, parse: Callable[..., Any] = parse) -> None:
        super().__init__()
        self._parse = parse
        self._node: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        program = shutil.which("node")
        if program is not None:
            self._node = subprocess.Popen([program, _NODE], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._node is not None:
            self._node.communicate(timeout=10)

    def make(self, source: random.Random) -> bytes:
        kind = source.random()
        if kind < 0.45:
            return text(source)
        if kind < 0.8:
            return damaged(text(source), source, JSON_TOKENS)
        if kind < 0.97:
            return damaged(source.choice(corpus("jsonrpc", "result")), source, JSON_TOKENS)
        return source.randbytes(source.randint(0, 24))

    def check(self, data: bytes) -> None:
        source = choices(data)
        limits = GENEROUS if source.random() < 0.8 else TIGHT
        twins = source.choice((Twins.ANY, Twins.PROTOCOL))
        try:
            document = self._parse(data, limits, twins=twins)
        except PeerError as error:
            document = _REFUSED
            self.counts[error.reason] += 1
        try:
            expected = read_json(data, limits, twins)
        except Refused as refused:
            assert document is _REFUSED, f"accepted, and the reference refuses it: {refused}"
        else:
            assert document is not _REFUSED, "refused, and the reference accepts it"
            assert repr(document) == repr(expected), f"not what json reads: {document!r}, {expected!r}"
            self.counts["accepted"] += 1
            self._compare(data, document, twins)
        for _ in range(2):
            self._read(data, limits, twins, document, source)

    def _compare(self, data: bytes, document: Any, twins: Twins) -> None:
        spelled = _spelled(document)
        assert repr(jiter.from_json(data)) == repr(document), "not what jiter reads"
        # orjson makes doubles of integers beyond 64 bits, and so does JavaScript of all.
        assert _spelled(orjson.loads(data)) == spelled, "not what orjson reads"
        anew = dumps(document)
        assert repr(self._parse(anew, GENEROUS, twins=twins)) == repr(document), "changed by being written anew"
        if self._node is not None and self._node.stdin is not None and self._node.stdout is not None:
            self._node.stdin.write(base64.b64encode(data) + b"\n" + base64.b64encode(anew) + b"\n")
            self._node.stdin.flush()
            for what in ("the text", "what is written anew"):
                assert self._node.stdout.readline().decode().rstrip("\n") == spelled, f"JavaScript differs on {what}"

    def _read(self, data: bytes, limits: Limits, twins: Twins, document: Any, source: random.Random) -> None:
        """The incremental reader on some cutting of the same bytes."""
        window, every = source.choice(_WINDOWS), source.random() < 0.5
        reader = Reader(limits, twins, window=window, every_string=every)
        events = []
        try:
            for piece in cut(data, source):
                events += reader.feed(piece)
            reader.finish()
        except PeerError as error:
            assert document is _REFUSED, f"the Reader refuses what parse accepts: {error.message}"
            return
        assert document is not _REFUSED, "the Reader accepts what parse refuses"
        strings: list[tuple[str, bytes]] = []
        begun = False
        for event in events:
            if isinstance(event, StringWindow):
                assert event.final or len(event.text) > window - 4, "a window that is not full"
                pointer, text = strings.pop() if begun else (event.pointer, b"")
                assert pointer == event.pointer, "windows of two strings are mixed"
                strings.append((pointer, text + event.text))
                begun = not event.final
        shown = [(at, text) for at, text in _strings(document, "") if every or len(text) > window]
        assert strings == shown, f"other strings in the windows: {strings!r}, {shown!r}"
        # Of an id or a method that is longer than a window it is known only that it is a string.
        if window == max(_WINDOWS):
            assert _outcome(reader.envelope) == _outcome(lambda: classify(document)), "another envelope"


def _outcome(envelope: Callable[[], Any]) -> Any:
    try:
        return envelope()
    except EnvelopeError as error:
        return error.reason


def _strings(value: Any, pointer: str) -> Iterator[tuple[str, bytes]]:
    """All string values with their pointers, in the order of the document."""
    if isinstance(value, str):
        yield pointer, value.encode()
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _strings(inner, f"{pointer}/{index}")
    elif isinstance(value, dict):
        for name, inner in value.items():
            if len(name.encode()) > _LONG_NAME:
                name = name.encode()[:_LONG_NAME].decode(errors="ignore") + "\u2026"
            yield from _strings(inner, pointer + "/" + name.replace("~", "~0").replace("/", "~1"))


def _spelled(value: Any) -> str:
    """As tests/wire/parse.mjs spells it: equal for equal values where all numbers are doubles."""
    if isinstance(value, bool) or value is None:
        return json.dumps(value)[0].replace("n", "z")
    if isinstance(value, str):
        return "s" + value.encode().hex()
    if isinstance(value, int | float):
        return "n" + struct.pack(">d", value or 0.0).hex()
    if isinstance(value, list):
        return "[" + ",".join(map(_spelled, value)) + "]"
    return "{" + ",".join(sorted(f"{name.encode().hex()}:{_spelled(inner)}" for name, inner in value.items())) + "}"
