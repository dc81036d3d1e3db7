"""Two minutes of chaos: processes die, links break, a disk is full, and an auditor finds nothing.

`make chaos` is the same with more of everything. docs/reliability.md says how to repeat a run.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import orjson

from tests.chaos.links import ROOT
from tests.helpers.chaos_runs import chaos_run
from tests.helpers.pace import LIMIT_S
from tests.helpers.servers import UNMEASURED, ended


async def test_no_promise_is_broken_by_two_minutes_of_faults(tmp_path: Path) -> None:
    report_path = tmp_path / "report.json"
    code, output = await chaos_run(tmp_path, within_s=4 * LIMIT_S, CHAOS_SHORT="1", CHAOS_REPORT=str(report_path))
    assert code == 0, output
    report = orjson.loads(report_path.read_bytes())
    figures = report["figures"]
    assert report["violations"] == {}
    assert len(figures["faults_by_kind"]) >= 5
    assert figures["accepted"] >= 100
    assert figures["recordings"] >= 10
    assert {"answered", "agent_missed", "dialed_missed"} <= set(figures["outcomes"])
    await ended(tmp_path)


async def test_an_interrupted_run_leaves_nothing_running(tmp_path: Path) -> None:
    environment = os.environ | UNMEASURED | {"CHAOS_DIRECTORY": str(tmp_path), "CHAOS_SHORT": "1"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.chaos"), cwd=ROOT, env=environment, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(LIMIT_S):
        await process.stdout.readline()
        while not any(tmp_path.glob("callfold-chaos-*/rabbitmq/*.log")):
            await asyncio.sleep(0.1)
        process.terminate()
        assert await process.wait() == 130
    await ended(tmp_path)
    assert list(tmp_path.iterdir()) == []
