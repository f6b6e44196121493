from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.protocol.seal import KeyRing, SealBroken

RING = KeyRing()
contexts = st.lists(st.text(max_size=8), max_size=4)


@given(text=st.binary(max_size=200), context=contexts)
def test_what_is_sealed_opens(text, context):
    sealed = RING.seal("session", context, text)
    assert sealed.isascii() and " " not in sealed
    assert RING.open("session", context, sealed) == text
    assert RING.seal("session", context, text) != sealed  # nobody can tell that two hold the same


@given(text=st.text(max_size=100), context=contexts)
def test_what_is_signed_verifies(text, context):
    signed = RING.sign("event", context, text)
    assert RING.verify("event", context, signed) == text
    assert RING.sign("event", context, text) == signed


@given(one=contexts, other=contexts)
def test_another_context_opens_nothing(one, other):
    sealed, signed = RING.seal("a", one, b"x"), RING.sign("a", one, "x")
    for purpose, context in (("a", other), ("b", one)):
        if (purpose, context) == ("a", one):
            continue
        with pytest.raises(SealBroken):
            RING.open(purpose, context, sealed)
        with pytest.raises(SealBroken):
            RING.verify(purpose, context, signed)


@given(data=st.data())
def test_every_changed_character_is_noticed(data):
    for text, read in ((RING.seal("a", ("c",), b"text"), RING.open), (RING.sign("a", ("c",), "text"), RING.verify)):
        at = data.draw(st.integers(0, len(text) - 1))
        char = data.draw(st.sampled_from("ABCabc019-_.= \u00e9"))
        if text[at] != char:
            with pytest.raises(SealBroken):
                read("a", ("c",), text[:at] + char + text[at + 1 :])


@given(st.text())
def test_any_text_is_refused_and_nothing_else_happens(text):
    with pytest.raises(SealBroken):
        RING.open("a", (), text)
    with pytest.raises(SealBroken):
        RING.verify("a", (), text)


def test_keys_rotate():
    old, new = os.urandom(32), os.urandom(32)
    sealed, signed = KeyRing([old]).seal("a", (), b"x"), KeyRing([old]).sign("a", (), "x")
    both = KeyRing([new, old])
    assert both.open("a", (), sealed) == b"x"
    assert both.verify("a", (), signed) == "x"
    assert KeyRing([new]).open("a", (), both.seal("a", (), b"y")) == b"y"
    for ring in (KeyRing([new]), KeyRing()):
        with pytest.raises(SealBroken):
            ring.open("a", (), sealed)
        with pytest.raises(SealBroken):
            ring.verify("a", (), signed)


def test_keys_have_one_size():
    with pytest.raises(ValueError):
        KeyRing([b"short"])
