"""Files: YAML without its traps, variables, secrets, and every mistake with its line."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import Config, ConfigErrors, load
from gateway.config.document import Document, read

CONFIG = Path(__file__).parents[1] / "config"
DIGEST = "a" * 64

GOOD = f"""\
upstreams:
  weather: {{url: "http://127.0.0.1:9001/mcp"}}
clients:
  demo: {{token_sha256: {DIGEST}}}
policies:
  default: {{allowed_upstreams: [weather]}}
"""


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(text: str | bytes, name: str = "gateway.yaml") -> Path:
        path = tmp_path / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write


def mistakes(path: Path, environ: dict[str, str] | None = None, **options: Any) -> list[str]:
    """What load reports, without the directory."""
    with pytest.raises(ConfigErrors) as caught:
        load(path, environ or {}, **options)
    prefix = f"{path.parent}/"
    assert str(caught.value) == "\n".join(map(str, caught.value.problems))
    return [str(problem).replace(prefix, "") for problem in caught.value.problems]


def parse(text: str) -> tuple[Any, list[tuple[int, str, str]]]:
    found: list[tuple[int, str, str]] = []
    document = read(text, lambda line, key, message: found.append((line, ".".join(map(str, key)), message)))
    return (document.value if document else None), found


# -- YAML --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("true", True), ("false", False), ("yes", "yes"), ("no", "no"), ("on", "on"), ("off", "off"), ("True", "True"),
        ("y", "y"), ("8080", 8080), ("-1", -1), ("0", 0), ("1.5", 1.5), ("012", "012"), ("0o14", "0o14"),
        ("0x1F", "0x1F"),
        ("1_000", "1_000"), ("1:30", "1:30"), ("190:20:30", "190:20:30"), ("1e3", "1e3"), (".5", ".5"),
        (".inf", ".inf"),
        ("2027-01-31", "2027-01-31"), ("2027-01-31T12:00:00Z", "2027-01-31T12:00:00Z"), ("null", None), ("~", None),
        ("", None), ("Null", "Null"), ('"8080"', "8080"), ("'true'", "true"), ("=", "="), ("<<", "<<"),
        ("9" * 18, int("9" * 18)), ("9" * 19, "9" * 19), ("!!str 8080", "8080"),
    ],
)  # fmt: skip
def test_plain_scalars(written: str, value: object) -> None:
    assert parse(f"a: {written}") == ({"a": value}, [])


TAGGED = "tags such as !!binary are not understood here; write the plain value"
TABBED = "not YAML: found character that cannot start any token; is it a tab? YAML indents with spaces"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\nb: 2\na: 3", (3, "a", "the key is given twice, first on line 1")),
        ('{"a": {"b": 1,\n"b": 2}}', (2, "a.b", "the key is given twice, first on line 1")),
        ("a: 1\n1: 2", (2, "", "a key must be text; put it in quotes")),
        ("true: 2", (1, "", "a key must be text; put it in quotes")),
        ("? [a, b]\n: 1", (1, "", "a key must be text; put it in quotes")),
        ("a: &x {b: 1}\nc:\n  <<: *x", (3, "c", "merge keys (<<) are not understood here")),
        ("a: !!python/object/apply:os.system [id]", (1, "a", TAGGED)),
        ("a: !!binary aGk=", (1, "a", TAGGED)),
        ("a: !!int '012'", (1, "a", TAGGED)),
        ("a: !!set {b}", (1, "a", TAGGED)),
        ("a: 1\n---\nb: 2", (2, "", "not YAML: but found another document")),
        ("a: [1,", (2, "", "not YAML: did not find expected node content")),
        ("a:\n\tb: 1", (2, "", TABBED)),
        ("a: 1\nb: \x01", (2, "", "not YAML: a character that is not allowed in it")),
        ("a: *x", (1, "", "not YAML: found undefined alias")),
        ("", (1, "", "the file is empty")),
        ("# nothing\n", (1, "", "the file is empty")),
    ],
)  # fmt: skip
def test_mistakes_in_yaml(text: str, problem: tuple[int, str, str]) -> None:
    assert parse(text)[1] == [problem]


def test_lines_are_those_of_keys_and_items() -> None:
    document = read("a:\n  b:\n    - x\n\n    - {c: 1,\n       d: 2}\n", lambda *_: None)
    assert isinstance(document, Document)
    assert document.lines == {
        (): 1, ("a",): 1, ("a", "b"): 2, ("a", "b", 0): 3, ("a", "b", 1): 5, ("a", "b", 1, "c"): 5,
        ("a", "b", 1, "d"): 6,
    }  # fmt: skip
    assert document.line(("a", "b", 1, "missing")) == 5


def test_aliases_are_followed_but_cannot_multiply() -> None:
    assert parse("a: &x [1, 2]\nb: *x") == ({"a": [1, 2], "b": [1, 2]}, [])
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))
    began = time.process_time()
    _, problems = parse(bomb)
    assert [message for _, _, message in problems] == ["more than 100000 values, aliases included"]
    assert time.process_time() - began < 20
    _, problems = parse("a: &x [*x]")
    assert [message for _, _, message in problems] == ["nested more than 32 levels deep"]


@pytest.mark.parametrize("text", ["[" * 900 + "]" * 900, "[" * 50_000, "{a: " * 50_000, "- " * 20_000, "? " * 20_000])
def test_depth_is_bounded(text: str) -> None:
    _, problems = parse(text)
    assert problems


@given(st.text(max_size=200))
def test_any_text_is_read_or_reported(text: str) -> None:
    """Never an exception, and None only with a report."""
    value, problems = parse(text.encode("utf-8", "replace").decode())
    assert value is not None or problems or text.strip()


@given(
    st.dictionaries(
        st.text("abcXYZ_-./:#{}[]'\" ", min_size=1, max_size=8).filter(lambda key: key != "<<"),
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers(-(10**9), 10**9)
            | st.text("ab:{}[],&*#?|-<>=!%@`'\" ~", max_size=12),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=3),
            max_leaves=8,
        ),
        max_size=5,
    )
)
def test_json_reads_as_json(document: dict[str, Any]) -> None:
    assert parse(json.dumps(document)) == (document, [])
    assert parse(json.dumps(document, indent="\t")) == (document, [])


# -- whole files -------------------------------------------------------------------------------------------------------


def test_a_small_file(write: Any) -> None:
    config = load(write(GOOD), {})
    assert isinstance(config, Config)
    assert config.upstreams["weather"].url == "http://127.0.0.1:9001/mcp"
    assert [entry.kind for entry in config.hooks] == ["policy", "sanitize"]


def test_json_is_accepted(write: Any) -> None:
    document = {
        "upstreams": {"weather": {"url": "http://127.0.0.1:9001/mcp"}},
        "clients": {"demo": {"token_sha256": DIGEST}},
        "policies": {"default": {"allowed_upstreams": ["weather"]}},
    }
    assert load(write(json.dumps(document, indent="\t"), "gateway.json"), {}) == load(write(GOOD), {})
    assert mistakes(write('{\n"upstreams": {},\n"lisen": {}}', "gateway.json")) == [
        "gateway.json:2: upstreams: at least one is needed",
        "gateway.json:3: lisen: unknown key; did you mean listen?",
    ]


def test_a_byte_order_mark_is_ignored(write: Any) -> None:
    assert load(write(b"\xef\xbb\xbf" + GOOD.encode()), {}) == load(write(GOOD), {})


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"a: 1\nb: \xff", "gateway.yaml:2: not UTF-8"),
        (GOOD.encode("utf-16"), "gateway.yaml:1: not UTF-8"),
        (b"# " + b"x" * (1 << 20), "gateway.yaml: larger than 1048576 bytes"),
        (b"[]", "gateway.yaml:1: expected a mapping of keys to values"),
        (b"text", "gateway.yaml:1: expected a mapping of keys to values"),
    ],
)
def test_files_that_are_no_configuration(write: Any, content: bytes, problem: str) -> None:
    assert mistakes(write(content)) == [problem]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert mistakes(tmp_path / "gateway.yaml") == ["gateway.yaml: cannot be read: No such file or directory"]
    assert mistakes(tmp_path) == [f"{tmp_path.name}: cannot be read: Is a directory"]


def test_all_mistakes_come_at_once(write: Any) -> None:
    """Within sections and between them, in the order of the file, each with its line."""
    text = f"""\
listen: {{prt: 8080, default_upstream: wether}}
admin: {{port: 8080}}
upstreams:
  weather:
    url: ftp://x/
    headers: {{Authorization: "Bearer ${{NOPE}}", Host: x, X-A: 1}}
  Bad: {{url: "http://u:p@h/"}}
clients:
  demo: {{token_sha256: abc, policy: defult}}
  twin: {{token_sha256: {DIGEST}}}
  other: {{tokens: [{{sha256: {DIGEST}, expires: 2027-01-31}}]}}
policies:
  default:
    allowed_upstreams: [weather]
    allowed_tool: ["get_*"]
    allowed_prompts:
    max_request_size: 1MB
    require_auth: no
    deny_status: 404
    burst: 3
    burst: 4
    rate_limits: {{tools: {{"x": {{}}}}}}
  second: []
hooks: [policy, {{kind: sanitize, mode: shadw}}]
limits: {{json_depth: 999, header_timeout: 0, inline_message: 1GiB}}
nonsense: 1
"""
    known = "admin, audit, clients, hooks, limits, listen, logging, policies, sealing, upstreams"
    assert mistakes(write(text)) == [
        "gateway.yaml:1: listen.prt: unknown key; did you mean port?",
        "gateway.yaml:1: listen.default_upstream: there is no upstream named wether; did you mean weather?",
        "gateway.yaml:2: admin.port: the data port and the admin port must differ",
        "gateway.yaml:5: upstreams.weather.url: expected a URL such as https://mcp.example.com/mcp",
        "gateway.yaml:6: upstreams.weather.headers.Authorization: the environment variable NOPE is not set",
        "gateway.yaml:6: upstreams.weather.headers.Host: this header is set by the gateway for each request and cannot "
        "be fixed here",
        "gateway.yaml:6: upstreams.weather.headers.X-A: expected text; put the value in quotes",
        "gateway.yaml:7: upstreams.Bad: expected 1 to 63 lower-case letters, digits and hyphens",
        "gateway.yaml:9: clients.demo.token_sha256: expected the SHA-256 of the token as 64 lower-case hexadecimal "
        "digits (mcpgw token prints one)",
        "gateway.yaml:9: clients.demo.policy: there is no policy named defult; did you mean default?",
        "gateway.yaml:11: clients.other.tokens.0.expires: expected a time zone: 2027-01-31T12:00:00Z or "
        "2027-01-31T12:00:00+01:00",
        "gateway.yaml:15: policies.default.allowed_tool: unknown key; did you mean allowed_tools?",
        "gateway.yaml:16: policies.default.allowed_prompts: expected a list, found nothing; leave the key out instead",
        "gateway.yaml:17: policies.default.max_request_size: expected a size such as 64KiB, 1MiB or a number of bytes",
        "gateway.yaml:18: policies.default.require_auth: expected true or false",
        "gateway.yaml:19: policies.default.deny_status: expected 200 or 403",
        "gateway.yaml:21: policies.default.burst: the key is given twice, first on line 20",
        "gateway.yaml:22: policies.default.rate_limits.tools.x.max_requests_per_minute: the key is missing",
        "gateway.yaml:23: policies.second: expected a mapping of keys to values",
        "gateway.yaml:24: hooks.1.mode: expected enforce or shadow",
        "gateway.yaml:25: limits.json_depth: must be at most 128",
        "gateway.yaml:25: limits.header_timeout: must be more than 0",
        "gateway.yaml:25: limits.inline_message: must not exceed limits.max_message_size",
        f"gateway.yaml:26: nonsense: unknown key; there are: {known}",
    ]


@pytest.mark.parametrize(
    ("old", "new", "only"),
    [
        # The client's token is wrong, not missing; the reference to the broken upstream is right.
        (f"token_sha256: {DIGEST}", "token_sha256: x", "clients.demo.token_sha256"),
        ("http://127.0.0.1:9001/mcp", "x", "upstreams.weather.url"),
        ('url: "http://127.0.0.1:9001/mcp"', "", "upstreams.weather.url"),
        (f"{{token_sha256: {DIGEST}}}", "5", "clients.demo"),
        ("policies:", "hooks: [{kind: policy, mode: x}]\npolicies:", "hooks.0.mode"),
        ("policies:", "hooks: [{mode: shadow}]\npolicies:", "hooks.0.kind"),
        ("policies:", "hooks: 5\npolicies:", "hooks"),
        ("policies:", "listen: {default_upstream: ''}\npolicies:", "listen.default_upstream"),
    ],
)
def test_a_mistake_is_reported_once(write: Any, old: str, new: str, only: str) -> None:
    """What follows from a mistake is none."""
    assert [problem.split(": ")[1] for problem in mistakes(write(GOOD.replace(old, new)))] == [only]


def test_checks_that_the_caller_adds(write: Any) -> None:
    def check(config: Config) -> Iterator[tuple[str, str]]:
        yield "policies.default.allowed_upstreams.0", "not this one"
        yield "hooks.0.options.x", "no such option"

    assert mistakes(write(GOOD), checks=[check]) == [
        "gateway.yaml:1: hooks.0.options.x: no such option",
        "gateway.yaml:6: policies.default.allowed_upstreams.0: not this one",
    ]
    assert mistakes(write(GOOD + "x: 1\n"), checks=[check])[-1].startswith("gateway.yaml:7: x: unknown key")


# -- variables and secrets ---------------------------------------------------------------------------------------------


def with_header(text: str) -> str:
    return GOOD.replace("{url:", f"{{headers: {{X-A: {json.dumps(text)}}}, url:")


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("${NAME}", "value"), ("a${NAME}b", "avalueb"), ("${NAME}${NAME}", "valuevalue"), ("${NAME:-other}", "value"),
        ("${UNSET:-other}", "other"), ("${EMPTY:-other}", "other"), ("${UNSET:-a:-b}", "a:-b"), ("$${NAME}", "${NAME}"),
        ("$NAME", "$NAME"), ("$$", "$$"), ("a$", "a$"), ("${NESTED}", "${NAME}"), ("x${EMPTY}", "x"),
        ("${UNSET:-$}", "$"),
    ],
)  # fmt: skip
def test_variables(write: Any, written: str, value: str) -> None:
    environ = {"NAME": "value", "EMPTY": "", "NESTED": "${NAME}"}
    assert load(write(with_header(written)), environ).upstreams["weather"].headers["X-A"] == value


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("${UNSET}", "the environment variable UNSET is not set"),
        ("${}", "expected ${NAME} or ${NAME:-default}; a literal ${ is written $${"),
        ("${1A}", "expected ${NAME} or ${NAME:-default}; a literal ${ is written $${"),
        ("${A-b}", "expected ${NAME} or ${NAME:-default}; a literal ${ is written $${"),
        ("${A", "expected ${NAME} or ${NAME:-default}; a literal ${ is written $${"),
    ],
)
def test_variables_that_cannot_be_replaced(write: Any, written: str, message: str) -> None:
    assert mistakes(write(with_header(written))) == [f"gateway.yaml:2: upstreams.weather.headers.X-A: {message}"]


def test_variables_may_stand_for_numbers_and_switches(write: Any) -> None:
    text = GOOD.replace("{url:", "{force_close: '${CLOSE}', url:") + "listen: {port: '${PORT:-8081}'}\n"
    config = load(write(text), {"CLOSE": "true"})
    assert (config.listen.port, config.upstreams["weather"].force_close) == (8081, True)
    assert mistakes(write(text), {"CLOSE": "yes", "PORT": "08"}) == [
        "gateway.yaml:2: upstreams.weather.force_close: expected true or false",
        "gateway.yaml:7: listen.port: expected a whole number",
    ]


def test_secrets_from_files(write: Any, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("  s3cret\n")
    (tmp_path / "digest").write_text(DIGEST + "\n")
    text = (
        with_header("file:token")
        .replace("X-A", "Authorization")
        .replace(f"token_sha256: {DIGEST}", "token_sha256: file:digest")
    )
    config = load(write(text), {})
    assert config.upstreams["weather"].headers == {"Authorization": "s3cret"}
    assert config.clients["demo"].all_tokens[0].sha256 == DIGEST
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    config = load(write(with_header("Bearer file:${CREDENTIALS_DIRECTORY}/token"), "sub.yaml"), environ)
    assert config.upstreams["weather"].headers == {"X-A": "Bearer s3cret"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no file {}"),
        (b"\xff", "the file {} holds more than ASCII characters"),
        (b"x" * 70_000, "the file {} is larger than a secret can be"),
        (b"a\nb", "expected 1 to 8000 ASCII characters without line breaks, and no spaces at the ends"),
        (b"\n", "expected 1 to 8000 ASCII characters without line breaks, and no spaces at the ends"),
    ],
)
def test_secret_files_that_cannot_be_used(write: Any, tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "token").write_bytes(content)
    expected = message.format("token")
    assert mistakes(write(with_header("file:token"))) == [f"gateway.yaml:2: upstreams.weather.headers.X-A: {expected}"]


def test_file_means_nothing_where_no_secret_stands(write: Any) -> None:
    assert load(write(GOOD + "audit: {path: 'file:x'}\n"), {}).audit.path == "file:x"


@pytest.mark.parametrize("name", ["Authorization", "authorization", "Cookie", "X-API-Key"])
def test_a_secret_does_not_stand_in_the_file(write: Any, name: str) -> None:
    text = with_header("Bearer hunter2").replace("X-A", name)
    [problem] = mistakes(write(text))
    assert problem.endswith(f"headers.{name}: a secret must not stand in this file; write ${{NAME}} or file:PATH")
    assert "hunter2" not in problem


def test_the_authorities_to_trust_lie_beside_the_configuration(write: Any, tmp_path: Path) -> None:
    text = GOOD.replace("{url:", "{tls_ca: ca.pem, url:")
    assert mistakes(write(text)) == ["gateway.yaml:2: upstreams.weather.tls_ca: there is no file ca.pem"]
    (tmp_path / "ca.pem").write_text("")
    assert load(write(text), {}).upstreams["weather"].tls_ca == str(tmp_path / "ca.pem")


# -- the files that come with the project ------------------------------------------------------------------------------


FILES = [CONFIG / "gateway.yaml", *sorted((CONFIG / "examples").glob("*.yaml"))]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_files_of_the_project_load(path: Path, tmp_path: Path) -> None:
    (tmp_path / "payments-token").write_text("t0ken")
    environ = {"TICKETS_TOKEN": "t0ken", "CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert load(path, environ).warnings == ()


def test_the_default_file_lets_nobody_in_without_the_demonstration() -> None:
    [token] = load(CONFIG / "gateway.yaml", {}).clients["demo"].all_tokens
    assert token.sha256 == "0" * 64
