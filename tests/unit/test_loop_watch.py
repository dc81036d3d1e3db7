"""A long step of the loop is measured by its CPU time, and logged with where it was."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace

import pytest
import structlog
from structlog.testing import capture_logs

from shared import metrics
from shared.runtime import loop_watch
from shared.runtime.loop_watch import _Maximum, watching_loop


def _compute(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


def _steps_beyond_50_ms() -> float:
    (family,) = metrics.LOOP_STEP.collect()
    counts = {sample.labels.get("le"): sample.value for sample in family.samples if sample.name.endswith("_bucket")}
    return counts["+Inf"] - counts["0.05"]


async def _ticked(times: int = 3) -> None:
    (family,) = metrics.LOOP_STEP.collect()
    count = next(sample.value for sample in family.samples if sample.name.endswith("_count"))
    while True:
        (family,) = metrics.LOOP_STEP.collect()
        if next(sample.value for sample in family.samples if sample.name.endswith("_count")) >= count + times:
            return
        await asyncio.sleep(0.01)


async def test_a_long_step_is_measured_and_logged_once_a_minute_with_its_stack() -> None:
    structlog.configure(cache_logger_on_first_use=False)
    with watching_loop(), capture_logs() as logs:
        await _ticked()
        before = _steps_beyond_50_ms()
        for _ in range(2):
            _compute(0.6)
            await _ticked()
        assert _steps_beyond_50_ms() == before + 2
        (family,) = metrics.LOOP_STEP_MAX.collect()
        assert 0.5 <= family.samples[0].value < 1
    (line,) = [line for line in logs if line["event"] == "event_loop_blocked"]
    assert line["cpu_s"] >= 0.5
    assert any("_compute" in frame for frame in line["stack"])


async def test_time_that_the_loop_waits_or_another_thread_computes_is_no_step() -> None:
    with watching_loop():
        await _ticked()
        before = _steps_beyond_50_ms()
        time.sleep(0.3)  # noqa: ASYNC251 - as if another process had the CPU
        await asyncio.to_thread(_compute, 0.3)
        await _ticked()
        assert _steps_beyond_50_ms() == before


async def test_many_short_steps_are_no_long_one() -> None:
    async def short_steps(count: int) -> None:
        for _ in range(count):
            _compute(0.002)
            await asyncio.sleep(0)

    with watching_loop():
        ticked = asyncio.create_task(_ticked())
        while not ticked.done():  # so that it looks as often as it does in a busy process
            await short_steps(1)
        before = _steps_beyond_50_ms()
        await short_steps(200)
        assert _steps_beyond_50_ms() == before


@pytest.mark.parametrize(
    ("late_s", "used_s", "step_s"), [(0.002, 0.1, 0.002), (0.2, 0.1, 0.1), (0.2, 0.2, 0.2), (-0.001, 0.1, 0)]
)
async def test_a_step_counts_for_as_long_as_its_timer_is_late_and_for_no_more_than_was_computed(
    monkeypatch: pytest.MonkeyPatch, late_s: float, used_s: float, step_s: float
) -> None:
    now_s, cpu_s = 1000.0, 1.0
    monkeypatch.setattr(loop_watch, "time", SimpleNamespace(monotonic=lambda: now_s, thread_time=lambda: cpu_s))
    watch = loop_watch._LoopWatch(asyncio.get_running_loop())
    try:
        watch._timer.cancel()
        now_s, cpu_s = watch._due_at + late_s, cpu_s + used_s
        watch._tick()
        assert watch._maximum.current(now_s) == pytest.approx(step_s)
    finally:
        watch.stop()


def test_a_maximum_is_seen_for_at_least_a_minute_and_less_than_two() -> None:
    maximum = _Maximum()
    maximum.add(0.7, 1000)
    maximum.add(0.1, 1059)
    assert maximum.current(1059) == 0.7
    maximum.add(0.2, 1061)
    assert maximum.current(1061) == 0.7
    assert maximum.current(1122) == 0.2
    assert maximum.current(9999) == 0


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_watch, "_LOOK_S", 0.02)
