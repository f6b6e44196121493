"""docs/harness.md: its examples run, and it names everything that the harness exports."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from pathlib import Path

import pytest

import gateway.harness

PAGE = (Path(__file__).parents[2] / "docs" / "harness.md").read_text(encoding="utf-8")
BLOCKS = [(PAGE[: match.start(1)].count("\n"), match[1]) for match in re.finditer(r"```python\n(.*?)```", PAGE, re.S)]


@pytest.mark.parametrize("block", [pytest.param(block, id=f"line {block[0] + 1}") for block in BLOCKS])
async def test_examples_run(block: tuple[int, str]) -> None:
    line, source = block
    code = compile("\n" * line + source, "docs/harness.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    namespace = {"__name__": "example"}
    async with asyncio.timeout(20):
        running = eval(code, namespace)
        if inspect.iscoroutine(running):
            await running


def test_there_are_examples() -> None:
    assert len(BLOCKS) >= 7


def test_every_name_is_documented() -> None:
    code = "\n".join([*re.findall(r"`([^`\n]+)`", PAGE), *(source for _, source in BLOCKS)])
    assert set(gateway.harness.__all__) <= set(re.findall(r"\w+", code))
