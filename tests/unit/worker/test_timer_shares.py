"""How many timers of one source fire at a time."""

from __future__ import annotations

import pytest

from shared.domain.ids import CallKey, CallRef, SourceName
from worker.folding.timer_shares import BURST, PER_S, TimerShares

NOW_MS = 1_800_000_000_000


def _due(source: str, count: int) -> list[CallKey]:
    return [CallKey(SourceName(source), CallRef(str(number))) for number in range(1, count + 1)]


def test_a_source_with_few_due_calls_fires_them_all() -> None:
    shares = TimerShares()
    for tick in range(20):
        assert shares.divide(_due("acme", PER_S // 4), NOW_MS + 300 * tick) == (_due("acme", PER_S // 4), {})


def test_a_source_with_many_due_calls_fires_a_burst_and_then_its_rate() -> None:
    """The others get a time each, in order, and none is at the same time as another: a window of due calls holds few of them."""
    shares, due = TimerShares(), _due("flooder", 5 * BURST)
    firing, postponed = shares.divide([*due, *_due("other", 1)], NOW_MS)
    assert firing == [*due[:BURST], *_due("other", 1)]
    assert list(postponed) == due[BURST:]
    times = list(postponed.values())
    assert times == sorted(set(times))
    assert times[-1] - NOW_MS == round(4 * BURST / PER_S * 1000)


@pytest.mark.parametrize("tick_ms", [100, 310, 900])
@pytest.mark.parametrize("workers", [1, 2])
def test_calls_that_were_postponed_fire_when_they_are_due_again(tick_ms: int, workers: int) -> None:
    """Each is postponed about once, and all have fired as soon as the rate allows, also if the workers take turns."""
    shares = [TimerShares() for _ in range(workers)]
    wake_ups = dict.fromkeys(_due("flooder", 5000), NOW_MS)
    touched, now_ms = 0, NOW_MS
    while wake_ups:
        for each in shares:
            due = sorted((key for key, at_ms in wake_ups.items() if at_ms <= now_ms), key=wake_ups.__getitem__)
            firing, postponed = each.divide(due[: len(due) // 2 + 1] if each is not shares[-1] else due, now_ms)
            touched += len(due)
            for key in firing:
                del wake_ups[key]
            wake_ups |= postponed
        now_ms += tick_ms
        assert now_ms <= NOW_MS + 20_000, f"{len(wake_ups)} calls never fire"
    assert now_ms - NOW_MS <= 1.2 * 5000 / PER_S * 1000 + tick_ms
    assert touched <= 4 * 5000


def test_the_rate_holds_over_time() -> None:
    shares, fired = TimerShares(), 0
    for tick in range(100):
        fired += len(shares.divide(_due("flooder", 1000), NOW_MS + 100 * tick)[0])
    assert fired <= BURST + PER_S * 10 + 1
