"""When timers hold off: after each reconnect, and then only rounds that were opened later count."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from shared.amqp.consumer import Consumer
from shared.amqp.publisher import Publisher
from shared.domain.barrier import FoldedUntil
from shared.errors import BrokerUnavailableError
from shared.runtime.process import background
from shared.state.store import Store
from tests.helpers.servers import eventually
from worker.folding.barrier_rounds import BarrierRounds
from worker.folding.timers import Timers

FOLDED_MS = 1_000_000


@dataclass(slots=True)
class _Connection:
    is_up: bool = True
    sessions: int = 1


class _Refusing(_Connection):
    """Has an alarm, or a full queue: it is up, and takes no message."""

    async def count_consumers(self, _: str) -> int:
        return 1

    async def publish(self, *_: object) -> None:
        raise BrokerUnavailableError("refused")


@dataclass(slots=True)
class _Store:
    """Its clock moves on by a second each time; everything is folded up to one moment."""

    clock: datetime = datetime(2026, 11, 23, tzinfo=UTC)
    opened_from_ms: list[int] = field(default_factory=list)

    @property
    def watermarks(self) -> _Store:
        return self

    async def now(self) -> datetime:
        self.clock += timedelta(seconds=1)
        return self.clock

    async def open_round(self, *, pause_s: float) -> int:
        return round(pause_s)

    async def store_consumer_count(self, *_: int) -> bool:
        return True

    async def folded_until(self, *, opened_from_ms: int) -> FoldedUntil:
        self.opened_from_ms.append(opened_from_ms)
        return FoldedUntil(FOLDED_MS)


def _timers(publisher: _Connection, store: _Store, *, hold_off_s: float) -> Timers:
    return Timers(cast("Publisher", publisher), cast("Store", store), lease_s=1, hold_off_s=hold_off_s)


async def _watermark(timers: Timers, raw: _Connection) -> Any:  # noqa: ANN401
    watermark = await timers._watermark(cast("Consumer", raw))
    return None if watermark is None else watermark.ms


@pytest.mark.parametrize("reconnected", ["publisher", "consumer"])
async def test_a_reconnect_between_two_checks_makes_older_rounds_count_no_more(reconnected: str) -> None:
    """Both connections are up at both checks: only the number of sessions shows that one was lost."""
    publisher, raw, store = _Connection(), _Connection(), _Store()
    timers = _timers(publisher, store, hold_off_s=0)
    assert await _watermark(timers, raw) < FOLDED_MS
    assert await _watermark(timers, raw) < FOLDED_MS
    (publisher if reconnected == "publisher" else raw).sessions += 1
    assert await _watermark(timers, raw) < FOLDED_MS
    first, second, third = store.opened_from_ms
    assert first == second < third


async def test_timers_hold_off_while_markers_are_refused() -> None:
    """Ingress spools meanwhile. The first round after an alarm can be complete before the first report of a spool."""
    publisher, raw, store = _Refusing(), _Connection(), _Store()
    timers = _timers(publisher, store, hold_off_s=0)
    rounds = BarrierRounds(cast("Store", store), cast("Publisher", publisher), cast("Consumer", raw), on_refused=timers.hold_off)
    assert await _watermark(timers, raw) is not None
    timers._hold_off_s = 3600

    async def is_held() -> bool:
        return await _watermark(timers, raw) is None

    async with background(rounds.send_markers()):
        await eventually(is_held)


@pytest.mark.parametrize("is_up", [True, False])
async def test_timers_hold_off_after_a_reconnect_and_while_a_connection_is_down(*, is_up: bool) -> None:
    publisher, raw, store = _Connection(), _Connection(), _Store()
    timers = _timers(publisher, store, hold_off_s=0)
    assert await _watermark(timers, raw) is not None
    timers._hold_off_s = 3600
    raw.sessions, raw.is_up = raw.sessions + is_up, is_up
    assert await _watermark(timers, raw) is None
    raw.is_up = True
    assert await _watermark(timers, raw) is None
    assert len(store.opened_from_ms) == 1, "nothing is asked while they hold off"
