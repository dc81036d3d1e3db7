"""How many timers of one source fire at a time."""

from __future__ import annotations

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
    assert firing == [*due[: BURST + 1], *_due("other", 1)]
    assert list(postponed) == due[BURST + 1 :]
    times = list(postponed.values())
    assert times == sorted(set(times))
    assert times[-1] - NOW_MS == round((4 * BURST - 1) / PER_S * 1000)


def test_the_rate_holds_over_time() -> None:
    shares, fired = TimerShares(), 0
    for tick in range(100):
        fired += len(shares.divide(_due("flooder", 1000), NOW_MS + 100 * tick)[0])
    assert fired <= BURST + PER_S * 10 + 1
