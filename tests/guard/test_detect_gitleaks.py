from __future__ import annotations

from pathlib import Path

import pytest

from gateway.guard.detect import Budget, Detector, encode
from gateway.guard.gitleaks import parse_gitleaks
from gateway.guard.ruleset import Rule, RulesError, read_rules
from gateway.guard.sanitize import SanitizeHook
from tests.guard.messages import exchange, result

FILE = Path(__file__).parent / "data" / "gitleaks.toml"
RULES = read_rules(FILE)


def clean(text: str, rules: tuple[Rule, ...] = RULES) -> str:
    detector = Detector(rules, [rule.id for rule in rules])
    data = encode(text)
    redaction = detector.redact(detector.first_pass(data), data, Budget(10))
    return text if redaction is None else redaction.text


def test_a_file_as_operators_have_it() -> None:
    ids = [rule.id for rule in RULES]
    assert len(ids) == 18
    # What speaks of files alone, and what only serves other rules.
    assert "key-store" not in ids
    assert "acme-helper" not in ids
    Detector(RULES)


def test_in_the_hook_beside_the_rules_that_come_with_it() -> None:
    hook = SanitizeHook(rules_files=[str(FILE)], actions={"acme-legacy": "flag"})
    at = exchange()
    hook.on_message(result("tools/call", content=[{"text": "legacy-12345678 acme-id=abc;code=0123456789abcdef"}]), at)
    assert {(finding.rule, finding.action) for finding in at.findings} == {
        ("acme-legacy", "flag"),
        ("acme-pair", "redact"),
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x acme_live_q7w2e9r4t6y1u8i3o5p0aa12 y", "x [redacted:acme-api-key] y"),
        ("x acme_live_aaaaaaaaaaaaaaaaaaaaaaaa y", "x acme_live_aaaaaaaaaaaaaaaaaaaaaaaa y"),
        ("api_key = 'q7w2e9r4t6y1u8i3'", "api_key = '[redacted:generic-api-key]'"),
        ("api_key = 'changeme-q7w2e9r4t6y1u8i3'", "api_key = 'changeme-q7w2e9r4t6y1u8i3'"),
        ("api_key = 'q7w2EXAMPLEr4t6y1u8i3'", "api_key = 'q7w2EXAMPLEr4t6y1u8i3'"),
        ("api_key = 'not-a-real-one-q7w2e9r4'", "api_key = 'not-a-real-one-q7w2e9r4'"),
        ("public_key = 'q7w2e9r4t6y1u8i3'", "public_key = 'q7w2e9r4t6y1u8i3'"),
        ("api_key = 'q7w2e9r4t6y1u8i3' # gitleaks:allow\n", "api_key = 'q7w2e9r4t6y1u8i3' # gitleaks:allow\n"),
        (
            "# gitleaks:allow\napi_key = 'q7w2e9r4t6y1u8i3'\n# gitleaks:allow",
            "# gitleaks:allow\napi_key = '[redacted:generic-api-key]'\n# gitleaks:allow",
        ),
        ("api_key = '0000000000000000'", "api_key = '0000000000000000'"),
        ("acme-id=abc;code=0123456789abcdef", "acme-id=abc;code=[redacted:acme-pair]"),
        ("both-0dummy000000", "both-0dummy000000"),
        ("both-0abcdef00000 both-1dummy000000", "[redacted:acme-both] [redacted:acme-both]"),
        ("opt-x12345678 opt-y", "opt-x[redacted:acme-optional-group] [redacted:acme-optional-group]y"),
        ("https://hooks.acme.example/ABCD1234/abcdEFGH12345678", "https://hooks.acme.example/ABCD1234/[redacted:acme-hook]"),
        ("legacy-00000000 legacy-12345678", "legacy-00000000 [redacted:acme-legacy]"),
    ],
)  # fmt: skip
def test_what_their_members_mean(text: str, expected: str) -> None:
    assert clean(text) == expected


HEAD = "[[rules]]\nid = 'a'\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rules = [", "not TOML"),
        ("title = 'x'", "expected rules, each in a table [[rules]]"),
        ("rules = [1]", "expected rules, each in a table [[rules]]"),
        ("[extend]\nuseDefault = true\n", "extend: other files are not read"),
        ("ruless = 1", "unknown key 'ruless'; did you mean 'rules'?"),
        (HEAD + "regexp = 'b'", "rule 1: unknown key 'regexp'; did you mean 'regex'?"),
        ("[[rules]]\nid = 'A b'\nregex = 'b'", "rule 1: id must be"),
        (HEAD + "keywords = ['bb']", "rule 1 (a): regex must be a text"),
        (HEAD + "regex = '(?=x)y'", "rule 1 (a): regex: not RE2 syntax"),
        (HEAD + "regex = '(?<!x)y'", "look-around and back-references are not supported"),
        (HEAD + "regex = 'b$'", "needs keywords"),
        (HEAD + "regex = 'b'\nkeywords = ['b']", "keywords must have two or more characters"),
        (HEAD + "regex = 'b'\nkeywords = 'bb'", "keywords must be a list of texts"),
        (HEAD + "regex = 'b'\nentropy = 'high'", "entropy must be a number from 0 to 8"),
        (HEAD + "regex = 'b'\nentropy = true", "entropy must be a number from 0 to 8"),
        (HEAD + "regex = '(b)'\nsecretGroup = 2", "secretGroup must be one of the 1 groups"),
        (HEAD + "regex = 'b'\n[[rules.required]]\nid = 'c'", "required: rules that need other rules nearby"),
        (HEAD + "regex = 'b'\nallowlists = 3", "allowlist must be a table"),
        (HEAD + "regex = 'b'\n[rules.allowlist]\nregexes = ['(?!x)']", "(a): allowlist 1: regexes: not RE2 syntax"),
        (HEAD + "regex = 'b'\n[rules.allowlist]\nregexTarget = 'file'", "regexTarget: expected secret, match or line"),
        (HEAD + "regex = 'b'\n[rules.allowlist]\ncondition = 'XOR'", "condition: expected OR or AND"),
        (HEAD + "regex = 'b'\n[rules.allowlist]\nregexs = []", "did you mean 'regexes'?"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(text: str, expected: str) -> None:
    with pytest.raises(RulesError) as caught:
        parse_gitleaks(text, "acme.toml")
    assert str(caught.value).startswith("acme.toml")
    assert expected in str(caught.value)


def test_an_allowance_for_some_rules() -> None:
    rules = parse_gitleaks(
        "[[rules]]\nid = 'a'\nregex = 'key-[0-9]{4}'\n[[rules]]\nid = 'b'\nregex = 'lock-[0-9]{4}'\n"
        "[[allowlists]]\ntargetRules = ['a']\nregexes = ['0000']\n",
        "acme.toml",
    )
    assert clean("key-0000 key-0001 lock-0000", rules) == "key-0000 [redacted:a] [redacted:b]"
