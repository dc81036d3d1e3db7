"""Which callbacks are published at once, which wait, and which are refused: by rates, lag and what waits already."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from ingress.fair_shares import GUARANTEED_PER_S, LAG_S, TICK_S, FairShares, Load, Route
from ingress.message_size import SMALLEST, MessageSize
from shared.domain.ids import SourceName

GIB = 1 << 30
FLOODER, OTHER, THIRD = (SourceName(name) for name in ("flooder", "other", "third"))
BEHIND = Load(lag_s=2 * LAG_S)


def _shares(*sources: SourceName, bytes_per_day: int = 5 * GIB, max_waiting_bytes: int = GIB) -> FairShares:
    return FairShares(sources, bytes_per_day=bytes_per_day, max_waiting_bytes=max_waiting_bytes)


def _routes(shares: FairShares, per_s: dict[SourceName, float], load: Load, *, ticks: int = 20) -> dict[SourceName, Route]:
    """Let sources send at a rate for some time, all of it taken in; returns the routes at the end."""
    for _ in range(ticks):
        for source, rate in per_s.items():
            for _ in range(round(rate * TICK_S)):
                shares.of(source).take(1)
        shares.update(TICK_S, load)
    return {source: shares.of(source).route for source in per_s}


def test_a_source_above_its_share_waits_while_the_fold_is_behind_and_only_then() -> None:
    rates = {FLOODER: 3000.0, OTHER: 200.0}
    assert _routes(_shares(FLOODER, OTHER), rates, Load(lag_s=LAG_S)) == {FLOODER: Route.PUBLISH, OTHER: Route.PUBLISH}
    assert _routes(_shares(FLOODER, OTHER), rates, BEHIND) == {FLOODER: Route.WAIT, OTHER: Route.PUBLISH}


def test_a_single_source_never_waits() -> None:
    assert _routes(_shares(FLOODER), {FLOODER: 5000.0}, BEHIND) == {FLOODER: Route.PUBLISH}


def test_a_source_goes_on_to_wait_until_nothing_of_it_waits() -> None:
    shares = _shares(FLOODER, OTHER)
    assert _routes(shares, {FLOODER: 0.0, OTHER: 0.0}, Load(waiting_bytes={FLOODER: 1}))[FLOODER] is Route.WAIT
    assert _routes(shares, {FLOODER: 0.0, OTHER: 0.0}, Load())[FLOODER] is Route.PUBLISH


@example(rates=[0, 110], lag_s=1.0, waiting=GIB)
@example(rates=[150, 170], lag_s=1.0, waiting=GIB)
@given(
    rates=st.lists(st.integers(0, 3000), min_size=2, max_size=6),
    lag_s=st.floats(0, 1000),
    waiting=st.integers(0, 2 * GIB),
)
def test_a_source_below_its_share_or_the_guaranteed_rate_is_published_at_once(
    rates: list[int], lag_s: float, waiting: int
) -> None:
    """Whatever the lag, and however much of another source waits.

    With a full file a source above its share is refused. What is refused does not count, so the shares of the others shrink.
    """
    sources = [SourceName(f"s{number}") for number in range(len(rates))]
    sent = {source: rate // 10 * 10 for source, rate in zip(sources, rates, strict=True)}  # whole callbacks in each tick
    load = Load(lag_s, waiting_bytes={SourceName("former"): waiting})
    routes = _routes(_shares(*sources), {source: float(rate) for source, rate in sent.items()}, load)
    share = sum(sent.values()) / len(sent)
    for source, rate in sent.items():
        limit = max(share, GUARANTEED_PER_S) if waiting < GIB else GUARANTEED_PER_S
        if rate <= limit - 1:
            assert routes[source] is Route.PUBLISH, (rate, share)
        if rate > limit + 1 and lag_s > LAG_S and waiting < GIB:
            assert routes[source] is not Route.PUBLISH, (rate, share)


@given(waiting=st.dictionaries(st.sampled_from([FLOODER, OTHER, THIRD]), st.integers(1, GIB), min_size=1))
def test_no_source_has_more_waiting_than_is_free(waiting: dict[SourceName, int]) -> None:
    shares = _shares(FLOODER, OTHER, THIRD)
    routes = _routes(shares, dict.fromkeys((FLOODER, OTHER, THIRD), 0.0), Load(waiting_bytes=waiting))
    free = GIB - sum(waiting.values())
    for source, size in waiting.items():
        assert routes[source] is (Route.WAIT if size < free else Route.OVER_WAITING)


def test_while_no_worker_folds_a_full_file_refuses_nothing() -> None:
    """Then the queue takes it, as without shares: an outage of workers must not cost callbacks."""
    full = Load(lag_s=60, is_fold_away=True, waiting_bytes={FLOODER: GIB})
    assert _routes(_shares(FLOODER, OTHER), {FLOODER: 0.0, OTHER: 0.0}, full)[FLOODER] is Route.PUBLISH


def test_an_allowance_that_is_used_up_refuses_until_it_has_refilled_for_a_while() -> None:
    shares = _shares(FLOODER, OTHER, bytes_per_day=86_400)  # refills by a byte a second
    assert shares.of(FLOODER).take(86_401) is Route.PUBLISH
    assert shares.update(TICK_S, Load()) == {FLOODER: Route.OVER_DAY}
    assert shares.of(FLOODER).take(10**9) is Route.OVER_DAY, "and does not count"
    assert shares.of(FLOODER).refilled_in_s() == 11
    assert shares.update(5, Load()) == {}
    assert shares.of(FLOODER).refilled_in_s() == 6
    assert shares.update(10, Load()) == {FLOODER: Route.PUBLISH}
    assert shares.of(OTHER).route is Route.PUBLISH


def test_the_allowance_of_a_day_suffices_for_a_busy_contact_centre() -> None:
    """A thousand callbacks a second, for hours, of the usual size."""
    shares = _shares(FLOODER, OTHER)
    for _ in range(2 * 3600):
        shares.of(FLOODER).take(1000 * 400)
        assert shares.update(1, Load()) == {}


def test_messages_grow_while_echoes_are_quick_and_shrink_while_they_are_slow() -> None:
    size = MessageSize()
    for _ in range(10):
        size.echoed(0.05)
    assert size.events == 500
    size.echoed(0.3)
    assert size.events == 500
    for _ in range(10):
        size.echoed(0.5)
    assert size.events == SMALLEST
