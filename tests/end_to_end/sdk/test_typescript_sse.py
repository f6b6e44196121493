"""The official TypeScript client over HTTP+SSE, through the gateway, with a server that speaks streamable HTTP only."""

from __future__ import annotations

import json
import subprocess

from tests.end_to_end.sdk.lab import HERE, Lab
from tests.end_to_end.sdk.script import ANSWERS


def test_a_session_over_http_sse(lab: Lab) -> None:
    url = lab.through_gateway("weather").removesuffix("/mcp") + "/sse"
    command = [lab.node, "ts/sse.mjs", url, lab.tokens["open"], json.dumps(ANSWERS["weather"])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=HERE)
    assert done.returncode == 0, done.stderr[-4000:]
    told = {line["step"]: line["value"] for line in map(json.loads, done.stdout.splitlines())}
    assert "get_forecast" in told["tools"]
    assert told["call"] == told["afterwards"]
    assert told["call"]["content"]
    # The SDK gives progress to its handlers later than results: the last one may come when the call has ended for it.
    assert told["progress"][:9] == list(range(1, 10))
    assert told["asked"]["content"][0]["text"].startswith("Oslo on day")
