"""What workers observe of the PBXs, through Redis: counted once, judged by every worker, and forgotten without a false claim."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from shared import metrics
from shared.amqp.publisher import Message
from shared.clock import utc_now
from shared.config.live_sources import LiveSources
from shared.domain.barrier import FoldedUntil
from shared.domain.closing import Policy
from shared.domain.ids import CallRef, SourceName
from shared.domain.lost_callbacks import Losses, estimate_losses
from shared.domain.pbx_report import PbxReport
from shared.domain.raw_event import CallbackEvent, DialEvent, RawEvent, TimerEvent, encode, join
from shared.domain.times import rfc3339
from shared.errors import StoreUnavailableError
from shared.state.pbx_watch import PbxObservations
from shared.state.store import Store
from tests.helpers.servers import Servers
from worker.folding.fold import Fold
from worker.watching.observations import Observations
from worker.watching.pbx_watch import PbxWatch

ACME = SourceName("acme")
LINK = "CallType={{CallTypeName}}&Event={{DialApiEventName}}&CallID={{CallID}}&RequestID={{DialApiRequestID}}"
SOURCES = f'[sources.acme]\nadapter = "https://hooks.example.com/callbacks/acme?token=a-secret&{LINK}"\n'
POLICY = Policy(settle_s=1e-4, leg_grace_s=1e-4, max_call_s=1e-4)
HOUR_MS, MINUTE = 3_600_000, timedelta(minutes=1)
SECOND = len("2026-11-23T07:44:00")


@dataclass
class _Worker:
    """A worker with a RabbitMQ that confirms everything. It has folded everything until `now`."""

    store: Store
    sources: LiveSources
    now: datetime

    def __post_init__(self) -> None:
        self.observations = Observations()
        self.is_behind = False
        self.watch = PbxWatch(self.store, self.sources, self.observations, folded=self._folded, clocks=lambda _: {})
        self._fold = Fold(self, self.store, self.sources, POLICY, holder="a", observations=self.observations)  # type: ignore[arg-type]

    def _folded(self) -> FoldedUntil | None:
        return None if self.is_behind else FoldedUntil(round(self.now.timestamp() * 1000))

    async def publish_until_confirmed(self, messages: Iterable[Message]) -> None:
        pass

    async def publish_once(self, _: Sequence[Message], **__: object) -> list[Message]:
        return []

    async def fold(self, *events: RawEvent) -> None:
        await self._fold.fold([join(map(encode, events))])

    async def report(self) -> PbxReport:
        """Flush and judge, and flush what that has shown."""
        await self.watch.flush()
        await self.watch.judge()
        await self.watch.flush()
        (report,) = await self.store.pbx_watch.reports([ACME], round(self.now.timestamp() * 1000))
        return report

    def callback(self, ago: timedelta, call: int, event: str, more: str = "") -> CallbackEvent:
        query = f"CallType=API&Event={event}&CallID={call}&RequestID={call}{more}"
        return CallbackEvent(ACME, rfc3339(self.now - ago), query)


@pytest.fixture
async def worker(redis_only: Servers, tmp_path: Path) -> AsyncIterator[_Worker]:
    path = tmp_path / "sources.toml"
    path.write_text(SOURCES)
    store = Store(redis_only.stack.redis_url)
    yield _Worker(store, LiveSources.load(path), await store.now())
    await store.aclose()


def _timer(call: str) -> TimerEvent:
    return TimerEvent(ACME, utc_now(), CallRef(call))


def _metric(name: str) -> float | None:
    return REGISTRY.get_sample_value(f"callfold_pbx_{name}", {"source": "acme"})


async def test_losses_are_counted_once_a_call_although_callbacks_are_redelivered(worker: _Worker) -> None:
    pickup = worker.callback(5 * MINUTE, 7, "pickup")
    await worker.fold(pickup)
    for _ in range(2):
        await worker.fold(pickup, _timer("7"))
    report = await worker.report()
    assert (report.calls, report.losses) == (1, Losses(1, 1))
    assert report.last_ms == int((worker.now - 5 * MINUTE).timestamp() * 1000)
    assert report.loss is None, "one call says nothing"
    assert _metric("lost_callbacks_ratio") is _metric("lost_callbacks_low_ratio") is None
    more = PbxObservations(calls=300, losses=Losses(900, 44))
    await worker.store.pbx_watch.add(ACME, more, None)
    await worker.report()
    assert _metric("lost_callbacks_ratio") == 45 / 901
    assert _metric("lost_callbacks_low_ratio") == estimate_losses(Losses(901, 45)).low  # type: ignore[union-attr]


async def test_what_cannot_be_stored_is_kept(worker: _Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> None:
        raise StoreUnavailableError("away")

    await worker.fold(worker.callback(MINUTE, 7, "pickup"))
    await worker.fold(_timer("7"))
    with monkeypatch.context() as broken:
        broken.setattr(worker.store.pbx_watch, "add", fail)
        for _ in range(2):
            with pytest.raises(StoreUnavailableError):
                await worker.watch.flush()
    await worker.fold(worker.callback(MINUTE, 8, "pickup"))
    await worker.fold(_timer("8"))
    report = await worker.report()
    assert (report.calls, report.losses) == (2, Losses(2, 2))


async def test_a_dial_of_which_nothing_is_heard_is_counted_once_and_only_after_some_minutes(worker: _Worker) -> None:
    before = _metric("unheard_dials_total") or 0
    dials = [DialEvent(ACME, rfc3339(worker.now - 6 * MINUTE), number, {"agent": "1001"}) for number in (513, 514)]
    recent = DialEvent(ACME, rfc3339(worker.now - 4 * MINUTE), 515, {"agent": "1001"})
    await worker.fold(*dials, recent, worker.callback(5 * MINUTE, 514, "pickup"))
    worker.is_behind = True
    assert (await worker.report()).unheard == 0, "its callback may wait in the queue"
    worker.is_behind = False
    for _ in range(2):
        report = await worker.report()
        assert (report.dials, report.unheard) == (3, 1)
    assert (_metric("unheard_dials_total") or 0) - before == 1


async def test_a_dial_that_is_delivered_again_is_counted_once(worker: _Worker) -> None:
    dials = [
        DialEvent(ACME, rfc3339(worker.now - ago), number, {"agent": "1001"})
        for number, ago in ((513, 6 * MINUTE), (514, MINUTE))
    ]
    for _ in range(2):
        await worker.fold(*dials)
        report = await worker.report()
        assert (report.dials, report.unheard) == (2, 1)


async def test_a_source_that_was_removed_leaves_no_measurement(worker: _Worker, tmp_path: Path) -> None:
    await worker.fold(worker.callback(MINUTE, 7, "pickup"))
    metrics.PBX_CLOCK_OFFSET.set(600, ACME)
    await worker.report()
    (tmp_path / "sources.toml").write_text("[sources.other]\n")
    await worker.sources.refresh()
    await worker.watch.judge()
    assert [_metric(name) for name in ("clock_offset_seconds", "silent_seconds", "clock_drift_ratio")] == [None] * 3


def _minutes(times: Iterable[datetime]) -> PbxObservations:
    return PbxObservations(minutes={rfc3339(at)[:16]: rfc3339(at) for at in times})


def _last_week(now: datetime) -> Iterator[PbxObservations]:
    """Yield a week in which callbacks were received in every minute, until half an hour ago, and some hours of the week before."""
    for day in range(9):
        yield _minutes(now - timedelta(days=day, minutes=30 + minute) for minute in range(24 * 60))


async def test_a_silence_is_judged_by_what_all_workers_received_and_ends_with_a_callback(worker: _Worker) -> None:
    for seen in _last_week(worker.now):
        await worker.store.pbx_watch.add(ACME, seen, None)
    report = await worker.report()
    assert report.is_silent(round(worker.now.timestamp() * 1000))
    assert (_metric("silent"), round(_metric("silent_seconds") or 0)) == (1, 1800)
    (observed,) = worker.watch.observations()
    assert (observed.name, observed.is_bad) == ("source_silent/acme", True)
    assert observed.at[:SECOND] == rfc3339(worker.now - 30 * MINUTE)[:SECOND]
    await worker.fold(worker.callback(MINUTE, 7, "pickup"))
    assert not (await worker.report()).is_silent(round(worker.now.timestamp() * 1000))
    assert (_metric("silent"), round(_metric("silent_seconds") or 0)) == (0, 60)
    (observed,) = worker.watch.observations()
    assert (observed.is_bad, observed.at[:SECOND]) == (False, rfc3339(worker.now - MINUTE)[:SECOND])


async def test_a_silence_is_not_claimed_while_callbacks_wait_or_state_was_lost(
    worker: _Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seen in _last_week(worker.now):
        await worker.store.pbx_watch.add(ACME, seen, None)
    worker.is_behind = True
    assert (await worker.report()).silence is None
    worker.is_behind = False
    assert (await worker.report()).silence is not None
    assert _metric("silent") == 1
    worker.is_behind = True
    await worker.report()
    assert _metric("silent") == 1, "a short pause changes nothing"
    monkeypatch.setattr("worker.watching.pbx_watch._JUDGED_FOR_S", 0)
    await worker.report()
    assert _metric("silent") == 0
    worker.is_behind = False
    await worker.store._redis.flushall()
    report = await _Worker(worker.store, worker.sources, worker.now).report()
    assert (report.last_ms, report.silence) == (None, None)
    assert _metric("silent") == 0


async def test_other_parameters_than_those_of_the_link_are_noticed(worker: _Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.watching.observations._SAMPLE_EACH_S", 0)
    for call in range(3):
        await worker.fold(worker.callback(MINUTE, call, "pickup", "&Queue=Sales"))
    assert (await worker.report()).unknown_parameters == ["Queue"]
    assert _metric("adapter_changed") == 1
    for call in range(30):
        await worker.fold(CallbackEvent(ACME, rfc3339(worker.now), f"CallType=API&Event=pickup&CallID={call}"))
    assert (await worker.report()).missing_parameters == ["RequestID"]
    await worker.fold(worker.callback(MINUTE, 3, "pickup"))
    assert (await worker.report()).missing_parameters == []


class _Counter:
    """The RequestIDs of a PBX. Each batch becomes final before the next one."""

    def __init__(self, worker: _Worker) -> None:
        self._add = worker.store.pbx_watch.add
        self._final_ms = round(worker.now.timestamp() * 1000) + HOUR_MS

    async def used(self, *ids: int) -> tuple[int, int]:
        """Return how many ids became final: used and skipped."""
        await self._add(ACME, PbxObservations(ids=set(ids)), None)
        settled = await self._add(ACME, PbxObservations(), self._final_ms)
        return settled.used, settled.skipped


async def test_skipped_request_ids_are_counted_once_they_are_final(worker: _Worker) -> None:
    counter = _Counter(worker)
    assert await counter.used(*range(1000, 1100)) == (100, 0)
    assert await counter.used(1101, 1103) == (2, 2)
    assert await counter.used(1100, 1102, 1103) == (0, 0), "too late"
    assert await counter.used(1104, *range(1050, 1060)) == (1, 0), "hangups of earlier calls"
    report = await worker.report()
    assert (report.ids_used, report.ids_skipped, report.last_skipped) == (103, 2, 1102)
    await worker.store.pbx_watch.add(ACME, PbxObservations(ids={1106}), None)
    now_ms = round(worker.now.timestamp() * 1000)
    assert (await worker.store.pbx_watch.add(ACME, PbxObservations(), now_ms)).skipped == 0, "callbacks of 1105 may follow"


async def test_a_counter_that_jumps_or_begins_again_has_skipped_nothing(worker: _Worker) -> None:
    counter = _Counter(worker)
    await counter.used(*range(500_000, 500_010))
    assert await counter.used(502_000, 502_001) == (2, 0), "it jumped"
    assert await counter.used(7) == (0, 0), "one odd id"
    assert await counter.used(502_002) == (1, 0)
    for number in range(1, 20):
        assert (await counter.used(number))[1] == 0
    assert await counter.used(20, 22) == (2, 1), "it began again"


async def test_a_skipped_id_is_no_finding_if_other_programs_dial_too(worker: _Worker) -> None:
    before = _metric("request_id_gaps_total") or 0
    final_ms = round(worker.now.timestamp() * 1000) + HOUR_MS
    worker.now = datetime.fromtimestamp(final_ms / 1000, worker.now.tzinfo)
    for first in (1000, 2000):
        await worker.store.pbx_watch.add(
            ACME, PbxObservations(ids=set(range(first, first + 300, 3 if first == 1000 else 1))), None
        )
        await worker.report()
    assert (_metric("request_id_gaps_total") or 0) == before
