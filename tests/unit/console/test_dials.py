"""The request that dialed publishes the event of the dial. The regular retry publishes only what no request has in flight."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import cast

from console.dialing.dial_service import DialService, Limits
from console.dialing.focalscope import Dialer, DialRequest
from shared import metrics
from shared.amqp.publisher import Publisher
from shared.clock import utc_now
from shared.config.live_sources import LiveSources
from shared.domain.ids import SourceName
from shared.domain.raw_event import DialEvent, encode
from shared.state.dials import DialStore

RULES = '[sources.acme]\ndial_url = "http://127.0.0.1:1/dial?agent={agent}&number={number}"\n'


class _Store:
    """Keeps events as Redis does."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    async def count(self, _who: str, _period_s: int) -> int:
        return 1

    async def keep(self, dial_id: str, event: bytes) -> None:
        self.kept[dial_id] = event

    async def journaled(self, dial_id: str) -> None:
        self.kept.pop(dial_id, None)

    async def unjournaled(self) -> dict[str, bytes]:
        return dict(self.kept)


class _SlowPublisher:
    """Takes a message at once, and confirms it when it is let go."""

    is_up = True

    def __init__(self) -> None:
        self.taken = 0
        self.begun = asyncio.Event()
        self.let_go = asyncio.Event()

    async def publish(self, _message: object) -> None:
        self.taken += 1
        self.begun.set()
        await self.let_go.wait()


class _Dialer:
    async def dial(self, *_: object) -> int:
        return 513


def _dials(directory: Path, store: _Store, publisher: _SlowPublisher) -> DialService:
    (directory / "sources.toml").write_text(RULES, "utf-8")
    parts = cast("Dialer", _Dialer()), cast("DialStore", store), cast("Publisher", publisher)
    return DialService(*parts, LiveSources.load(directory / "sources.toml"), Limits(per_minute=60, per_day=5000, wait_s=1))


async def test_a_dial_whose_event_is_on_its_way_is_not_published_a_second_time(tmp_path: Path) -> None:
    store, publisher = _Store(), _SlowPublisher()
    dials = _dials(tmp_path, store, publisher)
    dialing = asyncio.ensure_future(dials.dial(DialRequest(source="acme", agent="1001", number="+4512345678"), "somebody"))
    await publisher.begun.wait()
    publisher.begun.clear()
    looking, second = asyncio.ensure_future(dials.journal.publish_pending()), asyncio.ensure_future(publisher.begun.wait())
    await asyncio.wait([looking, second], return_when=asyncio.FIRST_COMPLETED)
    second.cancel()
    publisher.let_go.set()
    await asyncio.gather(dialing, looking)
    assert (dialing.result().status, publisher.taken, store.kept) == (201, 1, {})


async def test_a_dial_that_nobody_has_in_hand_is_published_by_the_regular_retry(tmp_path: Path) -> None:
    store, publisher = _Store(), _SlowPublisher()
    store.kept["acme/513"] = encode(DialEvent(SourceName("acme"), utc_now(), 513, {}))
    publisher.let_go.set()
    await _dials(tmp_path, store, publisher).journal.publish_pending()
    assert (publisher.taken, store.kept) == (1, {})


async def test_a_dial_counts_by_its_state_and_one_for_an_unknown_source_does_not(tmp_path: Path) -> None:
    publisher = _SlowPublisher()
    publisher.let_go.set()
    dials = _dials(tmp_path, _Store(), publisher)

    def counted() -> list[float]:
        found = {
            sample.labels["state"]: sample.value
            for family in metrics.DIALS.collect()
            for sample in family.samples
            if sample.name.endswith("_total") and sample.labels["source"] == "acme"
        }
        return [found.get(state, 0) for state in ("accepted", "refused")]

    before = counted()
    for source, number in (("acme", "0301234567"), ("acme", "not a number"), ("nobody", "0301234567")):
        await dials.dial(DialRequest(source=source, agent="513", number=number), "key")
    assert counted() == [before[0] + 1, before[1] + 1]
    assert "nobody" not in str([sample.labels for family in metrics.DIALS.collect() for sample in family.samples])
