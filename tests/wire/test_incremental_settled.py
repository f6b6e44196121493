"""What a Reader says while a document passes through: how far it is settled, and which members of the result it keeps."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.wire.errors import PeerError
from gateway.wire.incremental import Member, Reader, whole
from gateway.wire.strict import Limits, Twins, parse

LIMITS = Limits(20, 10**6, 60)
INSIDE = st.text(st.sampled_from(["a", '"', "\\", "\n", "é", "\U0001f600"]), max_size=700)
VALUES = st.recursive(
    st.one_of(INSIDE, st.integers(), st.booleans(), st.none()),
    lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(INSIDE, inner, max_size=4)),
    max_leaves=12,
)


def read(data: bytes, sizes: list[int]) -> dict[str, Any]:
    """The kept members of a document that is read in pieces; raises PeerError."""
    reader = Reader(LIMITS, Twins.PROTOCOL, no_strings=True, wanted=lambda name: name.startswith(b"k"))
    kept = {}
    at = turn = settled = 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        for event in reader.feed(data[at : at + size]):
            if type(event) is Member:
                kept.update(parse(b"{%b}" % data[event.start : event.end], LIMITS, twins=Twins.PROTOCOL))
        at, turn = min(at + size, len(data)), turn + 1
        assert settled <= reader.settled <= reader.position <= at
        settled = reader.settled
        string = reader.open_string
        assert string is None or (data[string.start] == 0x22 and settled <= string.start)
        assert reader.keeps is False or data[settled : settled + 2] == b'"k'
    reader.finish()
    assert reader.is_complete
    return kept


@settings(max_examples=300, deadline=None)
@given(
    result=st.dictionaries(st.sampled_from(["k1", "k2", "other", "x"]), VALUES),
    sizes=st.lists(st.integers(1, 400), min_size=1, max_size=3),
    ascii=st.booleans(),
    fault=st.one_of(
        st.none(), st.tuples(st.integers(0, 5000), st.sampled_from([b"", b'"', b"\\", b"}", b"\0", b"\xff", b"0"]))
    ),
)
def test_members_are_kept_and_the_verdict_is_that_of_strict(result, sizes, ascii, fault):
    data = json.dumps({"id": 1, "result": result}, ensure_ascii=ascii).encode()
    if fault is not None:
        at = fault[0] % len(data)
        data = data[:at] + fault[1] + data[at + 1 :]
    try:
        document = parse(data, LIMITS, twins=Twins.PROTOCOL)
    except PeerError:
        document = None
    try:
        kept = read(data, sizes)
    except PeerError:
        assert document is None
        return
    assert document is not None
    body = document.get("result")
    assert kept == {name: body[name] for name in (body if type(body) is dict else ()) if name.startswith("k")}


@given(text=INSIDE, ascii=st.booleans(), data=st.data())
def test_a_cut_divides_no_character_and_no_escape(text, ascii, data):
    raw = json.dumps(text, ensure_ascii=ascii)[1:-1].encode()
    end = data.draw(st.integers(0, len(raw)))
    cut = whole(raw, 0, end)
    assert end - 24 <= cut <= end or not raw[cut:end].strip(b"\\")
    assert "".join(json.loads(b'"%b"' % part) for part in (raw[:cut], raw[cut:])) == text
