from __future__ import annotations

from pathlib import Path

import pytest

from gateway.guard.detect import Budget, Detector, encode
from gateway.guard.ruleset import Rule, RulesError, default_rules, read_rules, select

LOWER, HEX, UPPER = "q7w2e9r4t6y1u8i3o5p0", "0a1b2c3d4e5f6789", "K3M7P2R9T4V6X8Z1B5D0"
ALNUM = LOWER + UPPER + "Ab" + LOWER + UPPER


def some(alphabet: str, count: int) -> str:
    return (alphabet * (count // len(alphabet) + 1))[:count]


# One secret of each format, made up, and written in pieces so that no scanner takes this file for a leak.
SECRETS = {
    "github-token": "ghp" + "_" + some(ALNUM, 36),
    "github-fine-grained-token": "github" + "_pat_" + some(ALNUM, 40),
    "gitlab-token": "glpat" + "-" + some(ALNUM, 20),
    "npm-token": "npm" + "_" + some(ALNUM, 36),
    "pypi-token": "pypi" + "-AgEIcHlwaS5vcmc" + some(ALNUM, 60),
    "docker-token": "dckr" + "_pat_" + some(ALNUM, 27),
    "atlassian-token": "ATATT" + "3xFfGF0" + some(ALNUM, 60),
    "aws-access-key-id": "AK" + "IA" + some(UPPER, 16),
    "aws-secret-access-key": "aws_secret_access_key = " + some(ALNUM, 40),
    "google-api-key": "AI" + "za" + some(ALNUM, 35),
    "google-oauth-secret": "GOCSPX" + "-" + some(ALNUM, 28),
    "google-oauth-token": "ya29" + "." + some(ALNUM, 40),
    "azure-storage-key": "Account" + "Key=" + some(ALNUM, 86) + "==",
    "azure-sas-signature": "https://x.blob.example/a?sv=1&si" + "g=" + some(ALNUM, 43) + "%3D",
    "digitalocean-token": "dop" + "_v1_" + some(HEX, 64),
    "vault-token": "hv" + "s." + some(ALNUM, 24),
    "databricks-token": "dap" + "i" + some(HEX, 32),
    "anthropic-key": "sk-" + "ant-api03-" + some(ALNUM, 90),
    "openai-key": "sk-" + "proj-" + some(ALNUM, 48),
    "huggingface-token": "hf" + "_" + some(ALNUM, 34),
    "groq-key": "gsk" + "_" + some(ALNUM, 52),
    "slack-token": "xox" + "b-" + some("1234567890", 12) + "-" + some(ALNUM, 24),
    "slack-app-token": "xapp" + "-1-A0123-" + some(ALNUM, 40),
    "slack-webhook": "https://hooks.slack" + ".com/services/T0123/B0123/" + some(ALNUM, 24),
    "telegram-bot-token": "123456789" + ":AA" + some(ALNUM, 33),
    "twilio-key": "S" + "K" + some(HEX, 32),
    "sendgrid-key": "S" + "G." + some(ALNUM, 22) + "." + some(ALNUM, 43),
    "mailgun-key": "key" + "-" + some(HEX, 32),
    "stripe-key": "sk" + "_live_" + some(ALNUM, 24),
    "stripe-webhook-secret": "whsec" + "_" + some(ALNUM, 32),
    "shopify-token": "shp" + "at_" + some(HEX, 32),
    "square-token": "sq0" + "atp-" + some(ALNUM, 22),
    "grafana-token": "gl" + "sa_" + some(ALNUM, 32) + "_" + some(HEX, 8),
    "newrelic-key": "NR" + "AK-" + some(UPPER, 27),
    "sentry-token": "sntr" + "ys_" + some(ALNUM, 60),
    "postman-key": "PM" + "AK-" + some(HEX, 24) + "-" + some(HEX, 34),
    "linear-key": "lin" + "_api_" + some(ALNUM, 40),
    "json-web-token": "ey" + "J" + some(ALNUM, 20) + ".ey" + "J" + some(ALNUM, 30) + "." + some(ALNUM, 43),
    "private-key": "-----BEGIN EC PRIVATE" + " KEY-----\n" + some(ALNUM, 64) + "\n-----END EC PRIVATE" + " KEY-----",
    "age-secret-key": "AGE-SECRET" + "-KEY-1" + some(UPPER, 58),
    "url-password": "postgres://app:" + "hunter2-prod" + "@db.example:5432/x",
    "bearer-token": "Authorization: Bearer " + some(ALNUM, 32),
    "basic-credentials": "authorization: Basic " + some(ALNUM, 24) + "==",
}

# What of a match is no secret and stays.
KEPT = {
    "aws-secret-access-key": "aws_secret_access_key = [",
    "azure-sas-signature": "sv=1&sig=[",
    "url-password": "postgres://app:[",
    "slack-webhook": "/services/[",
}

HONEST = [
    "commit 3f786850e387550fdab836ed7e6dc881de23001b merged",
    "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
    "request 6f1e2c1a-9b7d-4c55-8f0e-2a4b6c8d0e1f done",
    "integrity sha512-z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg/SpIdNs6c5H0NE8XYXysP+DGNKHfuwvY7kxvUdBeoGlODJ6+SfaPg==",
    'ETag: W/"33a64df551425fcc55e4d42a148795d9f25f89d4"',
    "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE\n-----END PUBLIC KEY-----",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1kYqyJdx6GGfUoTn1ACl0S1fEi4BbXl2eC5A2a7vQp me@host",
    "set GITHUB_TOKEN=ghp_" + "x" * 36 + " first",
    "AKIAIOSFODNN7" + "EXAMPLE",
    "export AWS_SECRET_ACCESS_KEY from your vault; aws_secret_access_key = <your key>",
    "password: ******** (hidden)",
    "postgres://user:password@localhost/db, postgres://user:****@host/db, postgres://user:${DB_PASSWORD}@host/db",
    "https://docs.example.com:8443/a@b and https://example.com/path:with@colon",
    "The bearer of this letter; bearer authentication; Authorization: Bearer <token>",
    "class sk-fading-circle, risk-assessment-of-the-whole-organisation-in-detail, task-1",
    "monkey-patching, key-value, keyboard, SKU 12345, SG.com, basic authentication, basic needs",
    "eyJ is how a JSON object begins in base64; version 1.2.3; a.b.c",
    "-----BEGIN RSA PRIVATE KEY----- is the first line of such a file.",
    "12:34:56 AAA battery:AA",
]


def everything() -> Detector:
    rules = default_rules()
    return Detector(rules, [rule.id for rule in rules])


@pytest.mark.parametrize("rule", [rule.id for rule in default_rules()])
def test_each_rule_finds_its_format_and_leaves_the_neighbours(rule: str) -> None:
    detector = everything()
    text = encode(f'before "{SECRETS[rule]}" after')
    candidates = detector.second_pass(detector.first_pass(text), text)
    redaction = detector.redact(candidates, text, Budget(10))
    assert redaction is not None
    assert rule in redaction.counts
    assert f"[redacted:{rule}]" in redaction.text
    assert redaction.text.startswith("before ")
    assert redaction.text.endswith(" after")
    assert KEPT.get(rule, "") in redaction.text
    assert LOWER[:12] not in redaction.text
    assert "hunter2" not in redaction.text


@pytest.mark.parametrize("text", HONEST)
def test_honest_text_is_left_alone(text: str) -> None:
    detector = everything()
    data = encode(text)
    assert detector.redact(detector.first_pass(data), data, Budget(10)) is None


def test_every_default_rule_is_well_known() -> None:
    assert set(SECRETS) == {rule.id for rule in default_rules()}
    assert len(default_rules()) >= 30


def test_the_example_of_an_operators_file(project: Path) -> None:
    rules = read_rules(project / "config" / "rules" / "example.yaml")
    assert [(rule.id, rule.action, rule.skip_placeholders) for rule in rules] == [
        ("acme-employee-number", None, False),
        ("acme-secret-project", "block", False),
        ("acme-internal-host", "flag", False),
    ]
    assert select([*default_rules(), *rules], ["github-token"])[1].id == "github-fine-grained-token"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rules: [", "line 1: not YAML"),
        ("[]", "expected a mapping with a list 'rules'"),
        ("rules: {}", "expected a mapping with a list 'rules'"),
        ("rules: []\nrulez: 1", "unknown key 'rulez'; did you mean 'rules'?"),
        ("rules: []\nskip_placeholders: 3", "true or false"),
        ("rules: [text]", "rule 1: expected a mapping"),
        ("rules: [{id: a, pattern: b, keyword: c}]", "unknown key 'keyword'; did you mean 'keywords'?"),
        ("rules: [{id: A B, pattern: b}]", "id must be"),
        ("rules: [{pattern: b}]", "id must be"),
        ("rules: [{id: a}]", "rule 1 (a): pattern must be"),
        ("rules: [{id: a, pattern: ''}]", "pattern must be"),
        ("rules: [{id: a, pattern: b, keywords: c}]", "keywords must be"),
        ("rules: [{id: a, pattern: b, keywords: [c]}]", "keywords must be"),
        ("rules: [{id: a, pattern: b, action: allow}]", "expected redact, block or flag, not 'allow'"),
        ("rules: [{id: a, pattern: '(?=x)y'}]", "look-around and back-references are not supported"),
        ("rules: [{id: a, pattern: '(a)\\1'}]", "look-around and back-references are not supported"),
        ("rules: [{id: a, pattern: '(unclosed'}]", "not RE2 syntax"),
        ("rules: [{id: a, pattern: 'x*'}]", "matches the empty text"),
        ("rules: [{id: a, pattern: '^x'}]", "needs keywords"),
        ("rules: [{id: a, pattern: '(?:[a-z]{900}){900}'}]", "not RE2 syntax"),
        (
            "rules: [{id: a, pattern: '[^a]{900}[^d]{900}[^b]{900}[^c]{900}'}]",
            "too large",
        ),
    ],
)
def test_a_file_that_cannot_be_used_says_why(text: str, expected: str, tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(text)
    with pytest.raises(RulesError) as caught:
        read_rules(file)
    assert expected in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(RulesError, match="cannot read the rules file"):
        read_rules(tmp_path / "missing.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(RulesError, match="cannot read the rules file"):
        read_rules(tmp_path / "binary.yaml")


def test_two_rules_of_one_name_are_an_error() -> None:
    with pytest.raises(RulesError, match="two rules"):
        select([Rule("a", "x"), Rule("a", "y")], [])


# -- the detector -----------------------------------------------------------------------------------------------------


def find(rules: list[Rule], *texts: str) -> list[int]:
    detector = Detector(rules)
    data = [encode(text) for text in texts]
    joined = b"\n".join(data)
    return list(detector.locate(detector.second_pass(detector.first_pass(joined), joined), data))


def test_strings_with_matches_are_located() -> None:
    assert find([Rule("a", "secret", ("secret",))], "x", "a secret", "", "secret secret", "y") == [1, 3]
    assert find([Rule("a", "sec|ret")], "x", "sec", "ret") == [1, 2]


def test_a_match_that_crosses_strings_does_not_hide_one_inside() -> None:
    assert find([Rule("a", r"begin[\s\S]*end|end")], "begin", "x", "end") == [0, 1, 2]


def test_anchors_mean_the_edges_of_one_string() -> None:
    assert find([Rule("a", r"^key$", ("key",))], "x", "key", "a key") == [1]
    assert find([Rule("a", r"\Akey", ("key",))], "x", "key", "a key") == [1]
    assert find([Rule("a", r"k[^$]y")], "x", "key", "a k$y") == [1]


def test_keywords_are_found_however_they_are_written() -> None:
    assert find([Rule("a", r"(?i)acme-\d", ("ACME-",))], "see acme-7") == [0]
    assert find([Rule("a", r"a\.b", ("a.b",))], "axb") == []


def test_a_group_is_what_is_redacted_and_an_empty_one_is_not() -> None:
    detector = Detector([Rule("a", "x=(y*)")], ["a"])
    redaction = detector.redact([0], b"x=yy, x=, x=y", Budget(10))
    assert redaction is not None
    assert (redaction.text, redaction.counts) == ("x=[redacted:a], x=, x=[redacted:a]", {"a": 2})


def test_what_is_redacted_is_not_redacted_again() -> None:
    detector = Detector([Rule("a", "secret"), Rule("b", r"key=(\S+)")], ["a", "b"])
    redaction = detector.redact([0, 1], b"key=secret", Budget(10))
    assert redaction is not None
    assert (redaction.text, redaction.counts) == ("key=[redacted:a]", {"a": 1})


def test_matches_that_are_not_redacted_are_counted() -> None:
    redaction = Detector([Rule("a", "secret")]).redact([0], "secret \u65e5".encode(), Budget(10))
    assert redaction is not None
    assert (redaction.text, redaction.counts) == ("secret \u65e5", {"a": 1})


def test_rules_that_do_not_fit_in_memory_are_an_error() -> None:
    with pytest.raises(RulesError, match="too many or too large"):
        Detector([Rule(f"r{number}", "(?:[a-z][0-9]x){60}" * 5) for number in range(2000)])
