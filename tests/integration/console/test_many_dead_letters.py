"""Long queues of dead letters: a look reads little, and neither looks nor changes wait long for each other."""

from __future__ import annotations

import asyncio
import uuid

import aio_pika
import pytest

from console.dead_letters import redrive_or_drop, turns
from console.dead_letters.listing import Listing, LookRequest, find
from console.dead_letters.queue import DeadLetterQueue, Filter
from console.dead_letters.redrive_or_drop import SettleRequest, settle
from console.dead_letters.turns import DeadLetterReader, reader_of
from shared.amqp.dead_letters import dead_letter_headers
from shared.amqp.publisher import Message
from shared.amqp.queue_reader import QueueReader
from shared.amqp.topology import CALLBACKS_DEAD, CALLBACKS_FOLD
from shared.archive.storage import Archive
from shared.clock import utc_now
from shared.config.settings import Settings
from shared.runtime.audit import Action
from shared.runtime.broker import broker_address, create_publisher
from shared.runtime.process import background
from tests.helpers.pace import LIMIT_S
from tests.helpers.servers import Servers, eventually
from tests.helpers.settings import settings_here

QUEUE = DeadLetterQueue.CALLBACKS
DROP, DRY_DROP = SettleRequest(Action.DROP, "tests"), SettleRequest(Action.DROP, "tests", is_dry_run=True)


@pytest.fixture
def settings(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(turns, "_LOCK_TIMEOUT_S", LIMIT_S)
    monkeypatch.setattr(turns, "_PATIENCE_S", LIMIT_S)
    return settings_here(monkeypatch, servers.environment())


def _dead_letter(source: str) -> Message:
    body = f'[{{"v":1,"kind":"callback","source":"{source}","received_at":"2026-11-23T07:44:00.000000Z","query":"a=1"}}]'
    headers = dead_letter_headers("unknown_source", "x", utc_now())
    return Message("", CALLBACKS_DEAD, body.encode(), uuid.uuid4().hex, headers=headers)


async def _fill(settings: Settings, *sources: str) -> None:
    """Dead-letter a message of each source, in this order."""
    publisher = create_publisher(settings, "tests")
    async with background(publisher.run()):
        for first in range(0, len(sources), 200):
            await publisher.publish_until_confirmed(map(_dead_letter, sources[first : first + 200]))


async def _look(settings: Settings, query: Filter = Filter(), at_most: int = 1) -> Listing:  # noqa: B008 - it is frozen
    return await find(settings, QUEUE, LookRequest(query, at_most))


async def test_a_look_without_a_filter_reads_what_it_lists_and_no_more(settings: Settings) -> None:
    await _fill(settings, *["acme"] * 3000)
    for at_most in (1, 100):
        listing = await _look(settings, at_most=at_most)
        assert (len(listing.dead_letters), listing.count, listing.scanned) == (at_most, 3000, at_most)
        assert listing.is_complete
    assert [each.count for each in await asyncio.gather(*(_look(settings) for _ in range(3)))] == [3000] * 3
    assert await settle(settings, QUEUE, Filter(), DROP) == (3000, 0, True)


async def test_a_look_with_a_filter_ends_and_says_that_there_may_be_more(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _fill(settings, *["acme"] * 120, "other")
    monkeypatch.setattr(turns, "_SCAN_MOST", 100)
    listing = await _look(settings, Filter(source="acme"))
    assert (listing.count, listing.scanned, listing.total, listing.is_complete) == (100, 100, 121, False)
    assert await settle(settings, QUEUE, Filter(source="acme"), DRY_DROP) == (100, 0, False)
    everything = await find(settings, QUEUE, LookRequest(Filter(source="other"), 1, reads_all=True))
    assert (everything.count, everything.is_complete) == (1, True)
    assert await settle(settings, QUEUE, Filter(source="other"), DROP) == (1, 0, True), "it is behind all that are counted"
    assert (await _look(settings)).count == 120


async def test_a_change_makes_way_for_looks_and_they_see_all_that_it_leaves(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redrive_or_drop, "_TURN_S", 0)
    monkeypatch.setattr(redrive_or_drop, "_LARGEST_STEP", 20)
    await _fill(settings, *["acme", "other"] * 150)
    seen: list[Listing] = []
    is_awaited = DeadLetterReader.is_awaited

    def has_seen_the_middle() -> bool:
        return any(150 < listing.total < 300 for listing in seen)

    async def is_awaited_soon(reader: DeadLetterReader) -> bool:
        """Let a look come in the middle, however late it is connected; the first ones can come before the change begins."""
        return await is_awaited(reader) if has_seen_the_middle() else bool(await eventually(lambda: is_awaited(reader)))

    monkeypatch.setattr(DeadLetterReader, "is_awaited", is_awaited_soon)
    change = asyncio.create_task(settle(settings, QUEUE, Filter(source="acme"), DROP))
    while not change.done():
        seen += await asyncio.gather(*(_look(settings, Filter(source="other")) for _ in range(2)))
    assert await change == (150, 0, True)
    assert {(listing.count, listing.is_complete) for listing in seen} == {(150, True)}
    assert has_seen_the_middle()
    assert (await _look(settings)).count == 150


async def test_what_is_dead_lettered_again_at_once_is_redriven_once(
    servers: Servers, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def is_awaited(_: DeadLetterReader) -> bool:
        return True

    monkeypatch.setattr(DeadLetterReader, "is_awaited", is_awaited)
    monkeypatch.setattr(redrive_or_drop, "_TURN_S", 0)
    monkeypatch.setattr(redrive_or_drop, "_PAUSE_S", 0)
    monkeypatch.setattr(redrive_or_drop, "_LARGEST_STEP", 20)
    count = 150
    await _fill(settings, *["acme"] * count)
    async with servers.queue(CALLBACKS_FOLD) as queue:

        async def dead_letter_again() -> None:
            async with queue.iterator() as messages:
                async for message in messages:
                    await queue.channel.default_exchange.publish(_as_dead_letter(), CALLBACKS_DEAD)
                    await message.ack()

        again = asyncio.create_task(dead_letter_again())
        assert await settle(settings, QUEUE, Filter(), SettleRequest(Action.REDRIVE, "tests")) == (count, 0, True)

        async def are_back() -> bool:
            return (await _look(settings)).count == count

        await eventually(are_back)
        again.cancel()
        await asyncio.wait([again])


def _as_dead_letter() -> aio_pika.Message:
    message = _dead_letter("acme")
    return aio_pika.Message(message.body, headers={**message.headers}, message_id=message.message_id, delivery_mode=2)


async def test_a_look_does_not_wait_for_a_change_that_reads_for_long(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "_PATIENCE_S", 0.2)
    await _fill(settings, *["acme"] * 10)
    async with reader_of(settings, QUEUE) as reader:
        await reader.lock_changes()
        async with reader.turn() as turn:
            assert [len(batch) async for batch in turn.batches(4)] == [4]
            listing = await _look(settings)
            assert (listing.total, listing.is_complete) == (6, False)
    assert (await _look(settings)).count == 10


async def test_a_change_waits_for_what_a_look_has_taken_from_under_it(settings: Settings) -> None:
    await _fill(settings, *["acme"] * 10)
    looker = QueueReader(broker_address(settings, "tests"), CALLBACKS_DEAD)
    publisher = create_publisher(settings, "tests")
    settled: list[int] = []
    async with background(looker.run()), reader_of(settings, QUEUE, publisher) as reader:
        await looker.wait_until_up()
        assert await looker.try_lock("look")
        assert len(await looker.take(4)) == 4
        access = redrive_or_drop._Access(reader, publisher, Archive(settings.archive_url))
        run = redrive_or_drop._Run(access, redrive_or_drop._Work(QUEUE, Filter(), DROP), 10, settled.append)
        change = asyncio.create_task(run.finish())

        async def has_begun() -> bool:
            return settled[-1:] == [6]

        await eventually(has_begun)
        await looker.unlock("look")
        await change
    assert run.settled == 10
