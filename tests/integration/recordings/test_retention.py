"""Retention against everything that goes on beside it: workers, holds, crashes, files that do not go away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aio_pika
import pytest
import pytest_asyncio
from redis.asyncio import Redis

from shared.amqp.connection import BrokerAddress
from shared.amqp.publisher import Message, Publisher
from shared.amqp.topology import topology
from shared.archive.deadlines import ArchiveUnavailableError
from shared.archive.sidecar import path_of, updated_sidecar
from shared.archive.storage import Archive, Entry
from shared.domain.ids import CallKey, CallRef, SourceName
from shared.domain.recording import RecordingState
from shared.domain.recording_info import RecordingInfo
from shared.retention.expiry import Expired
from shared.retention.holds import place, release
from shared.retention.recording_lock import locked
from shared.retention.retention import ClockError, Retention
from shared.runtime.process import background
from shared.state.store import Store
from simulator.audio import recording
from tests.helpers.pace import LIMIT_S
from tests.helpers.recordings import GUID, WAV, job
from tests.helpers.servers import RETRY_S, Event, Servers, next_events, waiting_events
from tests.helpers.shelf import DAY, JOB, Shelf

SIDECAR = path_of(JOB, "json")
KEY = CallKey(SourceName("acme"), CallRef("513"))
Hook = Callable[[], Awaitable[object]]


class Meddled(Archive):
    """An archive in which something happens meanwhile."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.after_read: list[Hook] = []
        self.before_put: list[Hook] = []
        self.after_put: list[Hook] = []
        self.after_look: list[Hook] = []
        self.stuck: set[str] = set()

    async def sidecar(self, path: str) -> Any:  # noqa: ANN401
        found = await super().sidecar(path)
        if self.after_read:
            await self.after_read.pop(0)()
        return found

    async def put(self, path: str, content: Any, **more: Any) -> str:  # noqa: ANN401
        if path.endswith(".json") and "/monitor/" in path and self.before_put:
            await self.before_put.pop(0)()
        uri = await super().put(path, content, **more)
        if path.endswith(".json") and "/monitor/" in path and self.after_put:
            await self.after_put.pop(0)()
        return uri

    async def size(self, path: str) -> int | None:
        found = await super().size(path)
        if "/holds/" in path and self.after_look:
            await self.after_look.pop(0)()
        return found

    async def delete(self, path: str) -> None:
        if path in self.stuck:
            raise ArchiveUnavailableError(f"{path} could not be deleted: PermissionError")
        await super().delete(path)


async def _nothing() -> None:
    return


class Dying(Publisher):
    """Dies before its first event is confirmed."""

    async def publish_until_confirmed(self, messages: Iterable[Message]) -> None:
        raise RuntimeError(f"killed before {next(iter(messages)).message_id}")


class Office:
    """A shelf, and who deletes from it."""

    def __init__(self, shelf: Shelf, redis_url: str, publisher: Publisher, queue: aio_pika.abc.AbstractQueue) -> None:
        self.shelf = shelf
        self.redis_url = redis_url
        self.store = Store(redis_url)
        self.publisher = publisher
        self.queue = queue
        self.archive = Meddled(shelf.root.as_uri())

    async def retain(
        self, *, with_records: bool = False, publisher: Publisher | None = None, archive: Archive | None = None
    ) -> Expired:
        before = datetime.now(UTC) + timedelta(days=365)
        retention = Retention(archive or self.archive, publisher or self.publisher, self.store, before, with_records)
        return await retention.run(["acme"], lambda _: None)

    async def hold_and_spare(self, *, is_restored: bool = False) -> None:
        """Have the lock of whoever works here lapse, a hold come, and another run find it; maybe Redis is back with the old lock."""
        name = f"callfold:lock:{SIDECAR}"
        async with Redis.from_url(self.redis_url, decode_responses=True) as redis:
            holder = await redis.getdel(name)
            assert holder is not None
            await place(self.shelf.archive, KEY, "court")
            assert (await self.retain(archive=self.shelf.archive)).held == 1
            if is_restored:
                await redis.set(name, holder, px=15_000)

    async def told(self, count: int) -> list[Event]:
        events = await next_events(self.queue, count)
        assert await waiting_events(self.queue) == []
        return events


@pytest_asyncio.fixture
async def office(servers: Servers, tmp_path: Path) -> AsyncIterator[Office]:
    async with AsyncExitStack() as closing:
        publisher = Publisher(BrokerAddress((servers.stack.amqp_url,), topology(RETRY_S), "test"), timeout_s=LIMIT_S)
        await closing.enter_async_context(background(publisher.run()))
        await publisher.wait_until_up()
        queue = await closing.enter_async_context(servers.subscribed("recording.expired.#"))
        office = Office(Shelf(tmp_path), servers.stack.redis_url, publisher, queue)
        await closing.enter_async_context(aclosing(office.store))
        yield office


async def test_what_a_worker_has_in_hand_is_left_to_a_later_run(office: Office) -> None:
    await office.shelf.store(WAV)
    async with locked(office.store, SIDECAR):
        assert (await office.retain(with_records=True)).waiting == 1
        assert office.shelf.files() == ["json", "wav"]
    assert (await office.retain()).recordings == 1
    assert office.shelf.files() == ["json"]
    (event,) = await office.told(1)
    assert event.message_id == f"acme/513/recording/{GUID}/expired"


async def test_an_amendment_that_comes_meanwhile_is_not_overwritten(office: Office) -> None:
    await office.shelf.store(WAV)

    async def amend() -> None:
        sidecar = await office.shelf.sidecar()
        await office.shelf.sidecars.put(replace(sidecar, record={"revision": 2, "outcome": "missed"}))

    office.archive.after_read.append(amend)
    await office.retain()
    sidecar = await office.shelf.sidecar()
    assert (sidecar.state, sidecar.record["outcome"]) == (RecordingState.EXPIRED, "missed")


async def test_a_recording_that_is_stored_meanwhile_does_not_lose_its_record(office: Office) -> None:
    await office.shelf.sidecars.put(replace(updated_sidecar(JOB, None, SIDECAR), recording=RecordingInfo(RecordingState.ABSENT)))
    office.archive.after_read.append(lambda: office.shelf.store(WAV))
    done = await office.retain(with_records=True)
    assert (done.recordings, done.records, office.shelf.files()) == (1, 1, [])
    assert [event.message_id for event in await office.told(2)] == [
        f"acme/513/recording/{GUID}/expired",
        f"acme/513/recording/{GUID}/expired/record",
    ]


async def test_a_hold_that_is_placed_at_the_last_moment_keeps_the_recording(office: Office) -> None:
    first = await office.shelf.store(WAV)
    office.archive.before_put.append(lambda: place(office.shelf.archive, KEY, "court"))
    assert (await office.retain(with_records=True)).held == 1
    assert office.shelf.files() == ["json", "wav"]
    assert (await office.shelf.sidecar()).recording == first
    assert await office.told(0) == []


async def test_a_run_whose_lock_lapsed_after_its_last_look_for_a_hold_deletes_nothing(office: Office) -> None:
    first = await office.shelf.store(WAV)
    office.archive.after_look = [_nothing, office.hold_and_spare]  # the first look comes before anything is written
    done = await office.retain(with_records=True)
    assert (done.waiting, done.recordings, done.records, done.bytes) == (1, 0, 0, 0)
    assert office.shelf.files() == ["json", "wav"]
    assert (await office.shelf.sidecar()).recording == first
    assert await office.told(0) == []


async def test_a_run_whose_recording_was_spared_meanwhile_deletes_nothing_though_it_seems_to_have_the_lock(
    office: Office,
) -> None:
    first = await office.shelf.store(WAV)

    async def meanwhile() -> None:
        await office.hold_and_spare(is_restored=True)
        await release(office.shelf.archive, KEY)  # what was decided stands, until a run decides anew

    office.archive.after_put = [meanwhile]
    done = await office.retain()
    assert (done.waiting, done.recordings) == (1, 0)
    assert office.shelf.files() == ["json", "wav"]
    assert (await office.shelf.sidecar()).recording == first


async def test_a_hold_that_comes_while_the_end_of_a_record_is_told_keeps_the_record(office: Office, servers: Servers) -> None:
    await office.shelf.sidecars.put(replace(updated_sidecar(JOB, None, SIDECAR), recording=RecordingInfo(RecordingState.ABSENT)))

    class Slow(Publisher):
        async def publish_until_confirmed(self, messages: Iterable[Message]) -> None:
            await place(office.shelf.archive, KEY, f"court, before {next(iter(messages)).message_id}")

    slow = Slow(BrokerAddress((servers.stack.amqp_url,), topology(RETRY_S), "test"), timeout_s=LIMIT_S)
    done = await office.retain(with_records=True, publisher=slow)
    assert (done.held, done.records, office.shelf.files()) == (1, 0, ["json"])


async def test_a_hold_spares_what_is_left_of_recordings_of_which_one_was_missing(office: Office) -> None:
    await office.shelf.store(WAV)
    await office.shelf.store(recording("8", 1.5), round=2)
    office.shelf.file("wav").rename(office.shelf.directory / "elsewhere.wav")
    before = (await office.shelf.sidecar()).recording
    office.archive.before_put.append(lambda: place(office.shelf.archive, KEY, "court"))
    assert (await office.retain()).held == 1
    assert (await office.shelf.sidecar()).recording == before


async def test_a_hold_spares_what_a_run_that_died_was_about_to_delete(office: Office) -> None:
    first = await office.shelf.store(WAV)
    office.archive.stuck = {path_of(JOB, "wav")}
    await office.retain()
    assert (await office.shelf.sidecar()).state is RecordingState.EXPIRING
    await place(office.shelf.archive, KEY, "court")
    office.archive.stuck.clear()
    assert (await office.retain()).held == 1
    assert (await office.shelf.sidecar()).recording == first
    assert await office.shelf.differences() == []


async def test_a_file_that_cannot_be_deleted_stops_no_other_and_is_not_told_to_be_gone(office: Office) -> None:
    stuck = job("1", guid=None, record={"revision": 1})
    await office.shelf.store(WAV)
    await office.shelf.store(recording("9", 1.5), job=stuck, body=stuck.encode())
    office.archive.stuck = {path_of(stuck, "wav")}
    done = await office.retain()
    assert len(done.problems) == 1
    (event,) = await office.told(1)
    assert event.message_id == f"acme/513/recording/{GUID}/expired"
    assert (await office.archive.sidecar(path_of(stuck, "json"))).state is RecordingState.EXPIRING
    office.archive.stuck.clear()
    assert (await office.retain()).problems == []
    (event,) = await office.told(1)
    assert event.message_id == "acme/513/recording/call-1/expired"
    assert not list((office.shelf.root / "acme" / "retention").iterdir())


async def test_a_run_that_dies_between_the_deletion_and_its_event_is_told_of_by_the_next(
    office: Office, servers: Servers
) -> None:
    await office.shelf.store(WAV)
    dying = Dying(BrokerAddress((servers.stack.amqp_url,), topology(RETRY_S), "test"), timeout_s=LIMIT_S)
    with pytest.raises(ExceptionGroup):
        await office.retain(publisher=dying)
    sidecar = await office.shelf.sidecar()
    assert (sidecar.state, office.shelf.files()) == (RecordingState.EXPIRING, ["json"])
    await office.retain()
    (event,) = await office.told(1)
    assert event.body["time"] == sidecar.recording.expired_at
    assert (await office.shelf.sidecar()).state is RecordingState.EXPIRED
    await office.retain()
    assert await office.told(0) == []


async def test_no_record_goes_whose_recording_is_on_its_way_or_cannot_be_found(office: Office) -> None:
    late = job("1", guid=None)
    await office.shelf.sidecars.put(updated_sidecar(late, None, path_of(late, "json")))
    await office.shelf.store(WAV)
    office.shelf.file("wav").rename(office.shelf.directory / "elsewhere.wav")
    done = await office.retain(with_records=True)
    assert (done.waiting, done.recordings, done.records) == (1, 0, 0)
    assert ["is missing" in problem for problem in done.problems] == [True]
    assert office.shelf.files() == ["call-1.json", "json"]
    assert await office.told(0) == []


async def test_an_archive_that_was_moved_expires_with_its_records(office: Office) -> None:
    await office.shelf.store(WAV)
    await office.shelf.store(recording("8", 1.5), round=2)
    office.shelf.root.rename(office.shelf.directory / "moved")
    office.shelf.use(office.shelf.directory / "moved")
    office.archive = Meddled(office.shelf.root.as_uri())
    await office.retain(with_records=True)
    assert office.shelf.files() == []
    ids = [str(event.message_id).removeprefix(f"acme/513/recording/{GUID}/") for event in await office.told(3)]
    assert (ids[0], ids[1][:8], ids[2]) == ("expired", "expired/", "expired/record"), "each deletion is told"


async def test_nothing_is_deleted_while_the_clocks_disagree(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    await office.shelf.store(WAV)

    async def yesterday(_: Store) -> datetime:
        return datetime.now(UTC) - timedelta(days=1)

    monkeypatch.setattr(Store, "now", yesterday)
    with pytest.raises(ClockError, match="nothing is deleted"):
        await office.retain()
    assert office.shelf.files() == ["json", "wav"]


async def test_a_large_day_with_nothing_to_delete_holds_no_worker_up(office: Office) -> None:
    class Large(Archive):
        async def days(self, source: str) -> list[str]:
            return [DAY.replace("acme", source)]

        async def entries(self, prefix: str) -> AsyncIterator[Entry]:
            begun_at = turns
            for number in range(8000 if prefix == DAY else 0):
                yield Entry(f"{DAY}/{number:08x}-aaaa-bbbb-cccc-dddddddddddd.json", 1)
                taken.append(turns - begun_at)

    office.archive = Large(office.shelf.root.as_uri())  # type: ignore[assignment]
    turns, taken = 0, [0]

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(take_turns())
    await office.retain()
    other.cancel()
    assert taken[-1] >= 8000 // 400, "others have their turn again and again"
