from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.guard.glob import GlobError
from gateway.guard.uri import MAX_URI_CHARS, UriPatterns, UriRefused, normalise, normalise_template

ALLOWED = UriPatterns(["file:///allowed/", "https://docs.example.com/public/", "weather://**", "note://exact"])


@pytest.mark.parametrize(
    "uri",
    [
        # dot segments, plain and in every disguise
        "file:///allowed/../etc/passwd",
        "file:///allowed/./../etc/passwd",
        "file:///allowed/%2e%2e/etc/passwd",
        "file:///allowed/%2E./etc/passwd",
        "file:///allowed/%252e%252e/etc/passwd",
        "file:///allowed/%25252e%25252e/etc/passwd",
        "file:///allowed/..%2fetc%2fpasswd",
        "file:///allowed/..%252fetc",
        "file:///allowed/..\\etc",
        "file:///allowed/..%5cetc",
        "file:///allowed/\uff0e\uff0e/etc/passwd",
        "file:///allowed/%ef%bc%8e%ef%bc%8e/etc/passwd",
        "file:///allowed/\u2025/etc/passwd",
        "file:///allowed/.\u200b./etc/passwd",
        "file:///allowed/..;a=b/etc/passwd",
        "file:///allowed/.. /etc/passwd",
        "file:///allowed/%c0%ae%c0%ae/etc/passwd",
        "file:///allowed/.\t./etc/passwd",
        "file:///allowed/.%09./etc/passwd",
        "https://docs.example.com/public/../private/key",
        "weather://oslo/../../etc",
        "weather://../x",
        # characters that end or move a path
        "file:///allowed/a%00.md",
        "file:///allowed/a%2500.md",
        "file:///allowed/a\x00.md",
        "file:///allowed/a\nb",
        "file:///allowed/a%0d%0ab",
        "file:///allowed/a\u2028b",
        "file:///allowed/a\uff0fb/../c",
        "file:///allowed/a%ef%bc%8fb",
        "file:///allowed/%ef%bc%852e%ef%bc%852e/x",
        "file:///allowed/100%",
        "file:///allowed/%zz",
        "https://docs.example.com/public/a?q=%0aHost:x",
        # another scheme, host, port or prefix
        "FILE:///etc/passwd",
        "file://evil.example/allowed/readme.md",
        "file://localhost/allowed/readme.md",
        "file:/allowed/readme.md",
        "file:allowed/readme.md",
        "file:////allowed/readme.md",
        "file:///allowedsecret/key.pem",
        "file:///allowed",
        "file:///Allowed/readme.md",
        "http://docs.example.com/public/a",
        "https:docs.example.com/public/a",
        "https:/docs.example.com/public/a",
        "https://docs.example.com:8443/public/a",
        "https://docs.example.com:0443/public/a",
        "https://docs.example.com:/public/a",
        "https://docs.example.com:99999/public/a",
        "https://docs.example.com@evil.example/public/a",
        "https://user:pw@docs.example.com/public/a",
        "https://docs.example.com%40evil.example/public/a",
        "https://docs.example.com%2f@evil.example/public/a",
        "https://docs.example.com.evil.example/public/a",
        "https://docs.example.com./public/a",
        "https://evildocs.example.com/public/a",
        "https://docs\u3002example.com/public/a",
        "https:///public/a",
        "https://docs.example.com/publicity",
        "https://docs.example.com//public/a",
        # no URI at all
        "",
        "allowed/readme.md",
        "/allowed/readme.md",
        " file:///allowed/readme.md",
        "file:///allowed/readme.md ",
        "1file:///allowed/x",
        "file:///allowed/{path}",
        "weather://" + "x" * MAX_URI_CHARS,
        # an exact entry is exact
        "note://exact/more",
        "note://exact?x=1",
    ],
)
def test_refused(uri: str) -> None:
    assert ALLOWED.judge(uri) is None


@pytest.mark.parametrize(
    "uri",
    [
        "file:///allowed/readme.md",
        "file:///allowed/release..notes.txt",
        "file:///allowed/...txt",
        "file:///allowed/.hidden",
        "file:///allowed/a%20b.txt",
        "file:///allowed/a b.txt",
        "file:///allowed/",
        "file:///allowed/deep/er//x",
        "file:///allowed/%E6%97%A5%E6%9C%AC.md",
        "file:///allowed/\u65e5\u672c\uff08\uff11\uff09.md",
        "https://docs.example.com/public/search?q=../etc/passwd",
        "https://docs.example.com/public/search?next=https%3A%2F%2Fa.example%2F..",
        "https://docs.example.com/public/guide#intro",
        "weather://Oslo/current",
        "weather://",
        "weather://S%C3%A3o%20Paulo/current",
        "note://exact",
    ],
)
def test_allowed_and_forwarded_as_sent(uri: str) -> None:
    assert ALLOWED.judge(uri) == uri


@pytest.mark.parametrize(
    ("uri", "normal"),
    [
        ("FILE:///allowed/readme.md", "file:///allowed/readme.md"),
        ("HTTPS://DOCS.Example.COM/public/a", "https://docs.example.com/public/a"),
        ("https://docs.example.com:443/public/a", "https://docs.example.com/public/a"),
        ("https://docs.example.com/%70ublic/%7ea", "https://docs.example.com/public/~a"),
        ("https://docs.example.com:443/public/a?Q=%41#X", "https://docs.example.com/public/a?Q=%41#X"),
    ],
)
def test_allowed_and_forwarded_in_normal_form(uri: str, normal: str) -> None:
    assert ALLOWED.judge(uri) == normal
    assert ALLOWED.judge(normal) == normal


@pytest.mark.parametrize(
    ("pattern", "matches", "others"),
    [
        ("weather://*", ["weather://oslo"], ["weather://oslo/now"]),
        ("weather://*/now", ["weather://oslo/now"], ["weather://oslo/later", "weather://a/b/now"]),
        ("weather://**/now", ["weather://oslo/now", "weather://a/b/now"], ["weather://oslo/later"]),
        ("https://*.example.com/**", ["https://a.example.com/x/y"], ["https://example.com/x", "https://a.b/.example.com/"]),
        ("HTTPS://Docs.example.com:443/p/*", ["https://docs.example.com/p/a"], ["https://docs.example.com/p/a/b"]),
        ("file:///v?/x", ["file:///v1/x"], ["file:///v10/x", "file:///v//x"]),
        ("urn:isbn:*", ["urn:isbn:123"], ["urn:issn:123"]),
        ("*", ["a://b", "urn:x", "file:///etc/passwd"], ["file:///a/../b", "nonsense"]),
        ("**", ["a://b/c/d"], ["a://u@b"]),
        ("https://[::1]:8443/a", ["https://[::1]:8443/a"], ["https://[::2]:8443/a"]),
    ],
)  # fmt: skip
def test_patterns(pattern: str, matches: list[str], others: list[str]) -> None:
    patterns = UriPatterns([pattern])
    assert all(patterns.judge(uri) for uri in matches)
    assert not any(patterns.judge(uri) for uri in others)


@pytest.mark.parametrize(
    "pattern", ["https://docs**", "file:///a/../**", "nonsense/*", "**/x", "file://host/x", "note://a b\n", "1://*"]
)
def test_patterns_that_cannot_mean_anything_are_errors(pattern: str) -> None:
    with pytest.raises(GlobError):
        UriPatterns([pattern])


@pytest.mark.parametrize(
    ("template", "allowed"),
    [
        ("weather://{city}/current", True),
        ("file:///allowed/{path}", True),
        ("file:///allowed/{+path}{?page}", True),
        ("file:///allowed{/path*}", True),
        ("file:///{+path}", False),
        ("file:///{dir}/readme.md", False),
        ("file:///{dir}/../allowed/x", False),
        ("{scheme}:///allowed/x", False),
        ("https://{host}/public/x", False),
        ("file:///allowed/{unclosed", False),
        ("file:///allowed/readme.md", True),
    ],
)
def test_templates_pass_when_every_simple_expansion_would(template: str, allowed: bool) -> None:
    assert ALLOWED.judge(template, template=True) == (template if allowed else None)


def test_a_template_may_be_written_out() -> None:
    patterns = UriPatterns(["db://{table}/schema"])
    assert patterns.judge("db://{table}/schema", template=True)
    assert not patterns.judge("db://{other}/schema", template=True)
    assert not patterns.judge("db://users/schema")


def test_what_is_no_string_is_refused() -> None:
    assert ALLOWED.judge(None) is None
    assert ALLOWED.judge(["file:///allowed/a"]) is None
    assert not UriPatterns([])
    assert UriPatterns([]).judge("file:///a") is None
    assert repr(UriPatterns(["a://*"])) == "UriPatterns(['a://*'])"


def test_a_template_that_is_too_long_is_refused() -> None:
    with pytest.raises(UriRefused):
        normalise_template("a://" + "{x}" * MAX_URI_CHARS)


def test_what_is_remembered_is_bounded() -> None:
    patterns = UriPatterns(["a://**"])
    for number in range(5000):
        assert patterns.judge(f"a://{number}")
    assert len(patterns._memory) <= 4096


_pieces = st.lists(
    st.sampled_from(
        ["file:", "https:", "x:", "//", "/", "allowed", "..", ".", "%2e", "%2E", "%252e", "%2f", "%5c", "\\", "\uff0e",
         "\u2025", "@", ":", "443", "%00", "?", "#", "a", "\u200b", "%c0%ae", ";", " ", "docs.example.com", "%"]
    ),
    max_size=14,
)  # fmt: skip


@given(_pieces)
def test_the_normal_form_is_its_own_normal_form_and_cannot_climb(pieces: list[str]) -> None:
    try:
        uri = normalise("".join(pieces))
    except UriRefused:
        return
    again = normalise(uri.text)
    assert (again.text, again.subjects) == (uri.text, uri.subjects)
    for subject in uri.subjects:
        assert not {"..", "."} & set(subject.split("/"))
        assert "\\" not in subject


@given(st.text(max_size=60))
def test_any_text_has_a_normal_form_or_is_refused(text: str) -> None:
    for read in (normalise, normalise_template):
        try:
            read(text)
        except UriRefused:
            continue
