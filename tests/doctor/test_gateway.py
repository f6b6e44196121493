"""The gateway under its own doctor: it makes a strict server of a lenient one."""

from __future__ import annotations

from pathlib import Path

from gateway.app import Gateway
from gateway.config import single_upstream
from gateway.config.load import validate
from gateway.doctor import examine
from gateway.doctor.report import Level
from gateway.harness import ScriptedMcp
from tests.end_to_end.conftest import ALICE, configuration


async def test_the_doctor_finds_nothing_wrong_with_the_gateway(tmp_path: Path) -> None:
    async with ScriptedMcp() as server:
        config = validate(configuration(tmp_path / "audit.jsonl", {"up": server.url}), source="test")
        async with Gateway(config) as gateway:
            front = single_upstream(gateway.endpoint("up"), 0, "0" * 64, headers={"Authorization": f"Bearer {ALICE}"})
            report = await examine(front.upstreams["server"], front.limits, idle=0.1)
        assert server.sessions == {}
    assert report.servable
    assert [each.text for each in report.findings if each.level in (Level.WARNING, Level.PROBLEM)] == []
    refused = {"accept", "media-type", "origin", "duplicate-member", "syntax", "version", "batch", "open"}
    assert {each.level for each in report.findings if each.check in refused} == {Level.OK}
