from __future__ import annotations

import contextlib
import datetime
import hashlib
import logging
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import Client, Policy, Token
from gateway.identity.tokens import MAX_TOKEN_CHARS, Tokens, names_credential, new_token, reject_token_elsewhere
from gateway.protocol.errors import AudienceError, Unauthenticated

NOW = datetime.datetime(2026, 11, 22, 12, tzinfo=datetime.UTC)
HOUR = datetime.timedelta(hours=1)
POLICIES = {"default": Policy(), "open": Policy(require_auth=False)}
ALICE, BOB, OLD, LATER = "alice-0123456789", "bob-9876543210+/==", "old.token~1", "later_token"

NO_CREDENTIALS = 'Bearer realm="mcp"'
INVALID = 'Bearer realm="mcp", error="invalid_token"'


def sha256(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


CLIENTS = {
    "alice": Client(token_sha256=sha256(ALICE)),
    "bob": Client(
        token_sha256=(sha256(BOB),),
        tokens=(Token(sha256=sha256(OLD), expires=NOW - HOUR), Token(sha256=sha256(LATER), expires=NOW + HOUR)),
    ),
}
ANYBODY = {**CLIENTS, "anybody": Client(policy="open")}


def challenge(tokens: Tokens, *authorization: str) -> str:
    with pytest.raises(Unauthenticated) as caught:
        tokens.authenticate(authorization, NOW)
    assert caught.value.status == 401
    return caught.value.headers["WWW-Authenticate"]


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER ", "bEaReR  "])
def test_the_scheme_is_case_insensitive(scheme: str) -> None:
    assert Tokens(CLIENTS, POLICIES).authenticate([scheme + ALICE], NOW) == "alice"


@pytest.mark.parametrize("token", [BOB, LATER])
def test_a_client_may_have_several_tokens(token: str) -> None:
    assert Tokens(CLIENTS, POLICIES).authenticate([f"Bearer {token}"], NOW) == "bob"


def test_each_token_expires_on_its_own() -> None:
    tokens = Tokens(CLIENTS, POLICIES)
    assert challenge(tokens, f"Bearer {OLD}") == INVALID
    assert tokens.authenticate([f"Bearer {LATER}"], NOW + HOUR - datetime.timedelta(microseconds=1)) == "bob"
    with pytest.raises(Unauthenticated) as caught:
        tokens.authenticate([f"Bearer {LATER}"], NOW + HOUR)
    assert caught.value.reason == "token-expired"
    assert tokens.authenticate([f"Bearer {BOB}"], NOW + 1000 * HOUR) == "bob"


def test_a_token_that_is_listed_twice_expires_at_the_earlier_time() -> None:
    soon, late, never = (Token(sha256=sha256(ALICE), expires=when) for when in (NOW + HOUR, NOW + 2 * HOUR, None))
    for listed in ((soon, late, never), (never, late, soon), (late, soon, never)):
        tokens = Tokens({"alice": Client(tokens=listed)}, POLICIES)
        assert tokens.authenticate([f"Bearer {ALICE}"], NOW) == "alice"
        with pytest.raises(Unauthenticated, match="expired"):
            tokens.authenticate([f"Bearer {ALICE}"], NOW + HOUR)


def test_no_credentials_and_other_schemes_get_a_challenge_without_error() -> None:
    tokens = Tokens(CLIENTS, POLICIES)
    assert challenge(tokens) == NO_CREDENTIALS
    assert challenge(tokens, "Basic YWxpY2U6eA==") == NO_CREDENTIALS
    assert challenge(tokens, ALICE) == NO_CREDENTIALS
    assert challenge(tokens, "") == NO_CREDENTIALS
    assert challenge(tokens, f"Bearerx {ALICE}") == NO_CREDENTIALS
    assert Tokens(CLIENTS, POLICIES, realm="weather").authenticate([f"Bearer {ALICE}"], NOW) == "alice"
    assert challenge(Tokens(CLIENTS, POLICIES, realm="weather")) == 'Bearer realm="weather"'


@pytest.mark.parametrize(
    "field",
    [
        f"Bearer {ALICE}x",
        f"Bearer {ALICE[:-1]}",
        f"Bearer {ALICE[:-1]}8",
        f"Bearer {ALICE.upper()}",
        f"Bearer {ALICE},Bearer {BOB}",
        f"Bearer {ALICE}, Bearer {BOB}",
        f"Bearer {ALICE} {BOB}",
        f"Bearer {ALICE} ",
        f" Bearer {ALICE}"[1:] + "\n",
        f"Bearer\t{ALICE}",
        f"Bearer, {ALICE}",
        f'Bearer "{ALICE}"',
        f"Bearer ={ALICE}",
        "Bearer",
        "Bearer ",
        "Bearer \udcff",
        "Bearer " + ALICE.replace("a", "\N{CYRILLIC SMALL LETTER A}"),
        "Bearer " + sha256(ALICE),
        "Bearer " + "a" * (MAX_TOKEN_CHARS + 1),
        "Bearer " + "a" * 10**6,
    ],
)
def test_what_is_not_exactly_one_known_token_is_invalid(field: str) -> None:
    assert challenge(Tokens(CLIENTS, POLICIES), field) == INVALID
    assert challenge(Tokens(ANYBODY, POLICIES), field) == INVALID


def test_two_authorization_fields_are_refused_even_when_both_are_right() -> None:
    tokens = Tokens(ANYBODY, POLICIES)
    assert challenge(tokens, f"Bearer {ALICE}", f"Bearer {ALICE}") == INVALID
    assert challenge(tokens, f"Bearer {ALICE}", "") == INVALID


def test_the_longest_token_that_is_read() -> None:
    token = "a" * MAX_TOKEN_CHARS
    assert (
        Tokens({"long": Client(token_sha256=sha256(token))}, POLICIES).authenticate([f"Bearer {token}"], NOW) == "long"
    )


def test_the_anonymous_client_is_who_shows_no_credentials() -> None:
    tokens = Tokens(ANYBODY, POLICIES)
    assert tokens.authenticate([], NOW) == "anybody"
    assert tokens.authenticate([f"Bearer {ALICE}"], NOW) == "alice"
    assert challenge(tokens, "Basic YTpi") == NO_CREDENTIALS


def test_a_client_without_tokens_is_nobody_when_its_policy_requires_authentication() -> None:
    assert challenge(Tokens({"nobody": Client()}, POLICIES)) == NO_CREDENTIALS


def test_it_must_be_clear_who_calls() -> None:
    with pytest.raises(ValueError, match="alice and mallory list the same token"):
        Tokens({**CLIENTS, "mallory": Client(token_sha256=sha256(ALICE))}, POLICIES)
    with pytest.raises(ValueError, match="anybody and everybody both have no token"):
        Tokens({**ANYBODY, "everybody": Client(policy="open")}, POLICIES)
    with pytest.raises(ValueError, match="realm"):
        Tokens({}, POLICIES, realm='mcp", error="')


@given(st.text(alphabet=string.printable + "\x00\xe9\u2028\udc80", max_size=60))
def test_any_field_is_a_client_or_unauthenticated(text: str) -> None:
    tokens = Tokens(CLIENTS, POLICIES)
    for field in (text, f"Bearer {text}"):
        with pytest.raises(Unauthenticated):
            tokens.authenticate([field], NOW)


def test_a_token_is_neither_logged_nor_repeated(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    tokens = Tokens(CLIENTS, POLICIES)
    for field in (f"Bearer {OLD}", "Bearer wrong-secret-token", f"Bearer {ALICE},{BOB}", "Basic wrong-secret-token"):
        with pytest.raises(Unauthenticated) as caught:
            tokens.authenticate([field], NOW)
        said = f"{caught.value} {caught.value.headers} {caught.value.to_document(1)}"
        assert "wrong-secret" not in said and OLD not in said and ALICE not in said
    assert caplog.text == ""
    assert ALICE not in repr(tokens) and sha256(ALICE) not in repr(tokens)


def test_a_new_token_works_and_is_never_the_same() -> None:
    token, digest = new_token()
    assert Tokens({"fresh": Client(token_sha256=digest)}, POLICIES).authenticate([f"Bearer {token}"], NOW) == "fresh"
    assert token.startswith("mcpgw_") and len(token) == 49
    assert len({new_token()[0] for _ in range(100)}) == 100


@pytest.mark.parametrize(
    "query",
    [
        "access_token=x",
        "a=b&access_token=x",
        "a=b;access_token=x",
        "access_token",
        "access_token=",
        "access%5Ftoken=x",
        "%61ccess_token=x",
        "Access-Token=x",
        "ACCESS_TOKEN=x",
        "acce%C5%BFs_token=x",
        "+access_token+=x",
        "authorization=Bearer%20x",
        "token=x",
        "id_token=x",
        "refresh_token=x",
        "bearer=x",
        "&".join(["a=b"] * 5000) + "&access_token=x",
    ],
)
def test_a_credential_in_the_url_is_refused(query: str) -> None:
    with pytest.raises(AudienceError) as caught:
        reject_token_elsewhere(query)
    assert caught.value.status == 400
    assert "=x" not in str(caught.value)


@pytest.mark.parametrize("query", ["", "sessionId=abc", "q=access_token", "x=%00%ff&&=", "tokens=1", "progressToken=1"])
def test_other_queries_pass(query: str) -> None:
    reject_token_elsewhere(query)


@given(st.text(alphabet="act%5Fk=&;+\x00\xe9\udc80", max_size=60))
def test_any_query_passes_or_is_refused(query: str) -> None:
    with contextlib.suppress(AudienceError):
        reject_token_elsewhere(query)


@pytest.mark.parametrize("name", ["access_token", "Authorization", "authorization", "Access-Token"])
def test_a_credential_in_the_message_is_found(name: str) -> None:
    assert names_credential({name: None})
    assert names_credential({"name": "login", name: "Bearer x"})


@pytest.mark.parametrize(
    "members", [{"name": "login", "arguments": {"access_token": "the tool's own"}}, {"progressToken": 1}, {}]
)
def test_other_members_pass(members: dict[str, object]) -> None:
    assert not names_credential(members)
