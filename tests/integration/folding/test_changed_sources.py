"""Sources change while a worker runs: new ones are folded at once, and what a removed one has sent still ends as a call."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest

from shared.amqp.publisher import Message
from shared.clock import utc_now
from shared.config.live_sources import LiveSources
from shared.domain.closing import Policy
from shared.domain.ids import CallRef, SourceName
from shared.domain.raw_event import CallbackEvent, RawEvent, TimerEvent, encode, join
from shared.domain.recording import RecordingJob
from shared.domain.times import rfc3339
from shared.state.store import Store
from tests.helpers.servers import Servers
from worker.folding.fold import Fold

ACME, NEW = SourceName("acme"), SourceName("new")
T0 = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
ONE = '[sources.acme]\nsecret = "x"\nrecord_legs = []\n'
# Every open call is silent for longer than this.
POLICY = Policy(settle_s=1e-4, leg_grace_s=1e-4, max_call_s=1e-4)
TWO = f'{ONE}[sources.new]\nsecret = "y"\n'


def at(seconds: float) -> str:
    return rfc3339(T0 + timedelta(seconds=seconds))


def _callback(source: SourceName, number: int, *, has_previous_secret: bool = False, event: str = "pickup") -> CallbackEvent:
    query = f"CallType=API&Event={event}&CallID={number}&RequestID={number}&IsCallRecorded=1"
    return CallbackEvent(source, at(0), query, has_previous_secret=has_previous_secret)


class _Worker:
    """A worker on one Redis, with a RabbitMQ that confirms everything."""

    def __init__(self, store: Store, path: Path) -> None:
        self.store = store
        self.sources = LiveSources.load(path)
        self.published: list[Message] = []
        self._fold = Fold(self, store, self.sources, POLICY, holder="a")  # type: ignore[arg-type]

    async def publish_until_confirmed(self, messages: Iterable[Message]) -> None:
        self.published += messages

    async def publish_once(self, messages: Sequence[Message], **_: object) -> list[Message]:
        self.published += messages
        return []

    async def fold(self, *events: RawEvent) -> None:
        self.published.clear()
        await self._fold.fold([join(map(encode, events))])

    def dead_letters(self) -> list[object]:
        return [message.headers["reason"] for message in self.published if message.routing_key == "callbacks.dead"]

    def records(self) -> list[tuple[str, str]]:
        """Return source and reason of the closed calls."""
        bodies = [orjson.loads(message.body) for message in self.published if message.exchange == "calls"]
        return [(body["data"]["source"], body["data"]["close_reason"]) for body in bodies]

    def fetched(self) -> list[bool]:
        """Return of each recording job whether it downloads anything."""
        return [RecordingJob.decode(message.body).fetch for message in self.published if message.routing_key == "recordings"]


@pytest.fixture
async def store(redis_only: Servers) -> AsyncIterator[Store]:
    store = Store(redis_only.stack.redis_url)
    yield store
    await store.aclose()


async def test_a_source_that_ingress_knows_earlier_is_looked_for_in_the_file_before_its_callbacks_are_dead_letters(
    store: Store, tmp_path: Path
) -> None:
    path = tmp_path / "sources.toml"
    path.write_text(ONE)
    worker = _Worker(store, path)
    await worker.fold(_callback(NEW, 1))
    assert worker.dead_letters() == ["unknown_source"]
    path.write_text(TWO)
    await worker.fold(_callback(NEW, 2))
    assert worker.dead_letters() == []


async def test_the_calls_of_a_source_that_is_removed_end_with_its_last_options(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "sources.toml"
    path.write_text(TWO.replace(ONE, "") + ONE)
    worker = _Worker(store, path)
    await worker.fold(_callback(ACME, 1))
    path.write_text(TWO.replace(ONE, ""))
    await worker.sources.refresh()
    assert [*worker.sources.current] == [NEW]
    await worker.fold(_callback(ACME, 2))
    assert worker.dead_letters() == []
    await worker.fold(*(TimerEvent(ACME, utc_now(), CallRef(call)) for call in ("1", "2")))
    assert worker.records() == [("acme", "timeout")] * 2
    assert worker.fetched() == [False, False]


async def test_a_worker_that_never_knew_a_removed_source_closes_its_calls_too(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "sources.toml"
    path.write_text(ONE)
    await _Worker(store, path).fold(_callback(ACME, 1))
    path.write_text(TWO.replace(ONE, ""))
    worker = _Worker(store, path)
    await worker.fold(_callback(ACME, 1, event="hangup"))
    assert worker.dead_letters() == ["unknown_source"]
    await worker.fold(TimerEvent(ACME, utc_now(), CallRef("1")))
    assert worker.records() == [("acme", "timeout")]
    assert worker.fetched() == [True], "its job fails visibly, and can be redriven once the source is back"


async def test_the_last_use_of_a_previous_secret_is_stored_by_source(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "sources.toml"
    path.write_text(TWO)
    worker = _Worker(store, path)
    later = CallbackEvent(ACME, at(60), "CallType=nonsense", has_previous_secret=True)
    await worker.fold(_callback(ACME, 1, has_previous_secret=True), later, _callback(NEW, 1))
    await worker.fold(_callback(ACME, 2, has_previous_secret=True))
    assert await store.previous_secrets.of([ACME, NEW]) == {ACME: at(60)}
    assert await store.previous_secrets.of([]) == {}
