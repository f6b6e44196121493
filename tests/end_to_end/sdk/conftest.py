"""The lab that the interop tests share."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest

from tests.end_to_end.sdk.lab import Lab


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory, needs: Callable[[str, str], str]) -> Iterator[Lab]:
    """The servers and the gateway; all have ended when the tests have."""
    with contextlib.ExitStack() as stack:
        yield Lab(tmp_path_factory.mktemp("interop"), stack, needs)
