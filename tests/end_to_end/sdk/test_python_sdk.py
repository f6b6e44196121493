"""Sessions that clients of the official Python SDK (PyPI ``mcp``) have with real servers."""

from __future__ import annotations

from tests.end_to_end.sdk.interop import Everything, Refusals, Weather, pytest_generate_tests

__all__ = ["pytest_generate_tests"]

CLIENTS = ("python-legacy", "python-modern")


class TestPythonWithWeather(Weather):
    clients = CLIENTS


class TestPythonWithEverything(Everything):
    clients = CLIENTS


class TestPythonRefusals(Refusals):
    clients = CLIENTS
