"""Redis loses its state 50 times at random moments under load, while workers are killed: nothing is lost, spurious or wrong."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from tests.chaos.options import LOSSES
from tests.helpers.chaos_runs import chaos_run
from tests.helpers.pace import PACE
from tests.helpers.servers import ended


@pytest.mark.parametrize("losses", [pytest.param(50, marks=pytest.mark.volume)])
async def test_lost_state_costs_nothing_and_ends_no_hold(tmp_path: Path, losses: int) -> None:
    report_path = tmp_path / "report.json"
    options = {"CHAOS_LOSSES": str(losses), "CHAOS_SEED": "1", "CHAOS_RATE": "6", "CHAOS_REPORT": str(report_path)}
    code, output = await chaos_run(tmp_path, within_s=3500 * PACE, **options)
    print(output)  # noqa: T201 - the figures
    assert code == 0, output
    report = orjson.loads(report_path.read_bytes())
    figures = report["figures"]
    assert report["violations"] == {}
    assert figures["faults_by_kind"].keys() == set(LOSSES)
    assert figures["faults"] == losses
    assert figures["kills_before_recovery"] >= losses / 4
    assert figures["rebuilds_begun"] > figures["rebuilds_finished"] >= losses / 2
    assert figures["losses_unnoticed"] <= losses / 10, "a replica that takes over may by chance have everything"
    assert figures["held_recordings"] >= figures["holds"] == 5
    assert figures["deleted"] >= losses
    await ended(tmp_path)
