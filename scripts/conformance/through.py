"""``python -m scripts.conformance.through URL``: the client of the suite, with the gateway in front of the URL."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from .programs import Failed, gateway, run

TIMEOUT = 60.0


async def play(url: str) -> int:
    """The client's exit status."""
    logs = Path(os.environ["CONFORMANCE_LOGS"]) / os.environ["MCP_CONFORMANCE_SCENARIO"]
    try:
        async with gateway(logs, url) as endpoint:
            client = (sys.executable, "-m", "tests.everything_server.client", endpoint)
            code, words = await run(*client, seconds=TIMEOUT)
    except Failed as error:
        code, words = 1, str(error)
    print(words, file=sys.stderr)
    return 1 if code is None else code


if __name__ == "__main__":
    sys.exit(asyncio.run(play(sys.argv[1])))
