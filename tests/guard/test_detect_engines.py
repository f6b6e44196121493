from __future__ import annotations

import importlib.util
import re
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.guard.checks import CHECKS, entropy, iban, luhn, phone
from gateway.guard.controls import SUSPECT_RE2
from gateway.guard.detect import Budget, Detector, encode
from gateway.guard.hook import Replace
from gateway.guard.members import DEFAULT_MEMBERS, EmbeddedMembers
from gateway.guard.prefilter import ENGINES, HyperscanPrefilter, Re2Prefilter
from gateway.guard.ruleset import Rule, RulesError, default_rules, optional_rules
from gateway.guard.sanitize import SanitizeHook
from tests.guard.messages import exchange, result
from tests.guard.test_ruleset import SECRETS

PERSONAL = {
    "card-number": ["4111 1111 1111 1111", "5500-0000-0000-0004", "378282246310005", "30569309025904", "6011111111111117"],
    "iban": ["DE89 3704 0044 0532 0130 00", "GB82WEST12345698765432", "NO9386011117947", "MT84MALT011000012345MTLCAST001S"],
    "email": ["zoe.smith+x@mail.example.org", "A_B%c@x-y.example"],
    "phone": ["+47 22 85 50 50", "+1 (212) 555-0123", "+4989123456789"],
}  # fmt: skip
NOT_PERSONAL = {
    "card-number": ["4111 1111 1111 1112", "4111111111111111222", "0000 0000 0000 0000", "1234 5678 9012 3456"],
    "iban": ["DE88 3704 0044 0532 0130 00", "XX89 3704 0044 0532 0130 00", "DE89 3704 0044"],
    "email": ["@example", "a@b", "user@localhost x", "git@1.2"],
    "phone": ["+1", "1 + 2 = 3", "+123456", "x+4989123456789", "+1234567890123456789"],
}


def hook(engine: str) -> SanitizeHook:
    return SanitizeHook(enable=[rule.id for rule in optional_rules()], members=["doorcode"], engine=engine)


@pytest.mark.parametrize("rule", [rule.id for rule in optional_rules()])
def test_what_has_to_be_asked_for(rule: str) -> None:
    asked = SanitizeHook(enable=[rule])
    for text in PERSONAL[rule]:
        message = result("tools/call", a=f"call {text} now or {text}.")
        verdict = asked.on_message(message, exchange())
        assert isinstance(verdict, Replace), text
        assert verdict.message.document["result"]["a"] == f"call [redacted:{rule}] now or [redacted:{rule}]."
        assert not isinstance(SanitizeHook().on_message(message, exchange()), Replace)
    for text in NOT_PERSONAL[rule]:
        assert not isinstance(asked.on_message(result("tools/call", a=f"call {text} now"), exchange()), Replace), text


def test_every_rule_that_has_to_be_asked_for_is_well_known() -> None:
    assert set(PERSONAL) == set(NOT_PERSONAL) == {rule.id for rule in optional_rules()}
    with pytest.raises(RulesError, match="did you mean 'email'"):
        SanitizeHook(enable=["emial"])


def test_an_account_ends_where_its_country_says() -> None:
    found = b"GB82 WEST 1234 5698 7654 32 IS MINE"
    assert found[: iban(found)] == b"GB82 WEST 1234 5698 7654 32"


@given(st.text(alphabet="0123456789", min_size=11, max_size=18).filter(lambda digits: len(set(digits)) > 1))
def test_one_last_digit_makes_a_card(digits: str) -> None:
    assert sum(luhn(f"{digits}{last}".encode()) > 0 for last in range(10)) == 1


def test_checks() -> None:
    assert set(CHECKS.values()) == {luhn, iban, phone}
    assert phone(b"+1 23") == 0
    assert entropy(b"aaaa") == 0
    assert entropy(b"abcd") == 2
    assert entropy(b"ab" * 10_000) == 1
    with pytest.raises(RulesError, match="there is no"):
        SanitizeHook(actions={"luhn": "flag"})


# -- the first pass ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [*default_rules(), *optional_rules()], ids=lambda rule: rule.id)
def test_the_first_pass_finds_what_the_rule_finds(rule: Rule) -> None:
    detector = Detector([rule])
    for text in [SECRETS[rule.id]] if rule.id in SECRETS else PERSONAL[rule.id]:
        for around in ("{}", "x {} y", "\\n{}", "%20{}", "\x1b[1m{}", "é{}é", "({})"):
            data = encode(around.replace("{}", text))
            if any(detector.matches((0,), data, Budget(10))):
                assert 0 in detector.first_pass(data)


@pytest.mark.parametrize(
    "rule", [rule for rule in default_rules() if rule.prefilter is not None], ids=lambda rule: rule.id
)
@given(data=st.data())
def test_a_prefilter_is_found_wherever_its_rule_is(rule: Rule, data: st.DataObject) -> None:
    # The same pattern in the syntax of ``re``.
    pattern = re.compile(rule.pattern.replace(r"\z", r"\Z"), re.ASCII)
    text = data.draw(st.from_regex(pattern).filter(lambda text: "\r" not in text), label="text")
    detector = Detector([rule])
    encoded = encode(text)
    assert not any(detector.matches((0,), encoded, Budget(10))) or 0 in detector.first_pass(encoded)


@pytest.mark.parametrize("escape", ["\\n", "\\t", "\\u000a", "%20", "%3D", "\x1b[0;31m"])
def test_the_letters_of_an_escape_belong_to_no_word(escape: str) -> None:
    detector = Detector(
        [Rule("a", r"\bkey-[0-9]{4}", ("key-",)), Rule("b", r"(?i)\block-([0-9]{4})", ("lock-",))], "ab"
    )
    data = encode(f"x{escape}key-1234{escape}LOCK-1234 monkey-1234")
    redaction = detector.redact(detector.first_pass(data), data, Budget(10))
    assert redaction is not None
    assert redaction.text == f"x{escape}[redacted:a]{escape}LOCK-[redacted:b] monkey-1234"


def test_only_the_first_alternative_begins_at_a_word() -> None:
    detector = Detector([Rule("a", r"\bkey|lock", ("key", "lock"))], "a")
    redaction = detector.redact([0], b"padlock monkey key", Budget(10))
    assert redaction is not None
    assert redaction.text == "pad[redacted:a] monkey [redacted:a]"


# -- engines ----------------------------------------------------------------------------------------------------------


def test_an_engine_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hyperscan", None)
    with pytest.raises(RulesError, match=re.escape("install it with: pip install 'mcpgw[hyperscan]'")):
        SanitizeHook(engine="hyperscan")
    with pytest.raises(RulesError, match="engine: expected re2 or hyperscan, not 'pcre'"):
        SanitizeHook(engine="pcre")


needs_hyperscan = pytest.mark.skipif(importlib.util.find_spec("hyperscan") is None, reason="the extra is not installed")
_pieces = st.sampled_from(
    [
        *SECRETS.values(), *(text for texts in PERSONAL.values() for text in texts), '"password": "x"', "\u200b", "\x1b[1m",
        '"DOOR_CODE": "4711"', "%67", "&#103;", "\\u0067", "\uff47hp_", "\U0001d5ba", "Z2hwX0ZBS0UwZmFrZTFURVNUMnRlc3QzQUJD",
        "ghp_", "GHP_", "\ue000", "日本語", "é", "\x7f", "\x80", "\x9f", "\U000e0041",
    ]
)  # fmt: skip
_texts = st.lists(_pieces | st.text(max_size=5), max_size=6).map("".join)


@needs_hyperscan
@given(_texts)
def test_all_engines_come_to_the_same(text: str) -> None:
    outcomes: list[Any] = []
    for one in HOOKS if importlib.util.find_spec("hyperscan") else ():
        at = exchange()
        verdict = one.on_message(result("tools/call", content=[{"text": text}, {"text": text[::-1]}]), at)
        outcomes.append(
            (type(verdict), verdict.message.document if isinstance(verdict, Replace) else None, at.findings)
        )
    assert outcomes[0] == outcomes[1]


@needs_hyperscan
@given(st.binary() | _texts.map(encode))
def test_hyperscan_finds_at_least_what_re2_finds(data: bytes) -> None:
    rules = [*default_rules(), *optional_rules()]
    members = EmbeddedMembers([*DEFAULT_MEMBERS, "türcode"])
    first, second = [*DETECTORS] if DETECTORS else [Detector(rules, (), members, engine) for engine in ENGINES]
    DETECTORS[:] = [first, second]
    assert set(first.first_pass(data)) <= set(second.first_pass(data))


DETECTORS: list[Detector] = []
HOOKS = [hook(engine) for engine in ENGINES] if importlib.util.find_spec("hyperscan") else []


@needs_hyperscan
@pytest.mark.parametrize("point", [0, 8, 0x1F, 0x7F, 0x9F, 0xAD, 0x200B, 0x202E, 0x2066, 0xFEFF, 0xE0000, 0xE0FFF])
def test_classes_of_code_points(point: int) -> None:
    for neighbour in range(max(point - 2, 0), point + 3):
        text = encode(f"a{chr(neighbour)}b")
        first, second = Re2Prefilter([SUSPECT_RE2]), HyperscanPrefilter([SUSPECT_RE2])
        assert list(first.matches(text)) == list(second.matches(text))


@needs_hyperscan
def test_a_pattern_that_hyperscan_cannot_take() -> None:
    with pytest.raises(RulesError, match="hyperscan cannot take the rules"):
        HyperscanPrefilter(["(" + "[^a]{900}" * 9 + "){9}b"])


@needs_hyperscan
def test_what_counts_characters_is_left_to_re2() -> None:
    rules = [Rule("a", "a[^x]{3}b"), Rule("b", "c.d"), Rule("c", r"e\pLf"), Rule("d", "gré"), Rule("e", "h[^x]+i")]
    for engine in ENGINES:
        assert Detector(rules, engine=engine).first_pass("aéééb céd eéf GRÉ héi".encode()) == (0, 1, 2, 3, 4)
