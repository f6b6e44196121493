"""Which names are one name to some parser."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.names import PROTOCOL_NAMES, LongName, Twins, fold, fold_bytes, same_name, shown


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("method", "Method"),
        ("params", "param\u017f"),
        ("k", "\u212a"),
        ("id", "\u0130d"),
        ("id", "\u0131d"),
        ("ß", "ẞ"),
        ("ß", "ss"),
    ],
)
def test_twins(one: str, other: str) -> None:
    assert fold(one) == fold(other)
    assert same_name(one.encode(), Twins.ANY)[0] == same_name(other.encode(), Twins.ANY)[0]


def test_no_two_characters_that_differ_in_case_only_are_kept_apart() -> None:
    """Parsers compare lower case, upper case, or both; each alone must not see more twins than the fold."""
    for character in map(chr, range(sys.maxunicode + 1)):
        if character.lower() == character == character.upper():
            continue
        for other in (character.lower(), character.upper()):
            # Sequences are no simple mapping: parsers that fold character by character do not use them.
            if len(other) == 1:
                assert fold(other) == fold(character), ascii(character)


@given(st.text(max_size=10), st.text(max_size=10))
def test_the_fold_of_a_whole_is_that_of_its_parts(one: str, other: str) -> None:
    assert fold(one + other) == fold(one) + fold(other)
    assert fold_bytes(one.encode()) == fold(one).encode()


def test_only_protocol_names_are_folded_for_answers() -> None:
    assert same_name(b"Date", Twins.PROTOCOL) == (b"Date", b"Date")
    assert same_name(b"Method", Twins.PROTOCOL) == (b"method", b"Method")
    assert same_name(b"Date", Twins.ANY) == (b"date", b"Date")
    assert {fold(name) for name in PROTOCOL_NAMES} == PROTOCOL_NAMES


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=4), min_size=1),
    st.sampled_from(Twins),
)
def test_a_long_name_in_parts_is_the_same_name(parts: list[str], twins: Twins) -> None:
    parts = ["é" * 600, *parts]
    long = LongName()
    for part in parts:
        long.update(part.encode())
    assert long.keys(twins) == same_name("".join(parts).encode(), twins)
    assert all(len(key) == 17 for key in long.keys(twins))


def test_shown() -> None:
    assert shown("a") == "'a'"
    assert shown("é\n") == r"'\xe9\n'"
    assert shown("x" * 41) == repr("x" * 40 + "...")
