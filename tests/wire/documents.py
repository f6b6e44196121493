"""JSON texts to read: valid ones in every spelling, and what becomes of them when bytes go wrong."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import strategies as st

from gateway.wire.strict import Limits

GENEROUS = Limits(depth=64, nodes=250_000, number_chars=128)
TIGHT = Limits(depth=3, nodes=12, number_chars=6)

WHITE_SPACE = st.sampled_from([b"", b"", b"", b" ", b"\n", b"\r\n\t "])
NUMBERS = st.one_of(
    st.integers().map(lambda value: b"%d" % value),
    st.floats(allow_nan=False, allow_infinity=False).map(lambda value: repr(value).encode()),
    st.sampled_from(
        [
            b"-0",
            b"0",
            b"-0.0",
            b"1E+2",
            b"1e-400",
            b"1e400",
            b"-1e999",
            b"0.1e1",
            b"1" * 128,
            b"1" * 129,
            b"-" + b"9" * 128,
            b"9007199254740993",
            b"18446744073709551616",
            b"1.7976931348623157e308",
            b"123456.",
            b"01",
            b"+1",
            b".5",
            b"NaN",
        ]
    ),
)
# What may stand between the quotes of a string.  The last ones are not allowed there.
INSIDE = st.lists(
    st.one_of(
        st.text(st.characters(exclude_characters='"\\', exclude_categories=["Cs", "Cc"]), max_size=5).map(str.encode),
        st.sampled_from(
            [
                rb"\n",
                rb"\"",
                rb"\\",
                rb"\/",
                rb"\u0041",
                rb"\ud83d\ude00",
                rb"\uD83D\uDE00",
                rb"\u0000",
                rb"\u00e9",
                b"\x7f",
                "é".encode(),
                "漢".encode(),
                "😀".encode(),
                b",",
                b"}",
                b"]",
                b"a" * 40,
                "é".encode() * 40,
            ]
        ),
    ),
    max_size=4,
).map(b"".join)
WRONG_INSIDE = st.sampled_from(
    [
        rb"\ud83d",
        rb"\ude00",
        rb"\ud83d\u0041",
        rb"\ud83dx",
        rb"\x",
        rb"\u12g4",
        b"\xff",
        b"\xc0\x80",
        b"\xed\xa0\x80",
        b"\x00",
        b"\n",
        b"\xf4\x90\x80\x80",
        b"\xe2\x82",
        b"\xf0\x9f\x98",
    ]
)
STRINGS = st.one_of(INSIDE, INSIDE, INSIDE, INSIDE, WRONG_INSIDE).map(lambda inside: b'"' + inside + b'"')
NAMES = st.one_of(
    st.sampled_from(
        [
            b"a",
            b"b",
            b"c",
            b"d",
            b"A",
            b"id",
            b"method",
            b"params",
            b"name",
            b"result",
            b"error",
            b"code",
            b"message",
            b"jsonrpc",
            b"_meta",
            b"progressToken",
            b"uri",
            b"arguments",
            b"Date",
            b"date",
            b"Method",
            rb"m\u0065thod",
            "param\u017f".encode(),
            "\u212a".encode(),
            b"k",
            "\u0130d".encode(),
            rb"a\u0000",
            b"x" * 70,
            b"X" * 70,
            b"~/",
            b"n" * 1030,
            b"N" * 1030,
            "é".encode() * 600,
            "É".encode() * 600,
            b"n" * 1040 + rb"\u0000",
        ]
    ),
    INSIDE,
).map(lambda inside: b'"' + inside + b'"')
SCALARS = st.one_of(st.sampled_from([b"true", b"false", b"null"]), NUMBERS, STRINGS, STRINGS)


def _spaced(parts: list[bytes], spaces: list[bytes]) -> bytes:
    return b"".join(part + spaces[index % len(spaces)] for index, part in enumerate(parts))


def _array(elements: list[bytes], spaces: list[bytes]) -> bytes:
    parts = [b"["]
    for element in elements:
        parts += [element, b","]
    return _spaced([*(parts[:-1] if elements else parts), b"]"], spaces)


def _object(members: list[tuple[bytes, bytes]], spaces: list[bytes]) -> bytes:
    parts = [b"{"]
    for name, value in members:
        parts += [name, b":", value, b","]
    return _spaced([*(parts[:-1] if members else parts), b"}"], spaces)


SPACES = st.lists(WHITE_SPACE, min_size=1, max_size=4)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.builds(_array, st.lists(inner, max_size=5), SPACES),
        st.builds(_object, st.lists(st.tuples(NAMES, inner), max_size=5), SPACES),
    ),
    max_leaves=20,
)
# Messages, so that the places of the envelope are visited: each place with a value that may or may not belong there.
_PARAMS = st.builds(
    _object,
    st.lists(
        st.tuples(st.sampled_from([b'"name"', b'"uri"', b'"arguments"', b'"_meta"']), VALUES),
        max_size=3,
        unique_by=lambda member: member[0],
    ),
    SPACES,
)
_META = VALUES.map(lambda value: b'{"_meta":{"progressToken":' + value + b',"x":1}}')
_MEMBERS = st.lists(
    st.one_of(
        st.just((b'"jsonrpc"', b'"2.0"')),
        st.tuples(
            st.just(b'"id"'), st.one_of(st.sampled_from([b"1", b'"x"', b"null", b"1.0", b"9007199254740992"]), VALUES)
        ),
        st.tuples(st.just(b'"method"'), st.one_of(st.just(b'"tools/call"'), VALUES)),
        st.tuples(st.just(b'"params"'), st.one_of(_PARAMS, _META, VALUES)),
        st.tuples(st.just(b'"result"'), st.one_of(st.just(b"{}"), VALUES)),
        st.tuples(
            st.just(b'"error"'),
            st.one_of(
                st.sampled_from(
                    [
                        b'{"code":1,"message":"m","data":[]}',
                        b'{"code":true,"message":"m"}',
                        b'{"code":1,"message":"","x":1}',
                    ]
                ),
                VALUES,
            ),
        ),
        st.tuples(NAMES, VALUES),
    ),
    max_size=5,
    unique_by=lambda member: member[0],
)
MESSAGES = st.builds(_object, st.builds(lambda members: [(b'"jsonrpc"', b'"2.0"'), *members], _MEMBERS), SPACES) | (
    st.builds(_object, _MEMBERS, SPACES)
)


@st.composite
def _damaged(draw: st.DrawFn) -> bytes:
    text = draw(VALUES | MESSAGES)
    for _ in range(draw(st.integers(1, 2))):
        at = draw(st.integers(0, len(text)))
        drop = draw(st.integers(0, 2))
        put = draw(
            st.one_of(
                st.binary(max_size=2),
                st.sampled_from([b",", b'"', b"\\", b"}", b"]", b"{", b"[", b":", b"e", b"0", b"\\u"]),
            )
        )
        text = text[:at] + put + text[at + drop :]
    return text


TEXTS = st.one_of(VALUES, MESSAGES, _damaged(), st.binary(max_size=20))
# Where to cut: lengths of chunks, used over and over.
CUTS = st.lists(st.integers(1, 40) | st.integers(1, 3), min_size=1, max_size=5) | st.just([1_000_000])


def pieces(data: bytes, cuts: list[int]) -> Iterator[bytes]:
    """``data`` in chunks of these lengths, over and over."""
    at, index = 0, 0
    while at < len(data):
        size = cuts[index % len(cuts)]
        yield data[at : at + size]
        at, index = at + size, index + 1
