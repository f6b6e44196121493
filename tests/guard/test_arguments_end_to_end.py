from __future__ import annotations

from typing import Any

from gateway.harness.client import request
from gateway.harness.mcp_server import ScriptedMcp
from gateway.harness.script import json_answer
from tests.end_to_end.conftest import serve  # noqa: F401 - a fixture

GITHUB = "ghp" + "_" + "FAKE0fake1TEST2test3ABCD4efgh5IJKL6m7"
SCHEMA = {"type": "object", "properties": {"url": {"type": "string"}}, "required": ["url"]}
LIST = {
    "tools": [{"name": "get_page", "inputSchema": SCHEMA, "outputSchema": {"type": "object", "required": ["size"]}}]
}
FORM = {
    "message": "Enter your password",
    "requestedSchema": {"type": "object", "properties": {"x": {"type": "string"}}},
}


async def test_through_the_gateway(serve: Any) -> None:  # noqa: F811
    answers: dict[str, Any] = {"content": [], "structuredContent": {}}
    methods = {
        "tools/list": json_answer(LIST),
        "tools/call": lambda received: json_answer(answers)(received),
    }
    rule = {"tools": ["get_*"], "egress": {"members": ["url"]}, "when": 'args.url.size() < 90 && client == "alice"'}
    hook = {"kind": "arguments", "options": {"output_schema": "block", "rules": [rule]}}
    async with ScriptedMcp(methods=methods) as upstream:
        gateway = await serve(upstream.url, hooks=["policy", hook, "sanitize"])
        async with gateway.client() as client:
            await client.initialize()

            async def reason(url: Any = "https://docs.example.com/", **arguments: Any) -> Any:
                message = request(
                    "tools/call", {"name": "get_page", "arguments": {"url": url, **arguments}}, id=client.next_id()
                )
                response = await (await client.post(message)).json()
                return response["error"]["data"]["reason"] if "error" in response else "pass"

            # Not listed yet: only the rules are known.
            assert await reason("http://169.254.169.254/latest/meta-data/") == "argument-egress"
            await client.call("tools/list")
            before = len(upstream.requests)
            assert await reason("http://127.1/") == "argument-egress"
            assert await reason("https://docs.example.com/" + "a" * 90) == "argument-condition"
            assert await reason(None) == "condition-failed"
            assert await reason(note=GITHUB) == "argument-secret"
            assert len(upstream.requests) == before
            assert await reason() == "output-schema"
            answers["structuredContent"] = {"size": 5}
            assert await reason() == "pass"
            questions = {"q": {"method": "elicitation/create", "params": FORM}}
            answers.update(inputRequests=questions)
            assert await reason() != "pass"
            records = str(gateway.records())
            assert "argument-egress" in records
            assert GITHUB not in records
