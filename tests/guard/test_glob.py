from __future__ import annotations

import pytest

from gateway.guard.glob import GlobError, Globs, is_plain_name


@pytest.mark.parametrize(
    ("pattern", "matches", "others"),
    [
        ("get_weather", ["get_weather"], ["Get_Weather", "get_weather2", "xget_weather"]),
        ("get_*", ["get_", "get_weather", "get_a.b/c"], ["get", "Get_weather", "forget_weather"]),
        ("*", ["a", "admin.reset", "a b"], []),
        ("v?", ["v1", "vx"], ["v", "v10"]),
        ("*_*_*", ["a_b_c", "___"], ["a_b"]),
        ("a.b", ["a.b"], ["axb"]),
        ("[ab]", ["[ab]"], ["a"]),
        ("tools/*", ["tools/call", "tools/list"], ["tool/call", "prompts/tools/x"]),
    ],
)
def test_a_pattern_matches_whole_names_and_case(pattern: str, matches: list[str], others: list[str]) -> None:
    globs = Globs([pattern])
    assert all(name in globs for name in matches)
    assert not any(name in globs for name in others)


@pytest.mark.parametrize(
    "name",
    [
        "delete_repo ", " delete_repo", "delete\u200b_repo", "get_we\u0430ther", "get_weather\x00", "get_weather\nrun",
        "\uff47et", "", "x" * 129, "tab\tname", "\u2028",
    ],
)  # fmt: skip
def test_a_name_that_could_be_read_in_two_ways_is_matched_by_nothing(name: str) -> None:
    assert not is_plain_name(name)
    assert name not in Globs(["*"])
    assert name not in Globs([name or "x"])


@pytest.mark.parametrize("name", [None, 7, True, ["get_weather"], {"a": 1}, b"get_weather"])
def test_what_is_no_string_is_matched_by_nothing(name: object) -> None:
    assert name not in Globs(["*"])


def test_no_patterns_match_nothing() -> None:
    assert "a" not in Globs([])
    assert not Globs([])


def test_nested_stars_are_linear() -> None:
    # A backtracking matcher needs 2^64 steps for this one.
    assert "a" * 127 + "c" not in Globs(["a*" * 64 + "b"])


def test_literals_are_told_from_patterns() -> None:
    globs = Globs(["vendor/export", "tools/*"])
    assert globs.has_literal("vendor/export")
    assert not globs.has_literal("tools/call")
    assert "tools/call" in globs


def test_what_is_remembered_is_bounded() -> None:
    globs = Globs(["a*"])
    for number in range(10_000):
        assert f"a{number}" in globs
    assert len(globs._memory) <= 4096


def test_an_empty_pattern_is_an_error() -> None:
    with pytest.raises(GlobError, match="empty"):
        Globs([""])
    assert repr(Globs(["a*"])) == "Globs(['a*'])"


def test_too_many_patterns_are_an_error() -> None:
    with pytest.raises(GlobError, match="too many"):
        Globs([f"{number}*" + "x?" * 500 for number in range(3000)])
