"""Sessions that clients of the official TypeScript SDKs have with real servers.

``ts1`` is npm ``@modelcontextprotocol/sdk`` 1.x, ``ts2`` is ``@modelcontextprotocol/client`` 2.x.
"""

from __future__ import annotations

from tests.end_to_end.sdk.interop import Everything, Refusals, Weather, pytest_generate_tests

__all__ = ["pytest_generate_tests"]

CLIENTS = ("ts1-legacy", "ts2-legacy", "ts2-modern")


class TestTypeScriptWithWeather(Weather):
    clients = CLIENTS


class TestTypeScriptWithEverything(Everything):
    clients = CLIENTS


class TestTypeScriptRefusals(Refusals):
    clients = CLIENTS
