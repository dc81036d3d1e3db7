"""The figures of a PBX become conditions and sentences that claim no more than is known."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shared.domain.clock_drift import drift_ratio
from shared.domain.ids import SourceName
from shared.domain.lost_callbacks import Losses
from shared.domain.pbx_habit import Silence
from shared.domain.pbx_report import Condition, PbxReport, describe, pbx_conditions

NOW_MS = 1_796_000_000_000
ACME = SourceName("acme")
GOOD = PbxReport(
    ACME,
    last_ms=NOW_MS - 5000,
    silence=Silence(5, 1, is_unusual=False),
    judged_ms=NOW_MS - 1000,
    calls=812,
    losses=Losses(2400, 0),
    dials=40,
    ids_used=5000,
    ahead_s=dict.fromkeys(range(5), 0.2),
)
SILENT = Silence(1500, 1e-9, is_unusual=True)


def test_an_ordinary_pbx_has_no_condition() -> None:
    assert pbx_conditions([GOOD, PbxReport(ACME)], NOW_MS) == []
    assert describe(PbxReport(ACME), NOW_MS) == ["acme: no callback is known."]
    assert "acme: no callback seems lost in the last 24 h, from 812 calls (at most 0.2 %)." in describe(GOOD, NOW_MS)


@pytest.mark.parametrize(
    ("report", "condition", "sentence"),
    [
        (replace(GOOD, silence=SILENT), Condition.SILENT, "acme: no callback for 25 min."),
        (replace(GOOD, unheard=2), Condition.UNHEARD_DIALS, "acme: no callback followed 2 of 40 dial requests in the last 24 h."),
        (
            replace(GOOD, losses=Losses(2400, 96)),
            Condition.LOSING_CALLBACKS,
            "acme: about 4 % (3 to 5 %) of callbacks lost in the last 24 h, from 812 calls.",
        ),
        (
            replace(GOOD, ids_skipped=12, last_skipped=513),
            Condition.ID_GAPS,
            "acme: 12 of 5,012 RequestIDs in the last 24 h were skipped, the last one is 513.",
        ),
        (
            replace(GOOD, ahead_s={hour: 2.5 * hour for hour in range(5)}),
            Condition.CLOCK_DRIFTS,
            "acme: the clock of the PBX gains 2.5 s in an hour.",
        ),
        (
            replace(GOOD, unknown={"Queue": 3}, missing={"Guid": 30}),
            Condition.ADAPTER_CHANGED,
            "acme: callbacks have parameters that the adapter link lacks (Queue) and parameters of the adapter link stopped",
        ),
    ],
)
def test_each_condition_has_its_sentence(report: PbxReport, condition: Condition, sentence: str) -> None:
    (found,) = pbx_conditions([report], NOW_MS)
    assert found.condition is condition
    assert found.sentence.startswith(sentence)
    assert any(found.sentence.startswith(each[:20]) for each in describe(report, NOW_MS))


@pytest.mark.parametrize(
    "report",
    [
        pytest.param(replace(GOOD, silence=SILENT, judged_ms=NOW_MS - 121_000), id="no worker judges any more"),
        pytest.param(replace(GOOD, losses=Losses(99, 50)), id="too few calls"),
        pytest.param(replace(GOOD, losses=Losses(400, 8)), id="2 % may be 1 %"),
        pytest.param(replace(GOOD, ids_used=500, ids_skipped=400), id="other programs dial too"),
        pytest.param(replace(GOOD, ids_used=20, ids_skipped=1), id="too few ids"),
        pytest.param(replace(GOOD, unknown={"x": 2}, missing={"y": 29}), id="a stray callback"),
        pytest.param(replace(GOOD, ahead_s={1: 0, 2: 0, 3: 0, 4: 60, 5: 60, 6: 60, 7: 60}), id="a clock that was set once"),
        pytest.param(replace(GOOD, ahead_s={1: 0, 2: 9}), id="two hours"),
    ],
)
def test_what_is_in_doubt_is_not_claimed(report: PbxReport) -> None:
    assert pbx_conditions([report], NOW_MS) == []


def test_drift_is_seconds_gained_in_a_second() -> None:
    drift = drift_ratio({hour: 0.36 * hour for hour in (1, 2, 5, 9)})
    assert drift is not None
    assert abs(drift - 1e-4) < 1e-9
    assert drift_ratio({}) is None
