"""Sections: defaults, forms of values, and what must fit together."""

from __future__ import annotations

import datetime
import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from gateway.config import Client, Config, HookEntry, Limits, Policy, Rate, explain, single_upstream
from gateway.config.units import duration, format_size, size, switch, whole_number

A, B = "a" * 64, "b" * 64


def config(**sections: Any) -> Config:
    """One upstream, one client, one policy, and what the test is about."""
    whole: dict[str, Any] = {
        "upstreams": {"weather": {"url": "http://127.0.0.1:9001/mcp"}},
        "clients": {"demo": {"token_sha256": A}},
        "policies": {"default": {"allowed_upstreams": ["weather"]}},
    }
    return Config.model_validate(whole | sections)


def complaints(**sections: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        config(**sections)
    return str(caught.value)


# -- values ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [("64KiB", 65536), ("1MiB", 1 << 20), ("2GiB", 2 << 30), ("512B", 512), ("512", 512), (7, 7), ("1 MiB", 1 << 20)],
)
def test_sizes(text: object, expected: int) -> None:
    assert size(text) == expected


@pytest.mark.parametrize("text", ["1MB", "1mib", "-1", "1.5MiB", "", "MiB", None, True, 1.5, -1, [], "\u0661KiB"])
def test_what_is_no_size(text: object) -> None:
    with pytest.raises(ValueError, match="expected a size such as 64KiB, 1MiB or a number of bytes"):
        size(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("250ms", 0.25),
        ("5s", 5),
        ("2m", 120),
        ("1h", 3600),
        ("90d", 7_776_000),
        ("1.5s", 1.5),
        ("3", 3),
        (0, 0),
        (9, 9),
    ],
)
def test_durations(text: object, expected: float) -> None:
    assert duration(text) == pytest.approx(expected)


@pytest.mark.parametrize("text", ["5 parsecs", "1h30m", "1:30", "-1s", "", None, False, float("nan"), float("inf"), -1])
def test_what_is_no_duration(text: object) -> None:
    with pytest.raises(ValueError, match="expected a duration such as 250ms, 5s, 2m, 1h or a number of seconds"):
        duration(text)


def test_numbers_and_switches_take_text_as_environment_variables_give_it() -> None:
    assert [whole_number(value) for value in (8080, "8080", "-1", "0")] == [8080, 8080, -1, 0]
    assert [switch(value) for value in (True, "true", "false")] == [True, True, False]
    for value in ("012", "0x1f", "1_000", "1e3", "", " 1", True, 1.0, None):
        with pytest.raises(ValueError, match="whole number"):
            whole_number(value)
    for value in ("yes", "no", "on", "True", 1, 0, None):
        with pytest.raises(ValueError, match="true or false"):
            switch(value)


@pytest.mark.parametrize("count", [1, 1023, 1024, 1536, 64 * 1024, 1 << 20, 3 << 30])
def test_a_formatted_size_reads_back(count: int) -> None:
    assert size(format_size(count)) == count


def test_the_default_burst_is_a_sixth_of_the_rate() -> None:
    assert Policy().burst == 100
    assert Policy(max_requests_per_minute=5).burst == 1
    assert Policy(max_requests_per_minute=60, burst=7).burst == 7
    assert Policy(max_requests_per_minute=None).burst is None
    assert Rate(max_requests_per_minute=12).burst == 2


def test_a_configuration_does_not_change() -> None:
    whole = config()
    with pytest.raises(ValidationError, match="frozen"):
        whole.limits.json_depth = 1  # type: ignore[misc]


def test_secrets_are_in_no_repr_and_no_error() -> None:
    whole = config(
        upstreams={"weather": {"url": "https://w.example/mcp", "headers": {"Authorization": "Bearer hunter2"}}},
        admin={"token_sha256": B},
    )
    for text in (repr(whole), "\n".join(explain(whole))):
        assert "hunter2" not in text
        assert A not in text
        assert B not in text
    assert "hunter2" not in complaints(
        upstreams={"weather": {"url": "https://w.example/", "headers": {"X-A": "hunter2\n"}}}
    )


# -- addresses and headers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:9001/mcp", "https://mcp.example.com", "https://mcp.example.com/", "http://[::1]:80/a/b.c/d~e",
        "http://under_score.local/x%20y", "https://example.com./mcp",
    ],
)  # fmt: skip
def test_urls_of_upstreams(url: str) -> None:
    assert config(upstreams={"weather": {"url": url}}).upstreams["weather"].url == url


@pytest.mark.parametrize(
    "url",
    [
        "", "mcp.example.com", "//mcp.example.com/", "ftp://mcp.example.com/", "file:///etc/passwd", "http:/x/",
        "http://",
        "http:///mcp", "http://u@h/", "http://u:p@h/", "http://@h/", "http://h/?a=b", "http://h/?", "http://h/#f",
        "http://h/#",
        "http://h:0/", "http://h:70000/", "http://h:x/", "http://h/../x", "http://h/%2e%2e/x", "http://h/./x",
        "http://h/a%2fb",
        "http://h\\@x/", "http://h/a b", "http://h/\n", " http://h/", "http://h/\u00e9", "http://h\u00e9/",
        "HTTP://h/", "http://h,x/",
        "http://[::1/", "http://[zz]/", "http://h/<x>",
    ],
)  # fmt: skip
def test_what_is_no_url_of_an_upstream(url: str) -> None:
    assert "upstreams.weather.url" in complaints(upstreams={"weather": {"url": url}})


@pytest.mark.parametrize("name", ["", "Weather", "-a", "a_b", "a.b", "a/b", "..", "a" * 64, "ä", "a\n"])
def test_what_is_no_name_of_an_upstream(name: str) -> None:
    complaints(upstreams={name: {"url": "http://h/"}, "weather": {"url": "http://h/"}})


@pytest.mark.parametrize("name", ["", "_a", "a/b", "a b", "a" * 64, "a\n", 'a"b'])
def test_what_is_no_name_of_a_client_or_policy(name: str) -> None:
    complaints(clients={name: {"token_sha256": A}})
    complaints(policies={name: {}, "default": {}})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Host", "x"), ("content-length", "1"), ("Transfer-Encoding", "chunked"), ("Connection", "close"), ("TE", "x"),
        ("Upgrade", "x"), ("Keep-Alive", "x"), ("Content-Type", "x"), ("Accept", "x"), ("Mcp-Session-Id", "x"),
        ("a b", "x"),
        ("a:", "x"), ("", "x"), ("ä", "x"), ("X-A", ""), ("X-A", " x"), ("X-A", "x "), ("X-A", "x\r\ny: z"),
        ("X-A", "x\ny"),
        ("X-A", "\u00e9"), ("X-A", "x\x00"), ("X-A", "x\x7f"), ("X-A", "x" * 8001),
    ],
)  # fmt: skip
def test_headers_that_cannot_be_fixed(name: str, value: str) -> None:
    complaints(upstreams={"weather": {"url": "http://127.0.0.1/", "headers": {name: value}}})


def test_a_header_is_given_once() -> None:
    assert "given twice" in complaints(upstreams={"weather": {"url": "http://h/", "headers": {"X-A": "1", "x-a": "2"}}})


@pytest.mark.parametrize(
    ("origin", "normal"),
    [
        ("https://app.example.com", "https://app.example.com"),
        ("https://App.Example.com:443", "https://app.example.com"),
        ("http://localhost:3000", "http://localhost:3000"), ("vscode-webview://abc", "vscode-webview://abc"),
        ("http://[::1]:5173", "http://[::1]:5173"),
    ],
)  # fmt: skip
def test_origins(origin: str, normal: str) -> None:
    assert config(listen={"allowed_origins": [origin]}).listen.allowed_origins == (normal,)


@pytest.mark.parametrize(
    "origin", ["*", "null", "app.example.com", "https://app.example.com/", "https://*.example.com", ""]
)
def test_what_is_no_origin(origin: str) -> None:
    assert "expected an origin" in complaints(listen={"allowed_origins": [origin]})


@pytest.mark.parametrize(
    "url",
    ["http://h/../x", "http://h/a//b", "http://h/%2e%2e", "http://h/?x", "http://u@h", "h", "ws://h", "http://h/a%41"],
)
def test_what_is_no_public_url(url: str) -> None:
    assert "listen.public_url" in complaints(listen={"public_url": url})


LOOPBACK = {"localhost:8080", "127.0.0.1:8080", "[::1]:8080"}


@pytest.mark.parametrize(
    ("listen", "expected"),
    [
        ({}, LOOPBACK),
        ({"host": "::1"}, LOOPBACK),
        ({"host": "10.0.0.5"}, {"10.0.0.5:8080"}),
        ({"host": "0.0.0.0"}, LOOPBACK | {"0.0.0.0:8080"}),
        ({"public_url": "https://MCP.Example.com/"}, LOOPBACK | {"mcp.example.com", "mcp.example.com:443"}),
        ({"public_url": "https://mcp.example.com:443/x"}, LOOPBACK | {"mcp.example.com", "mcp.example.com:443"}),
        ({"public_url": "https://mcp.example.com:8443"}, LOOPBACK | {"mcp.example.com:8443"}),
        ({"public_url": "https://[2001:db8::1]"}, LOOPBACK | {"[2001:db8::1]", "[2001:db8::1]:443"}),
        ({"host": "10.0.0.5", "port": 80}, {"10.0.0.5", "10.0.0.5:80"}),
        (
            {"port": 80},
            {"localhost", "127.0.0.1", "[::1]", "localhost:80", "127.0.0.1:80", "[::1]:80"},
        ),
        ({"hosts": ["MCP.example.com", "10.0.0.5:8080"]}, {"mcp.example.com", "10.0.0.5:8080"}),
    ],
)
def test_accepted_hosts(listen: dict[str, Any], expected: set[str]) -> None:
    assert config(listen=listen).accepted_hosts == expected


@pytest.mark.parametrize("host", ["http://h", "h/x", "u@h", "h:x", "*", "", "h h", "a,b"])
def test_what_is_no_host_value(host: str) -> None:
    assert "listen.hosts" in complaints(listen={"hosts": [host]})


# -- what must fit together --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sections", "complaint"),
    [
        ({"upstreams": {}}, "upstreams: at least one is needed"),
        ({"admin": {"port": 8080}}, "admin.port: the data port and the admin port must differ"),
        (
            {"listen": {"default_upstream": "wether"}},
            "listen.default_upstream: there is no upstream named wether; did you",
        ),
        ({"clients": {"demo": {"token_sha256": A, "policy": "x"}}}, "clients.demo.policy: there is no policy named x"),
        ({"policies": {"default": {"allowed_upstreams": ["a"]}}}, "policies.default.allowed_upstreams.0: there is no"),
        (
            {"policies": {"default": {"allowed_upstreams": ["weat*"]}}},
            "expected an upstream's exact name, or \\* for all",
        ),
        (
            {"policies": {"default": {"rate_limits": {"upstreams": {"a": {"max_requests_per_minute": 1}}}}}},
            "policies.default.rate_limits.upstreams.a: there is no upstream named a",
        ),
        (
            {"clients": {"a": {"token_sha256": A}, "b": {"tokens": [{"sha256": A}]}}},
            "clients.b: has the same token as the client a",
        ),
        ({"clients": {"a": {}}}, "clients.a: has no token; give it one"),
        (
            {"clients": {"a": {}, "b": {}}, "policies": {"default": {"require_auth": False}}},
            "clients.b: has no token, as a; only one client can be the anonymous one",
        ),
        ({"hooks": []}, "hooks: the policy hook is missing: nothing would be refused on weather"),
        ({"hooks": ["sanitize"]}, "hooks: the policy hook is missing"),
        ({"hooks": ["policy", "policy"]}, "hooks.1: there are two hooks named policy"),
        ({"hooks": [{"kind": "policy", "methods": ["tools/*"]}]}, "hooks.0.methods: the policy hook must see every"),
        ({"hooks": [{"kind": "policy", "directions": ["client"]}]}, "hooks.0.directions: the policy hook must see"),
        ({"hooks": ["policy", {"kind": "sanitize", "upstreams": ["w?"]}]}, "hooks.1.upstreams: no upstream is named w"),
        ({"limits": {"inline_message": "32MiB"}}, "limits.inline_message: must not exceed limits.max_message_size"),
    ],
)
def test_what_does_not_fit_together(sections: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        config(**sections)


def test_both_ports_may_be_any_free_one() -> None:
    assert config(listen={"port": 0}, admin={"port": 0}).listen.port == 0


@pytest.mark.parametrize(
    "limits",
    [{"json_depth": 129}, {"json_depth": 0}, {"max_message_size": 0}, {"body_timeout": 0}, {"max_sessions": -1}],
)
def test_limits_that_make_no_sense(limits: dict[str, Any]) -> None:
    complaints(limits=limits)


def test_limits_where_nothing_means_something() -> None:
    limits = Limits(stream_idle_timeout=0, drain_timeout=0)
    assert (limits.stream_idle_timeout, limits.drain_timeout) == (0, 0)


def test_hooks_of_an_upstream_keep_their_order() -> None:
    whole = config(
        upstreams={"weather": {"url": "http://h/"}, "tickets": {"url": "http://h/"}},
        hooks=["sanitize", {"kind": "acme:Hook", "name": "acme", "upstreams": ["tick*"]}, "policy"],
    )
    assert [entry.name for entry in whole.hooks_for("weather")] == ["sanitize", "policy"]
    assert [entry.name for entry in whole.hooks_for("tickets")] == ["sanitize", "acme", "policy"]


def test_a_hook_written_as_its_kind() -> None:
    assert HookEntry.model_validate("acme.hooks:Mark") == HookEntry(kind="acme.hooks:Mark", name="acme.hooks:Mark")
    assert HookEntry(kind="sanitize").name == "sanitize"


def test_each_upstream_needs_its_policy_hook() -> None:
    upstreams = {"weather": {"url": "http://h/"}, "tickets": {"url": "http://h/"}}
    half = {"kind": "policy", "upstreams": ["weather"]}
    assert "nothing would be refused on tickets" in complaints(upstreams=upstreams, hooks=[half])
    trial = {"kind": "policy", "name": "trial", "mode": "shadow", "upstreams": ["tickets"]}
    whole = config(upstreams=upstreams, hooks=[half, trial])
    assert any("THE POLICY IS NOT ENFORCED" in warning for warning in whole.warnings)


def test_tokens_of_a_client() -> None:
    client = Client.model_validate(
        {"token_sha256": [A], "tokens": [{"sha256": B, "expires": "2027-01-31T12:00:00+02:00"}]}
    )
    assert [token.sha256 for token in client.all_tokens] == [A, B]
    late = client.all_tokens[1]
    assert late.expires == datetime.datetime(2027, 1, 31, 10, tzinfo=datetime.UTC)
    assert not late.is_expired(datetime.datetime(2027, 1, 31, 9, 59, 59, tzinfo=datetime.UTC))
    assert late.is_expired(datetime.datetime(2027, 1, 31, 10, tzinfo=datetime.UTC))
    assert Client.model_validate({"token_sha256": A}).token_sha256 == (A,)
    assert Client().all_tokens == ()


@pytest.mark.parametrize("expires", ["2027-01-31T12:00:00", "2027-01-31", "1800000000", 1800000000, "soon", True])
def test_an_expiry_is_a_moment_with_a_time_zone(expires: object) -> None:
    assert "expected a" in complaints(clients={"demo": {"tokens": [{"sha256": A, "expires": expires}]}})


@pytest.mark.parametrize("digest", ["", "A" * 64, "a" * 63, "a" * 65, "g" * 64, "a" * 64 + "\n"])
def test_a_digest_is_lower_case_hexadecimal(digest: str) -> None:
    assert "64 lower-case hexadecimal digits" in complaints(clients={"demo": {"token_sha256": digest}})


# -- warnings, explanation, the configuration without a file -----------------------------------------------------------


@pytest.mark.parametrize(
    ("sections", "warning"),
    [
        ({"hooks": [{"kind": "policy", "mode": "shadow"}]}, "hooks.0.mode: THE POLICY IS NOT ENFORCED"),
        (
            {
                "clients": {"all": {}},
                "policies": {"default": {"require_auth": False, "allowed_upstreams": ["*"]}},
                "listen": {"host": "10.0.0.5"},
            },
            "clients.all: everybody who reaches 10.0.0.5 is this client",
        ),
        ({"policies": {"default": {"require_auth": False}}}, "policies.default.require_auth: has no effect"),
        ({"clients": {}}, "clients: none: every request will be refused"),
        ({"listen": {"host": "::"}}, "listen.public_url: not set while listening on ::"),
        ({"admin": {"host": "10.0.0.5"}}, "admin.host: whoever reaches 10.0.0.5"),
        (
            {"upstreams": {"weather": {"url": "http://w.example/", "headers": {"X-A": "b"}}}},
            "upstreams.weather.url: its headers cross the network in clear",
        ),
        ({"policies": {"default": {}}}, "upstreams.weather: no policy allows it"),
        ({"audit": {"mode": "best_effort"}}, "audit.mode: best_effort: calls may go unrecorded"),
    ],
)
def test_warnings(sections: dict[str, Any], warning: str) -> None:
    whole = config(**sections)
    assert [text for text in whole.warnings if text.startswith(warning)], whole.warnings
    assert any(line.startswith(f"warning: {warning}") for line in explain(whole))


def test_nothing_to_warn_of() -> None:
    assert config().warnings == ()
    everybody = {"clients": {"all": {}}, "policies": {"default": {"require_auth": False, "allowed_upstreams": ["*"]}}}
    assert config(**everybody).warnings == ()


def test_the_explanation() -> None:
    whole = config(
        clients={"demo": {"token_sha256": A, "tokens": [{"sha256": B, "expires": "2027-01-31T12:00:00Z"}]}},
        policies={"default": {"allowed_upstreams": ["weather"], "allowed_tools": ["get_*"], "allowed_prompts": ["*"]}},
        hooks=["policy", {"kind": "sanitize", "mode": "shadow", "directions": ["server"]}],
    )
    before = datetime.datetime(2027, 1, 1, tzinfo=datetime.UTC)
    assert explain(whole, before) == [
        "data port   http://127.0.0.1:8080  (listens on 127.0.0.1, port 8080)",
        "admin port  127.0.0.1, port 9090",
        "audit       var/audit.jsonl  (required)",
        "upstream weather: http://127.0.0.1:9001/mcp (streamable-http), served at /weather/mcp and /mcp",
        "  hooks      policy -> sanitize (shadow; server only)",
        "client demo: policy default, 2 tokens, the next one expires 2027-01-31T12:00+00:00",
        "  upstreams  weather",
        "  tools      get_*",
        "  resources  none",
        "  prompts    all",
        "  limits     600 requests per minute, 100 at once; 1MiB per request; 32 calls and 32 streams at a time",
    ]
    after = datetime.datetime(2027, 2, 1, tzinfo=datetime.UTC)
    assert "client demo: policy default, 2 tokens, 1 expired" in explain(whole, after)


def test_a_configuration_without_a_file() -> None:
    whole = single_upstream("https://mcp.example.com/mcp", 0, A, headers={"X-A": "b"}, allowed_tools=["get_*"])
    assert whole.default_upstream == "server"
    assert whole.upstreams["server"].headers == {"X-A": "b"}
    assert (whole.listen.port, whole.admin.port) == (0, 0)
    policy = whole.policies[whole.clients["local"].policy]
    assert (policy.allowed_tools, policy.allowed_resources, policy.allowed_prompts) == (("get_*",), ("*",), ("*",))
    assert whole.warnings == ()


def test_importing_the_configuration_loads_no_server() -> None:
    """``mcpgw check`` and ``mcpgw token`` start at once."""
    code = (
        "import sys, gateway.cli, gateway.config; "
        "print([name for name in ('aiohttp', 'asyncio', 'prometheus_client', 're2', 'jiter') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() == "[]"
