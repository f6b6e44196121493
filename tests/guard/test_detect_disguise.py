from __future__ import annotations

import base64
import json
import random
import re
import unicodedata
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.guard.blocks import join
from gateway.guard.edit import strings
from gateway.guard.hook import PASS, Block, Exchange, Replace, Verdict
from gateway.guard.normalise import fold, pack, packed, unpack
from gateway.guard.sanitize import SanitizeHook
from gateway.protocol.message import Message, Sender
from tests.guard.messages import error, exchange, request, result

GITHUB = "ghp" + "_" + "FAKE0fake1TEST2test3ABCD4efgh5IJKL6m7"
HOOK = SanitizeHook()


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def percent(text: str) -> str:
    return "".join(f"%{octet:02x}" for octet in text.encode())


def wide(text: str) -> str:
    return "".join(chr(ord(character) + 0xFEE0) for character in text)


def escaped(text: str) -> str:
    return "".join(f"\\u{ord(character):04x}" for character in text)


def run(message: Message, hook: SanitizeHook = HOOK) -> tuple[Any, Exchange, Verdict]:
    at = exchange()
    verdict = hook.on_message(message, at)
    return verdict.message.document if isinstance(verdict, Replace) else message.document, at, verdict


def clean(text: str, hook: SanitizeHook = HOOK) -> str:
    document, _, _ = run(result("tools/call", content=[{"type": "text", "text": text}]), hook)
    cleaned: str = document["result"]["content"][0]["text"]
    return cleaned


LONG = "and more text follows here, for a while; " * 4

DISGUISES = {
    "base64": b64(f"token={GITHUB}"),
    "base64 without padding": b64(f"a token={GITHUB}").rstrip("="),
    "base64 for URLs": base64.urlsafe_b64encode(f"t??>>~~ {GITHUB}".encode()).decode(),
    "base64 of JSON": b64(json.dumps({"user": "zoé", "key": GITHUB, "z": 1})),
    "base64 of base64": b64(f"x {b64(GITHUB)}"),
    "base64 of escapes": b64(f"see {percent(GITHUB)}"),
    "base64 of a member": b64('{"user": "a", "password": "hunter2"}'),
    "base64 in lines": base64.encodebytes(f"{LONG}{GITHUB} {LONG}".encode()).decode().rstrip("\n"),
    "base64 in escaped lines": base64.encodebytes(f"{LONG}{GITHUB} {LONG}".encode())
    .decode()
    .rstrip()
    .replace("\n", "\\n"),
    "base64 with an escaped end": b64(f"{LONG} {GITHUB}").replace("=", "%3D"),
    "one letter in percent": "%67" + GITHUB[1:],
    "percent": percent(GITHUB),
    "percent twice": quote(percent(GITHUB)),
    "escapes of JSON": escaped(GITHUB),
    "one escape of JSON in JSON": "\\\\\\\\u0067" + GITHUB[1:],
    "escapes of source code": "".join(f"\\x{ord(c):02x}" for c in GITHUB),
    "decimal entities": "".join(f"&#{ord(c)};" for c in GITHUB),
    "hexadecimal entities": "".join(f"&#x{ord(c):X};" for c in GITHUB),
    "full width": wide(GITHUB),
    "mathematical": "".join(chr(0x1D5BA + ord(c) - 97) if c.islower() else c for c in GITHUB),
    "zero width": "\u200b".join(GITHUB),
    "colours": GITHUB[:9] + "\x1b[31m" + GITHUB[9:],
    "several at once": "\u2060".join((percent(GITHUB[:9]), wide(GITHUB[9:20]), GITHUB[20:])),
}


@pytest.mark.parametrize("name", DISGUISES)
@pytest.mark.parametrize("around", ["{}", "before {} after", '"{}",', "<a href='/x?y={}&z=1'>", "日本語 {} é"])
def test_a_disguised_secret_is_replaced_and_nothing_beside_it(name: str, around: str) -> None:
    rule = "secret-member" if "member" in name else "github-token"
    assert clean(around.replace("{}", DISGUISES[name])) == around.replace("{}", f"[redacted:{rule}]")


@pytest.mark.parametrize("name", DISGUISES)
def test_also_in_the_middle_of_a_long_text(name: str) -> None:
    rule = "secret-member" if "member" in name else "github-token"
    filler = "Wind é from %20 the west.\n" * 2000
    assert clean(f"{filler}({DISGUISES[name]}){filler}") == f"{filler}([redacted:{rule}]){filler}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"/v1/{b64(GITHUB)}/x", "/v1/[redacted:github-token]/x"),
        (f"data:text/plain;base64,{b64('hello ' + GITHUB)}", "data:text/plain;base64,[redacted:github-token]"),
        (f"{b64('harmless ' * 5)} {b64(GITHUB)}", f"{b64('harmless ' * 5)} [redacted:github-token]"),
        (f'{{"log": "line\\n{GITHUB}\\tend"}}', '{"log": "line\\n[redacted:github-token]\\tend"}'),
        (f"?q=%20{GITHUB}&x", "?q=%20[redacted:github-token]&x"),
        (f"\x1b[31m{GITHUB}\x1b[0m", "\x1b[31m[redacted:github-token]\x1b[0m"),
        (
            "https://x.example/?to=" + quote("postgres://app:hunter2-prod@db.example/x", safe=""),
            "https://x.example/?to=postgres%3A%2F%2Fapp%3A[redacted:url-password]%40db.example%2Fx",
        ),
    ],
)
def test_where_disguises_begin_and_end(text: str, expected: str) -> None:
    assert clean(text) == expected


HARMLESS = [
    "commit 3f786850e387550fdab836ed7e6dc881de23001b",
    "sha512-z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg/SpIdNs6c5H0NE8XYXysP+DGNKHfuwvY7kxvUdBeoGlODJ6+SfaPg==",
    "6f1e2c1a-9b7d-4c55-8f0e-2a4b6c8d0e1f and /usr/lib/python3/dist-packages/some_long_module_name/__init__.py",
    b64("The weather in Oslo is fine today, and tomorrow as well; nothing to hide here."),
    b64('{"password": "********", "token": ""}'),
    percent("nothing to hide"),
    wide("Tokyo2020"),
    escaped("grüße"),
    "https://example.com/?a=%20b%2Fc&amp;d=1 &#39;x&#39; 100%25",
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/",
    base64.b64encode(random.Random(4).randbytes(300_000)).decode(),
]


@pytest.mark.parametrize("text", HARMLESS, ids=range(len(HARMLESS)))
def test_honest_text_in_such_forms_is_left_alone(text: str) -> None:
    message = result("tools/call", content=[{"type": "text", "text": text}, {"type": "image", "data": text}])
    assert run(message)[2] is PASS


def test_everywhere_in_a_message() -> None:
    for message in (
        error(data={"trace": [b64(f"x {GITHUB}")]}),
        result("tools/call", structuredContent={percent(GITHUB): {b64(GITHUB): wide(GITHUB)}}),
        result("resources/list", resources=[{"uri": f"a://b?key={percent(GITHUB)}", "name": wide(GITHUB)}]),
    ):
        document, at, _ = run(message)
        seen = "\n".join(text.text for text in strings(document))
        assert at.findings
        assert {finding.rule for finding in at.findings} == {"github-token"}
        assert not any(form in seen for form in (percent(GITHUB), b64(GITHUB), wide(GITHUB), b64(f"x {GITHUB}")))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (f"line é\nkey={GITHUB}\nend", "line é\nkey=[redacted:github-token]\nend"),
        ('{"password": "hunter2", "x": 1}', '{"password": "[redacted:secret-member]", "x": 1}'),
    ],
)
def test_a_blob_stays_base64(content: str, expected: str) -> None:
    document, at, _ = run(result("resources/read", contents=[{"uri": "a://b", "blob": b64(content)}]))
    assert base64.b64decode(document["result"]["contents"][0]["blob"]).decode() == expected
    assert [finding.place for finding in at.findings] == ["/result/contents/0/blob"]


def test_a_blob_that_is_no_text_is_replaced() -> None:
    blob = base64.b64encode(b"\xff\xfe " + GITHUB.encode() + b" \xff").decode()
    document, _, _ = run(result("resources/read", contents=[{"uri": "a://b", "blob": blob}]))
    assert R in document["result"]["contents"][0]["blob"]
    assert len(document["result"]["contents"][0]["blob"]) < 40


def test_actions_and_members_of_rules_hold_under_disguises(tmp_path: Path) -> None:
    message = result("tools/call", content=[{"text": b64(GITHUB)}, {"text": percent(GITHUB)}])
    _, at, verdict = run(message, SanitizeHook(action="flag"))
    assert verdict is PASS
    assert [(finding.rule, finding.action) for finding in at.findings] == [("github-token", "flag")] * 2
    assert isinstance(run(message, SanitizeHook(actions={"github-token": "block"}))[2], Block)
    assert isinstance(run(message, SanitizeHook(max_hits=1))[2], Block)
    assert run(message, SanitizeHook(disable=["github-token"]))[2] is PASS
    file = tmp_path / "rules.yaml"
    file.write_text(
        "normalise: [base64]\n"
        "rules:\n"
        "  - {id: both, pattern: 'KEY-[0-9]{20}', keywords: [KEY-], normalise: [base64, percent]}\n"
        "  - {id: one, pattern: 'LOCK-[0-9]{20}', keywords: [LOCK-]}\n"
        "  - {id: none, pattern: 'DOOR-[0-9]{20}', keywords: [DOOR-], normalise: []}\n"
    )
    hook = SanitizeHook(rules_files=[str(file)])
    number = "12345678901234567890"
    assert clean(f"{b64('KEY-' + number)} {percent('KEY-' + number)}", hook) == "[redacted:both] [redacted:both]"
    assert (
        clean(f"{b64('LOCK-' + number)} {percent('LOCK')}-{number}", hook)
        == f"[redacted:one] {percent('LOCK')}-{number}"
    )
    assert clean(f"{b64('DOOR-' + number)} DOOR-{number}", hook) == f"{b64('DOOR-' + number)} [redacted:none]"


# -- in pieces --------------------------------------------------------------------------------------------------------

R = "[redacted:github-token]"


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([GITHUB[:20], GITHUB[20:]], [R, R]),
        (
            [f"see {GITHUB[:5]}", GITHUB[5:9], "", GITHUB[9:30], f"{GITHUB[30:]} end"],
            [f"see {R}", R, "", R, f"{R} end"],
        ),
        (list(GITHUB), [R] * len(GITHUB)),
        ([b64(f"x {GITHUB}")[:30], b64(f"x {GITHUB}")[30:]], [R, R]),
        ([GITHUB[:20], percent(GITHUB[20:])], [R, R]),
        (
            [f"{'a b' * 5000} {GITHUB[:20]}", f"{GITHUB[20:]} {'c d' * 5000}"],
            [f"{'a b' * 5000} {R}", f"{R} {'c d' * 5000}"],
        ),
        # What is complete is not drawn on into the next block.
        ([GITHUB, "abc def"], [R, "abc def"]),
        ([f"{GITHUB[:20]}.", GITHUB[20:]], [f"{GITHUB[:20]}.", GITHUB[20:]]),
        (["é" * 3000 + GITHUB[:20], GITHUB[20:] + "é" * 3000], ["é" * 3000 + R, R + "é" * 3000]),
    ],
)
@pytest.mark.parametrize("form", ["content", "contents", "messages", "resources", "sampling"])
def test_a_secret_in_successive_blocks(pieces: list[str], expected: list[str], form: str) -> None:
    message = {
        "content": lambda: result("tools/call", content=[{"type": "text", "text": piece} for piece in pieces]),
        "contents": lambda: result("resources/read", contents=[{"uri": "a://b", "text": piece} for piece in pieces]),
        "messages": lambda: result(
            "prompts/get", messages=[{"role": "user", "content": {"type": "text", "text": piece}} for piece in pieces]
        ),
        "resources": lambda: result(
            "tools/call",
            content=[{"type": "resource", "resource": {"uri": "a://b", "text": piece}} for piece in pieces],
        ),
        "sampling": lambda: request(
            "sampling/createMessage",
            Sender.SERVER,
            messages=[{"role": "user", "content": [{"type": "text", "text": piece} for piece in pieces]}],
        ),
    }[form]()
    document, _, _ = run(message)
    joined = join(document)
    seen = [text.text for text in strings(document) if text.member == "text" and not text.is_name]
    assert seen == expected or sorted(seen) == sorted(expected)
    assert joined is not None
    assert GITHUB not in joined.text


def test_pieces_around_an_image() -> None:
    content = [
        {"type": "text", "text": GITHUB[:20]},
        {"type": "image", "data": "AAAA"},
        {"type": "text", "text": GITHUB[20:]},
    ]
    document, at, _ = run(result("tools/call", content=content))
    assert [block.get("text") for block in document["result"]["content"]] == [R, None, R]
    assert [finding.place for finding in at.findings] == ["/result/content/0/text", "/result/content/2/text"]


def test_pieces_can_block() -> None:
    message = result("tools/call", content=[{"text": GITHUB[:20]}, {"text": GITHUB[20:]}])
    assert isinstance(run(message, SanitizeHook(action="block"))[2], Block)
    assert run(message, SanitizeHook(action="flag"))[2] is PASS


# -- undoing ----------------------------------------------------------------------------------------------------------

_units = [
    "a",
    "é",
    "%",
    "%67",
    "%2567",
    "%2",
    "\\",
    "\\n",
    "\\u0041",
    "\\x41",
    "&#65;",
    "&#",
    "&#x41;",
    "\uff21",
    "\u200b",
    "\x1b[1m",
]


@given(st.lists(st.sampled_from(_units), max_size=30).map("".join))
def test_every_character_of_a_folded_text_has_its_place(text: str) -> None:
    folded = fold(text)
    if folded is None:
        return
    places = [folded.place(index) for index in range(len(folded.text) + 1)]
    assert places == sorted(places)
    assert places[-1] == len(text)
    for index, character in enumerate(folded.text):
        origin = text[places[index] : places[index + 1]]
        assert origin[:1] == character or character in "gAa\n" or origin[0] in "%\\&\uff21"


def test_wide_forms_are_those_of_unicode() -> None:
    for (
        character
    ) in "\uff21\uff5a\uff3a\uff10\uff19\uff3f\uff0d\uff0e\u24d0\u24cf\U0001d400\U0001d59f\U0001d7d8\u2102\u00b2":
        folded = fold(character)
        assert folded is not None
        assert folded.text == unicodedata.normalize("NFKC", character)


@given(st.binary(max_size=200), st.sampled_from(["", " ", "/", "x-"]))
def test_base64_says_what_it_says(data: bytes, before: str) -> None:
    text = before.encode() + b"ghp_0123456789abcdefghij" + data
    found = list(packed(b"(" + base64.b64encode(text) + b")"))
    assert any(run.data.endswith(text[len(before) :][-20:]) or text.startswith(run.data) for run in found)
    assert unpack(pack(data)) == data


def test_what_is_not_base64_as_a_whole() -> None:
    for text in ("abc", "a b=", "é", "QQ==QQ=="):
        assert unpack(text) is None


HOSTILE = [
    "%67" * 60_000,
    "%25" * 60_000,
    "\\" * 300_000,
    "\\\\u0067" * 40_000,
    "&#103;" * 40_000,
    "&#" * 100_000,
    "\uff47" * 100_000,
    "\uff47\u0301" * 50_000,
    "\x1b]" * 60_000,
    "\x9d" * 200_000,
    b64("ghp_ nothing") * 8_000,
    (b64("nothing to hide here") + " ") * 8_000,
    (base64.b64encode(b"x" * 57).decode() + "\n") * 3_000,
    (b64("%67" * 100) + "%") * 500,
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_texts_end(text: str) -> None:
    # Each of these takes a fraction of a second; one that went back would take hours.
    pieces = [{"type": "text", "text": part} for part in re.findall(".{1,5000}", text, re.DOTALL)]
    for content in ([{"type": "text", "text": text}], pieces):
        assert isinstance(run(result("tools/call", content=content))[2], type(PASS))


@pytest.mark.parametrize("unit", ["%67.", "a\u200b", b64("nothing to hide") + " "])
def test_disguises_have_a_budget(unit: str) -> None:
    hook = SanitizeHook(max_hits=1, results="off")
    assert run(result("tools/call", a=unit * 1_000), hook)[2] is PASS
    verdict = run(result("tools/call", a=unit * 1_001 + GITHUB), hook)[2]
    assert isinstance(verdict, Block)
    assert verdict.error.reason == "too-many-secrets"


def test_places_are_right_behind_secrets_that_run_into_each_other() -> None:
    """Beside characters of several octets, where a match that is not disguised ends behind the next one's beginning."""
    glued = "glpat-q7w2e9r4t6y1u8i3o5p0-----BEGIN EC PRIVATE KEY-----"
    hidden = b64(f"token={GITHUB}")
    cleaned = clean(f"\u00fc{hidden}%41{glued}{hidden}\u00fc{GITHUB}")
    assert hidden not in cleaned
    assert GITHUB not in cleaned
    assert "q7w2e9r4" not in cleaned
    assert cleaned.startswith("\u00fc[redacted:github-token]")
    assert cleaned.endswith("[redacted:github-token]\u00fc[redacted:github-token]")


def test_a_key_that_follows_a_token_at_once_is_found() -> None:
    body = "q7w2e9r4t6y1u8i3o5p0K3M7P2R9T4V6X8Z1B5D0Abq7w2e9r4t6y1u8i3o5p0K3"
    key = f"-----BEGIN EC PRIVATE KEY-----\n{body}\n-----END EC PRIVATE KEY-----"
    cleaned = clean(f"glpat-q7w2e9r4t6y1u8i3o5p0{key}")
    assert cleaned == "[redacted:gitlab-token][redacted:private-key]"
