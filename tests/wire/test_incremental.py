"""The push lexer: what is known when, and the same verdict as strict.parse in any cutting."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.wire.envelope import Envelope, Kind, classify
from gateway.wire.errors import EnvelopeError, JsonSyntaxError, LimitExceeded, PeerError
from gateway.wire.incremental import EnvelopeField, Event, Mark, Reader, StringWindow
from gateway.wire.strict import Limits, Twins, parse
from tests.wire.documents import CUTS, GENEROUS, MESSAGES, TEXTS, TIGHT, pieces

CALL = (
    b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"echo","arguments":{"name":"no","text":"'
    + b"x" * 40
    + b'"},"_meta":{"progressToken":"p","x":{"progressToken":1}},"uri":"u"}}'
)


def read(
    data: bytes, cuts: list[int], limits: Limits = GENEROUS, twins: Twins = Twins.ANY, **options: Any
) -> tuple[Reader, list[Event]]:
    reader = Reader(limits, twins, **options)
    events = [event for piece in pieces(data, cuts) for event in reader.feed(piece)]
    reader.finish()
    return reader, events


@pytest.mark.parametrize("cuts", [[1], [3], [1000]])
def test_a_call_is_known_before_it_has_arrived(cuts: list[int]) -> None:
    reader = Reader(GENEROUS, Twins.ANY, window=16)
    assert (reader.method, reader.name, reader.shape) == (Mark.UNKNOWN, Mark.UNKNOWN, Mark.UNKNOWN)
    head, tail = CALL[: CALL.index(b',"arguments"')], CALL[CALL.index(b',"arguments"') :]
    events = [event for piece in pieces(head, cuts) for event in reader.feed(piece)]
    assert events == [
        EnvelopeField("jsonrpc", "2.0"),
        EnvelopeField("id", 7),
        EnvelopeField("method", "tools/call"),
        EnvelopeField("params.name", "echo"),
    ]
    assert (reader.jsonrpc, reader.id, reader.method, reader.name) == ("2.0", 7, "tools/call", "echo")
    assert (reader.uri, reader.progress_token, reader.has_result, reader.has_error) == (
        Mark.UNKNOWN,
        Mark.UNKNOWN,
        False,
        False,
    )
    events = [event for piece in pieces(tail, cuts) for event in reader.feed(piece)]
    assert events == [
        StringWindow("/params/arguments/text", b"x" * 16, False),
        StringWindow("/params/arguments/text", b"x" * 16, False),
        StringWindow("/params/arguments/text", b"x" * 8, True),
        EnvelopeField("params._meta.progressToken", "p"),
        EnvelopeField("params.uri", "u"),
    ]
    with pytest.raises(RuntimeError):
        reader.envelope()
    reader.finish()
    assert reader.envelope() == Envelope(Kind.REQUEST, 7, "tools/call")
    assert (reader.uri, reader.progress_token, reader.shape) == ("u", "p", Mark.OBJECT)


def test_answers() -> None:
    reader = Reader(GENEROUS, Twins.PROTOCOL)
    assert reader.feed(b'{"result" : [') == [EnvelopeField("result", Mark.BEGUN)]
    assert reader.has_result
    assert reader.feed(b'{"id":1}],"error":null,"id":"x","jsonrpc":"2.0"}') == [
        EnvelopeField("error", Mark.BEGUN),
        EnvelopeField("id", "x"),
        EnvelopeField("jsonrpc", "2.0"),
    ]
    assert reader.has_error
    reader.finish()
    assert reader.method is Mark.ABSENT
    with pytest.raises(EnvelopeError):
        reader.envelope()


def test_an_error_of_any_length_is_an_error() -> None:
    data = b'{"jsonrpc":"2.0","id":1,"error":{"code":-1,"message":"' + b"m" * 100 + b'","data":{"x":[]}}}'
    reader, _ = read(data, [9], window=16)
    assert reader.envelope() == Envelope(Kind.ERROR, 1, None)


@pytest.mark.parametrize(
    ("data", "shape"),
    [(b" [", Mark.ARRAY), (b"{", Mark.OBJECT), (b" ", Mark.UNKNOWN), (b'"x"', Mark.ABSENT), (b"true", Mark.ABSENT)],
)
def test_a_batch_is_known_at_once(data: bytes, shape: Mark) -> None:
    reader = Reader(GENEROUS, Twins.ANY)
    reader.feed(data)
    assert reader.shape is shape


def test_values_that_do_not_belong() -> None:
    data = (
        b'{"jsonrpc":{},"id":[1],"method":"'
        + b"m" * 17
        + b'","params":{"name":1.5,"uri":null,"_meta":{"progressToken":[]}}}'
    )
    reader, events = read(data, [1000], window=16)
    assert [event for event in events if isinstance(event, EnvelopeField)] == [
        EnvelopeField("jsonrpc", Mark.OBJECT),
        EnvelopeField("id", Mark.ARRAY),
        EnvelopeField("method", Mark.OVERLONG),
        EnvelopeField("params.name", 1.5),
        EnvelopeField("params.uri", None),
        EnvelopeField("params._meta.progressToken", Mark.ARRAY),
    ]
    with pytest.raises(EnvelopeError):
        reader.envelope()


def test_pointers() -> None:
    data = b'{"a~/":[0,["",{"\\u00e9":"x"}],"y"],"' + b"n" * 2000 + b'":"z"}'
    _, events = read(data, [5], every_string=True)
    assert events == [
        StringWindow("/a~0~1/1/0", b"", True),
        StringWindow("/a~0~1/1/1/\u00e9", b"x", True),
        StringWindow("/a~0~1/2", b"y", True),
        StringWindow("/" + "n" * 1024 + "\u2026", b"z", True),
    ]
    _, events = read(b'"0123456789abcdefg"', [5], window=16)
    assert events == [StringWindow("", b"0123456789abcdef", False), StringWindow("", b"g", True)]
    # Indices go on behind elements that were read at once.
    text = b"[" + b"1,[2,3]," * 100 + b'"' + b"x" * 40_000 + b'"]'
    _, events = read(text, [1 << 20])
    assert [(event.pointer, len(event.text)) for event in events] == [("/200", 16384), ("/200", 16384), ("/200", 7232)]  # type: ignore[union-attr]


def test_windows_end_where_characters_do() -> None:
    _, events = read('"漢字漢字漢字\\u6f22"'.encode(), [1], window=16)
    assert events == [StringWindow("", "漢字漢字漢".encode(), False), StringWindow("", "字漢".encode(), True)]


def test_the_size_is_bounded() -> None:
    for cuts in ([1], [4], [100]):
        assert read(b'{"id":12}', cuts, max_size=9)[0].id == 12
        reader = Reader(GENEROUS, Twins.ANY, max_size=9)
        with pytest.raises(LimitExceeded) as caught:
            for piece in pieces(b'{"id":12,"x"', cuts):
                reader.feed(piece)
        assert (caught.value.reason, caught.value.limit) == ("too-large", "limits.max_message_size")
        assert reader.id == 12


def test_a_failure_stays() -> None:
    reader = Reader(GENEROUS, Twins.ANY)
    with pytest.raises(JsonSyntaxError):
        reader.feed(b'{"id":7}x')
    assert reader.id == 7
    for again in (lambda: reader.feed(b""), reader.finish):
        with pytest.raises(JsonSyntaxError):
            again()
    reader = Reader(GENEROUS, Twins.ANY)
    for _ in range(2):
        with pytest.raises(JsonSyntaxError, match="ends where a value is expected"):
            reader.finish()


def test_a_window_holds_any_character() -> None:
    with pytest.raises(ValueError, match="16"):
        Reader(GENEROUS, Twins.ANY, window=15)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "syntax"),
        (b" ", "syntax"),
        (b"[1,]", "syntax"),
        (b"[,1]", "syntax"),
        (b"[1 1]", "syntax"),
        (b"{,}", "syntax"),
        (b'{"a" 1}', "syntax"),
        (b'{"a":1,}', "syntax"),
        (b'{"a":}', "syntax"),
        (b"{1:1}", "syntax"),
        (b"[1}", "syntax"),
        (b"1 1", "syntax"),
        (b"01", "syntax"),
        (b"-", "syntax"),
        (b"1.", "syntax"),
        (b"1e+", "syntax"),
        (b"+1", "syntax"),
        (b"tru", "syntax"),
        (b"trux", "syntax"),
        (b"truex", "syntax"),
        (b"nul", "syntax"),
        (b"NaN", "syntax"),
        (b'"a', "syntax"),
        (b'"\x1f"', "syntax"),
        (b'"\\x"', "syntax"),
        (b'"\\u12g4"', "syntax"),
        (b'"\\u12', "syntax"),
        (b'"\\', "syntax"),
        (b"\x0c1", "syntax"),
        (b"\xff", "not-utf8"),
        (b'"\xc0\x80"', "not-utf8"),
        (b'"\xe6\xbc', "not-utf8"),
        (b'"\xed\xa0\x80"', "not-utf8"),
        (b'"\xf4\x90\x80\x80"', "not-utf8"),
        (b"\xef\xbb\xbf{}", "bom"),
        (b'"\\ud800"', "lone-surrogate"),
        (b'"\\udc00"', "lone-surrogate"),
        (b'"\\ud800\\u0041"', "lone-surrogate"),
        (b'{"\\ud83dx":1}', "lone-surrogate"),
        (b"1e400", "not-finite"),
        (b"1" * 129, "number-length"),
        (b"[" * 65, "depth"),
        (b'{"a":' * 65, "depth"),
        (b'{"a":1,"\\u0061":1}', "duplicate-member"),
        (b'{"a":1,"b":2,"A":1}', "folded-member"),
        (b'{"' + b"n" * 2000 + b'":1,"' + b"n" * 2000 + b'":1}', "duplicate-member"),
        (b'{"' + b"n" * 2000 + b'":1,"' + b"N" * 2000 + b'":1}', "folded-member"),
        (b'{"a\\u0000":1}', "nul-member"),
        (b'{"' + b"n" * 2000 + b'\\u0000":1}', "nul-member"),
        (b'{"\\u0000' + b"n" * 2000 + b'":1}', "nul-member"),
        (b'[{"a":' + b"[1,2]," * 50 + b"}]", "syntax"),
        (b'{"x":{"a":1,"b":[1,2],"a":2}}', "duplicate-member"),
        (b"[ , ]" + b" " * 40, "syntax"),
        (b'{"a":[[ ,[1],[2],[3],[4],[5],[6]]]}', "syntax"),
    ],
)
def test_what_is_refused(data: bytes, reason: str) -> None:
    for cuts in ([1_000_000], [1000], *([[1], [2]] if len(data) < 5000 else [])):
        for options in ({}, {"every_string": True}, {"window": 16}):
            with pytest.raises(PeerError) as caught:
                read(data, cuts, **options)
            assert caught.value.reason == reason, (cuts, options)


@pytest.mark.parametrize("element", [b"1", b"[]", b'{"a":""}', b'"' + b"x" * 20 + b'"'])
def test_values_are_counted(element: bytes) -> None:
    limits = Limits(depth=3, nodes=100, number_chars=9)
    data = b"[" + b",".join([element] * 100) + b"]"
    for cuts in ([1_000_000], [10]):
        for options in ({}, {"every_string": True}, {"window": 16}):
            with pytest.raises(LimitExceeded, match="more values"):
                read(data, cuts, limits, **options)


# -- properties


def verdict(data: bytes, limits: Limits, twins: Twins) -> PeerError | None:
    try:
        parse(data, limits, twins=twins)
    except PeerError as error:
        return error
    return None


OPTIONS = st.fixed_dictionaries({"window": st.sampled_from([16, 50, 16384]), "every_string": st.booleans()})


@given(TEXTS, CUTS, st.sampled_from([GENEROUS, TIGHT]), st.sampled_from(Twins), OPTIONS)
@settings(max_examples=300)
@example(b'"\\\xe6', [1], GENEROUS, Twins.ANY, {})
@example(b"[[1,2],[3]  ,[4]]", [100], TIGHT, Twins.ANY, {})
def test_the_verdict_is_that_of_strict(
    data: bytes, cuts: list[int], limits: Limits, twins: Twins, options: dict[str, Any]
) -> None:
    expected = verdict(data, limits, twins)
    try:
        read(data, cuts, limits, twins, **options)
    except PeerError as error:
        assert expected is not None, error
    else:
        assert expected is None, expected


def windows(text: str, window: int, every: bool) -> Iterator[tuple[bytes, bool]]:
    data = text.encode()
    if len(data) <= window and not every:
        return
    while len(data) > window:
        cut = window
        while data[cut] & 0xC0 == 0x80:
            cut -= 1
        yield data[:cut], False
        data = data[cut:]
    yield data, True


FIELDS: dict[tuple[str | int, ...], set[str]] = {
    (): {"jsonrpc", "id", "method", "result", "error"},
    ("params",): {"name", "uri"},
    ("params", "_meta"): {"progressToken"},
}


def expected_events(value: Any, path: tuple[str | int, ...], window: int, every: bool) -> Iterator[Event]:
    reported = path != () and path[-1] in FIELDS.get(path[:-1], ())
    begins = reported and path in {("result",), ("error",)}
    name = ".".join(map(str, path))
    if begins:
        yield EnvelopeField(name, Mark.BEGUN)
    shown = value
    if isinstance(value, str):
        pointer = "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in path)
        for text, final in windows(value, window, every):
            yield StringWindow(pointer, text, final)
            shown = value if final and len(value.encode()) <= window else Mark.OVERLONG
    if isinstance(value, dict | list):
        shown = Mark.OBJECT if isinstance(value, dict) else Mark.ARRAY
    if reported and not begins:
        yield EnvelopeField(name, shown)
    if isinstance(value, dict | list):
        for step, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from expected_events(inner, (*path, step), window, every)


def cut_long_names(value: Any) -> Any:
    """Names as pointers show them."""
    if isinstance(value, dict):
        return {_shown(name): cut_long_names(inner) for name, inner in value.items()}
    return [cut_long_names(inner) for inner in value] if isinstance(value, list) else value


def _shown(name: str) -> str:
    return name if len(name.encode()) <= 1024 else name.encode()[:1024].decode(errors="ignore") + "\u2026"


@given(TEXTS | MESSAGES, CUTS, st.sampled_from(Twins), OPTIONS)
@settings(max_examples=150)
def test_events_are_those_of_the_document_in_any_cutting(
    data: bytes, cuts: list[int], twins: Twins, options: dict[str, Any]
) -> None:
    if verdict(data, GENEROUS, twins) is not None:
        return
    document = parse(data, GENEROUS, twins=twins)
    _, events = read(data, cuts, GENEROUS, twins, **options)
    assert events == [*expected_events(cut_long_names(document), (), options["window"], options["every_string"])]


# Elements that begin alike, and what else begins as they do: within them, in another list, in no list at all.
@pytest.mark.parametrize("cuts", [[1_000_000], [4096], [997, 61]])
@pytest.mark.parametrize(
    "data",
    [
        b"[" + b",".join(b'{"id": %d, "n": "x, {}"}' % n for n in range(700)) + b"]",
        b"[1" + b',{"a":[0,{"a":1},{"a":[2]}]}' * 700 + b"]",
        b"[" + b",\n [1,2,[3],[4]]".join([b""] * 700).lstrip(b",") + b"]",
        b'{"x":[0' + b",[1],[2]" * 9 + b'],"y":[0' + b",[1,[2],[3]]" * 700 + b"]}",
        b'[[0,{"a":1}],[0,{"a":2}],{"b":[0,{"a":3},{"a":"' + b"x" * 20_000 + b'"}]}]',
        b"[0" + b',{"a":1}' * 300 + b',{"a":}' + b',{"a":1}' * 300 + b"]",
        b"[0" + b',{"a":1}' * 300 + b"}" + b',{"a":1}' * 300 + b"]",
        b'["' + b'say \\"a\\" \\\\' * 9000 + b'","\\"' + b"b" * 300 + b'"]',
        b'["' + b'say \\"a\\" \\\\' * 900 + b'\\q"]',
        b'["' + b'say \\"a\\" ' * 900 + b'\n"]',
    ],
)
def test_what_is_read_at_once_is_read_as_ever(data: bytes, cuts: list[int]) -> None:
    error = verdict(data, GENEROUS, Twins.ANY)
    if error is not None:
        with pytest.raises(PeerError) as caught:
            read(data, cuts)
        assert caught.value.reason == error.reason
        return
    document = parse(data, GENEROUS, twins=Twins.ANY)
    _, events = read(data, cuts, window=16384, every_string=True)
    assert events == [*expected_events(document, (), 16384, True)]


@given(MESSAGES | TEXTS, CUTS)
@settings(max_examples=150)
def test_the_envelope_is_that_of_the_document(data: bytes, cuts: list[int]) -> None:
    if verdict(data, GENEROUS, Twins.ANY) is not None:
        return
    reader, _ = read(data, cuts)
    try:
        expected = classify(parse(data, GENEROUS, twins=Twins.ANY))
    except EnvelopeError as error:
        with pytest.raises(EnvelopeError) as caught:
            reader.envelope()
        assert caught.value.reason == error.reason
    else:
        assert reader.envelope() == expected


def test_json_test_suite(project: Path) -> None:
    suite = Path(os.environ.get("JSON_TEST_SUITE", project.parent / "shared" / "jsontestsuite")) / "test_parsing"
    if not suite.is_dir():
        pytest.skip("SKIPPED-NEEDS: JSON_TEST_SUITE does not name a copy of https://github.com/nst/JSONTestSuite")
    # Valid JSON that we refuse on purpose: two members of one name, NUL in a name.
    ours = {
        "y_object_duplicated_key.json",
        "y_object_duplicated_key_and_value.json",
        "y_object_escaped_null_in_key.json",
    }
    files = sorted(suite.glob("*.json"))
    assert len(files) > 300
    for file in files:
        data = file.read_bytes()
        error = verdict(data, GENEROUS, Twins.ANY)
        if not file.name.startswith("i_"):
            assert (error is None) == (file.name.startswith("y_") and file.name not in ours), (file.name, error)
        for cuts in ([1_000_000], [4096], *([[1], [3]] if len(data) < 5000 else [])):
            try:
                read(data, cuts)
            except PeerError as other:
                assert error is not None, (file.name, other)
            else:
                assert error is None, (file.name, error)


# -- time: each of these would take minutes if any byte were looked at once per chunk


@pytest.mark.timeout(20)
@pytest.mark.parametrize("size", [4096, 65536])
@pytest.mark.parametrize(
    "data",
    [
        b'["' + b"x" * 8_000_000 + b'"]',
        b'{"' + b"n" * 8_000_000 + b'":1}',
        b'["' + b"\\u0041" * 500_000 + b'"]',
        b" " * 8_000_000 + b"1",
        b"[" + b"1.5e3," * 200_000 + b"1]",
        b"[" + b'{"a":[[[[[1,2]]]]],"b":"c"},' * 20_000 + b"1]",
        b"[[[[[[" + b"[1]," * 100_000 + b"1]]]]]]",
        b"[" * 60 + b'"' + b"x" * 60_000 + b'"' + b"]" * 60,
        b"[" + (b'"' + b"x" * 2000 + b'",') * 2000 + b"1]",
        b"[" + (b'"' + b'\\"' * 200 + b'",') * 2000 + b"1]",
        b"[[[[[[" + b'[1,{"a":[[[[[1]]]]]},{"a":1}],' * 40_000 + b"1]]]]]]",
        b"{" + b",".join(b'"m%d":%d' % (n, n) for n in range(100_000)) + b"}",
        b'"' * 2_000_000,
        b"[" + b'"a" ' * 500_000,
        b"1" * 1_000_000,
    ],
)
def test_large_texts_take_linear_time(data: bytes, size: int) -> None:
    expected = verdict(data, GENEROUS, Twins.ANY)
    try:
        read(data, [size], max_size=16 << 20)
    except PeerError as error:
        assert expected is not None, error
    else:
        assert expected is None


@pytest.mark.timeout(20)
def test_one_byte_at_a_time() -> None:
    read(b'{"a":[1,"' + b"x" * 300_000 + b'",true]}', [1])


def test_memory_does_not_grow_with_a_string() -> None:
    reader = Reader(GENEROUS, Twins.ANY)
    reader.feed(b'["')
    for _ in range(100):
        events = reader.feed(b"x" * 65536)
        assert sum(len(event.text) for event in events if isinstance(event, StringWindow)) >= 65536 - 16384
        assert len(reader._text) <= 16384
