"""A missed leg that was sent only with its start: the clock of its PBX is known from other calls, also to a worker that folded none."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import UTC, datetime, timedelta

import orjson
import pytest

from shared.amqp.publisher import Message
from shared.config.live_sources import LiveSources
from shared.domain.ids import SourceName
from shared.domain.raw_event import CallbackEvent, encode, join
from shared.domain.times import rfc3339
from shared.state.store import Store
from tests.helpers.servers import POLICY, Servers
from worker.folding.fold import Fold
from worker.folding.pbx_clocks import PbxClocks

T0 = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)


def at(seconds: float) -> str:
    return rfc3339(T0 + timedelta(seconds=seconds))


class _Site:
    """Workers that each keep their own estimates, on one Redis, with a RabbitMQ that confirms everything."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.records: dict[int, dict[str, object]] = {}

    async def publish_until_confirmed(self, messages: Iterable[Message]) -> None:
        for message in messages:
            if message.exchange == "calls":
                event = orjson.loads(message.body)
                self.records[event["data"]["request_id"]] = event["data"]

    async def publish_once(self, messages: Sequence[Message], **_: object) -> list[Message]:
        await self.publish_until_confirmed(messages)
        return []

    def worker(self, name: str) -> Fold:
        return Fold(self, self._store, LiveSources.load(None), POLICY, holder=name, pbx_clocks=PbxClocks())  # type: ignore[arg-type]


async def _fold(worker: Fold, request_id: int, received_s: float, ahead_s: float, **sent_s: float) -> None:
    """Fold what a PBX sends of a missed call: hangup and missed, with the same timestamps."""
    times = "".join(f"&{name}={round((T0.timestamp() + seconds + ahead_s) * 1000)}" for name, seconds in sent_s.items())
    queries = (f"CallType=API&Event={event}&CallID=1{request_id}&RequestID={request_id}{times}" for event in ("hangup", "missed"))
    events = [CallbackEvent(SourceName("default"), at(received_s), query) for query in queries]
    await worker.fold([join(map(encode, events))])


@pytest.fixture
async def site(redis_only: Servers) -> AsyncIterator[_Site]:
    store = Store(redis_only.stack.redis_url)
    yield _Site(store)
    await store.aclose()


@pytest.mark.parametrize("ahead_s", [0.0, 30.0, -30.0, 240.0, 7200.0])
async def test_a_missed_leg_with_its_start_alone_rang_by_the_clock_that_other_calls_show(site: _Site, ahead_s: float) -> None:
    await _fold(site.worker("a"), 513, 20, ahead_s, StartTimestampUTC=5, EndTimestampUTC=20)
    for request_id, worker in ((514, site.worker("a")), (515, site.worker("b"))):
        await _fold(worker, request_id, 110, ahead_s, StartTimestampUTC=100)
        record = site.records[request_id]
        agent = record["agent"]
        assert isinstance(agent, dict)
        assert (agent["ring_seconds"], agent["started_at"], record["ignored"]) == (10, at(100 + ahead_s), [])
        assert (record["started_at"], record["ended_at"]) == (at(100 + ahead_s), at(110 + ahead_s)), "one clock"


async def test_a_worker_uses_its_own_estimate_rather_than_an_older_one(site: _Site) -> None:
    await _fold(site.worker("a"), 513, 20, 240, StartTimestampUTC=5, EndTimestampUTC=20)
    worker = site.worker("b")
    await _fold(worker, 514, 200, 0, StartTimestampUTC=190, EndTimestampUTC=200)
    await _fold(worker, 515, 310, 0, StartTimestampUTC=300)
    agent = site.records[515]["agent"]
    assert isinstance(agent, dict)
    assert agent["ring_seconds"] == 10


@pytest.mark.parametrize("is_another_worker", [True, False])
async def test_an_estimate_of_hours_ago_is_not_used_since_the_clock_may_have_been_corrected(
    site: _Site, *, is_another_worker: bool
) -> None:
    worker = site.worker("a")
    await _fold(worker, 513, -2 * 3600, 60, StartTimestampUTC=-2 * 3600 - 15, EndTimestampUTC=-2 * 3600)
    await _fold(site.worker("b") if is_another_worker else worker, 514, 110, 0, StartTimestampUTC=100)
    agent = site.records[514]["agent"]
    assert isinstance(agent, dict)
    assert agent["ring_seconds"] is None, "with the estimate it would be 70 s"


async def test_a_worker_that_has_seen_no_clock_for_a_while_uses_what_another_one_has_seen_since(site: _Site) -> None:
    worker = site.worker("a")
    await _fold(worker, 513, -1500, 60, StartTimestampUTC=-1515, EndTimestampUTC=-1500)
    await _fold(site.worker("b"), 514, 20, 0, StartTimestampUTC=5, EndTimestampUTC=20)
    await _fold(worker, 515, 110, 0, StartTimestampUTC=100)
    agent = site.records[515]["agent"]
    assert isinstance(agent, dict)
    assert agent["ring_seconds"] == 10


async def test_while_no_call_has_shown_the_clock_the_ring_time_is_unknown(site: _Site) -> None:
    await _fold(site.worker("a"), 513, 110, 30, StartTimestampUTC=100)
    agent = site.records[513]["agent"]
    assert isinstance(agent, dict)
    assert agent["ring_seconds"] is None


async def test_an_estimate_that_contradicts_the_timestamps_of_a_call_is_not_used(site: _Site) -> None:
    """The clock was set between the calls."""
    await _fold(site.worker("a"), 513, 900, -800, StartTimestampUTC=890, EndTimestampUTC=900)
    await _fold(site.worker("a"), 514, 1000, 0, StartTimestampUTC=990)
    record = site.records[514]
    agent = record["agent"]
    assert isinstance(agent, dict)
    assert (agent["ring_seconds"], record["started_at"], record["ended_at"]) == (None, at(990), at(1000))
