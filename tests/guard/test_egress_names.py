"""The hook in docs/arguments.md that looks names up, as it stands there."""

from __future__ import annotations

import ipaddress
import re
import types
from pathlib import Path
from typing import Any

import pytest

from gateway.guard.hook import PASS, Block
from tests.guard.messages import exchange, request

# An address, then another one: rebinding.
STUB = {
    "docs.example.com": ["93.184.216.34"],
    "both.example.com": ["93.184.216.34", "127.0.0.1"],
    "inside.example.com": ["::ffff:10.0.0.1"],
    "127.0.0.1.nip.io": ["127.0.0.1"],
}


@pytest.fixture(scope="module")
def hook() -> Any:
    text = (Path(__file__).parents[2] / "docs" / "arguments.md").read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    module = types.ModuleType("names")
    exec(compile(blocks[0], "arguments.md", "exec"), module.__dict__)
    return module.PublicNames({"fetch_url": ["url"]}, private=["localhost"])


async def judge(hook: Any, url: Any, tool: str = "fetch_url") -> Any:
    return await hook.on_message(request("tools/call", name=tool, arguments={"url": url}), exchange())


async def test_every_address_of_a_name_must_be_public(hook: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def addresses(host: str) -> Any:
        return [ipaddress.ip_address(text) for text in STUB[host]]

    monkeypatch.setattr(hook, "addresses", addresses)
    assert await judge(hook, "https://docs.example.com/") is PASS
    assert await judge(hook, "https://8.8.8.8/") is PASS
    assert await judge(hook, "http://localhost/") is PASS
    assert await judge(hook, "http://other.example.com/", "other") is PASS
    for host in ("both.example.com", "inside.example.com", "127.0.0.1.nip.io", "10.0.0.1"):
        assert isinstance(await judge(hook, f"http://{host}/"), Block)
    assert isinstance(await judge(hook, 5), Block)


async def test_the_system_is_asked(hook: Any) -> None:
    assert ipaddress.ip_address("127.0.0.1") in await hook.addresses("localhost")
