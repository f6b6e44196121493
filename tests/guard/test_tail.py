from __future__ import annotations

import itertools
import re

import pytest
import re2
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.guard.ruleset import Rule, RulesError, default_rules
from gateway.guard.tail import LIMIT, SHORTEST, Tails, beginnings

DEFAULT = Tails(default_rules())


def opened(text: str, *rules: Rule) -> str:
    """What could become part of a match."""
    data = text.encode()
    return data[(Tails(rules) if rules else DEFAULT).start(data) :].decode()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("working", ""),  # the first letter of ghp_ is no keyword
        ("token gh", ""),
        ("token ghp_", "ghp_"),
        ("token ghp_abc", "ghp_abc"),
        ("token ghp_abc ", ""),
        ("token ghp_abc and", ""),
        ("xghp_abc", ""),  # not at a word's edge
        ("see http://example.com", "http://example.com"),  # a user's name and a password may follow
        ("see http://example.com/a", ""),
        ("Authorization: Bearer ", "Bearer "),
        ("the bearer of", "bearer of"),
        ("the bearer of news", ""),
        ("AKIA" + "A" * 16, "AKIA" + "A" * 16),  # one more, and it is none
        ("AKIA" + "A" * 17, ""),
        ("secret_key = 'abcd", "secret_key = 'abcd"),
        ("-----BEGIN RSA " + "PRIVATE KEY-----\nabc", "-----BEGIN RSA " + "PRIVATE KEY-----\nabc"),
        ("SK1", ""),  # a rule without keywords, and less than counts
        ("SK12", "SK12"),
        ("SK12 ", ""),
    ],
)
def test_where_a_text_is_open(text: str, expected: str) -> None:
    assert opened(text) == expected


def test_no_more_than_the_limit() -> None:
    text = b"ya29." + b"x" * 3 * LIMIT
    assert DEFAULT.start(text) == len(text)  # that it began is not seen any more
    rule = Rule("long", r"KEY=[a-z]{1,1000}=[a-z]{1,1000};", ("=",))
    text = b"KEY=" + b"x" * 900 + b"=" + b"y" * 900
    assert Tails([rule]).start(text, 1500) == len(text)
    assert Tails([rule]).start(text, 2000) == 0


def test_the_edge_of_a_word_is_seen_before_the_limit() -> None:
    rule = Rule("short", r"\bKEY[a-z]{1,20}", ("KEY",))
    assert Tails([rule]).start(b"aKEYxyz", 6) == 7
    assert Tails([rule]).start(b" KEYxyz", 6) == 1


def test_a_pattern_that_is_too_large() -> None:
    pattern = "(?:" * 30 + "a" * 50 + "{1000}" + "){1,2}" * 30
    with pytest.raises(RulesError):
        Tails([Rule("large", pattern, ("aa",))])


@pytest.mark.parametrize(
    ("pattern", "open_texts", "closed"),
    [
        ("ab", ["", "a"], ["ab", "b"]),
        ("ab?", ["", "a"], ["ab"]),
        ("a|bc", ["", "b"], ["a", "bc"]),
        ("a{2,}", ["", "a", "aa", "aaaaa"], ["b"]),
        ("a{2}", ["", "a"], ["aa"]),
        ("(ab){2}c", ["", "a", "ab", "aba", "abab"], ["ababc", "abb"]),
        (r"a\b", ["", "a"], ["ab"]),
        (r"a$", [""], ["a"]),
        (r"^a\z", [""], ["a"]),
        (r"(?i)ab", ["A"], ["AB"]),
        (r"a(?i)bc", ["aB"], ["AB"]),
        (r"(?:(?i)a|b)cd", ["Ac", "Bc"], ["aC"]),
        (r"(?i:a)(?-i:b)c", ["Ab"], ["AB"]),
        (r"(?i)a(?-i)bc", ["Ab"], ["AB"]),
        (r"(?is)a.(?-i:b)c", ["A\nb"], ["A\nB"]),
        (r"(?P<name>ab)c", ["ab"], ["abc"]),
        (r"\Qa.b*\Ec", ["a.", "a.b*"], ["axb", "a.b*c"]),
        (r"\Qab\E{2}c", ["abb"], ["abab"]),
        (r"\x41\x{42}\101c", ["AB", "ABA"], ["AC"]),
        (r"\pLb", ["", "é"], ["1"]),
        (r"\p{Greek}b", ["λ"], ["é"]),
        (r"[]a][^]a]c", ["]", "]b"], ["]]"]),
        (r"[[:alpha:]\]]b", ["x", "]"], ["1"]),
        (r"\(a\)|b", ["(a"], ["(a)"]),
        (r"a{,2}b", ["a{,2}"], ["aa"]),  # no counting in RE2
        ("ab??c", ["a", "ab"], ["abc"]),
        ("", [], [""]),
        (r"\A", [], [""]),
        ("a{0}", [], ["", "a"]),
        ("(?:a{0}|b)c", ["", "b"], ["a"]),
        ("a*?b", ["", "aaa"], ["b"]),
        ("aλ+", ["a", "aλλ"], ["λ"]),
    ],
)
def test_beginnings(pattern: str, open_texts: list[str], closed: list[str]) -> None:
    found = beginnings(pattern)
    for text in open_texts:
        assert found is not None and re2.fullmatch(found, text), text
    for text in closed:
        assert found is None or not re2.fullmatch(found, text), text


ATOMS = st.sampled_from(["a", "b", "[ab]", "(?i:A)", "."])
COUNTS = st.sampled_from(["", "?", "{2}", "{1,2}", "{0,1}?", "{0}"])
PATTERNS = st.recursive(
    st.tuples(ATOMS, COUNTS).map("".join),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map("".join),
        st.tuples(inner, inner).map("|".join).map("(?:{})".format),
        st.tuples(inner, COUNTS).map(lambda each: f"({each[0]}){each[1]}"),
    ),
    max_leaves=4,
)
WORDS = ["".join(word) for length in range(7) for word in itertools.product("ab", repeat=length)]


@settings(max_examples=200, deadline=None)
@given(PATTERNS)
def test_beginnings_are_what_matches_begin_with(pattern: str) -> None:
    """Of every match that is known, each beginning but the whole; and nothing that no known match begins with."""
    language = [word for word in WORDS if re.fullmatch(pattern, word)]
    longest = max(map(len, language), default=0)
    found = beginnings(pattern)
    for word in WORDS:
        expected = any(len(word) < len(each) and each.startswith(word) for each in language)
        is_open = found is not None and re2.fullmatch(found, word) is not None
        if expected:
            assert is_open, word
        elif longest < 6:
            assert not is_open, word
        enough = beginnings(pattern, 2)
        if expected and len(word) >= 2:
            assert enough is not None and re2.fullmatch(enough, word), word
        elif not is_open:
            assert enough is None or not re2.fullmatch(enough, word), word


@settings(max_examples=20, deadline=None)
@given(st.data())
@pytest.mark.parametrize("rule", [pytest.param(rule, id=rule.id) for rule in default_rules()])
def test_every_rule_is_seen_to_begin(rule: Rule, data: st.DataObject) -> None:
    pattern = rule.pattern.replace(r"\z", r"\Z")
    match = data.draw(
        st.from_regex(re.compile(pattern, re.ASCII), fullmatch=True).filter(lambda text: len(text) < LIMIT)
    )
    found = re2.search(rule.pattern, match)
    if found is None or found.end() < len(match):
        return  # the two engines do not agree on what is a letter
    cut = data.draw(st.integers(0, len(match) - 1))
    begun = match[found.start() : cut]
    lower = begun.lower()
    if rule.keywords and not any(word.lower() in lower for word in rule.keywords):
        return
    if not rule.keywords and len(begun) < SHORTEST:
        return
    text = ("at " + match[:cut]).encode()
    assert Tails([rule]).start(text) <= len(b"at ") + len(match[: found.start()].encode())
