"""Reading journals: everything up to now is read, wherever the stream ends, and no reader leaves anything in it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial

import aio_pika
import orjson
import pytest
import pytest_asyncio

from console.live.feed import Feed
from console.local.ports import free_port
from shared.amqp.topology import CALLBACKS_JOURNAL, CALLS_JOURNAL
from shared.config.settings import Settings
from shared.runtime.process import background
from shared.streams.journal import Offset, journal, journal_end, journal_until_now
from tests.helpers.history import call_event
from tests.helpers.pace import LIMIT_S
from tests.helpers.servers import Servers, Stack, empty_streams
from tests.helpers.settings import settings_here


@dataclass(frozen=True)
class _Stream:
    """A stream of a test's own."""

    name: str
    settings: Settings
    channel: aio_pika.abc.AbstractChannel

    async def publish(self, count: int, headers: dict[str, str] | None = None) -> None:
        message = partial(aio_pika.Message, b"[]", headers=dict(headers or {}))
        await asyncio.gather(*(self.channel.default_exchange.publish(message(), self.name) for _ in range(count)))

    async def read(self, since: Offset = "first") -> list[int]:
        async with journal_until_now(self.settings, since, stream=self.name, connect_s=LIMIT_S) as deliveries:
            return [delivery.offset async for delivery in deliveries]

    async def end(self) -> int | None:
        return await journal_end(self.settings, stream=self.name, connect_s=LIMIT_S)


@pytest.fixture
def settings(rabbitmq_only: Servers, monkeypatch: pytest.MonkeyPatch) -> Settings:
    return settings_here(monkeypatch, rabbitmq_only.environment())


@pytest_asyncio.fixture
async def stream(rabbitmq_only: Servers, settings: Settings) -> AsyncIterator[_Stream]:
    name = f"test.{uuid.uuid4().hex}"
    async with await aio_pika.connect(rabbitmq_only.stack.amqp_url, timeout=LIMIT_S) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(name, durable=True, arguments={"x-queue-type": "stream"})
        yield _Stream(name, settings, channel)
        await queue.delete(if_unused=False, if_empty=False)


async def test_a_journal_is_read_from_anywhere_to_its_end_and_no_further(stream: _Stream) -> None:
    assert (await stream.end(), await stream.read(), await stream.read(7)) == (None, [], [])
    await stream.publish(1)
    assert (await stream.end(), await stream.read(), await stream.read(1)) == (0, [0], [])
    await stream.publish(1300)  # more than a reader takes at a time, in a few chunks
    assert (await stream.end(), await stream.read(), await stream.read(1201)) == (
        1300,
        list(range(1301)),
        list(range(1201, 1301)),
    )
    later = datetime.now(UTC) + timedelta(hours=1)
    assert (await stream.read(1300), await stream.read(1301), await stream.read(5000), await stream.read(later)) == (
        [1300],
        [],
        [],
        [],
    )
    assert set(await stream.read(datetime.now(UTC) - timedelta(hours=1))) == set(range(1301))


async def test_an_end_is_found_while_others_publish_and_no_event_from_before_is_beyond_it(stream: _Stream) -> None:
    published = 0

    async def publish_on() -> None:
        nonlocal published
        while True:
            await stream.publish(20)
            published += 20

    publishing = asyncio.create_task(publish_on())
    try:
        for _ in range(5):
            before = published
            end, read = await stream.end(), await stream.read()
            assert before - 1 <= (-1 if end is None else end)
            assert before <= len(read)
            assert read == list(range(len(read)))
    finally:
        publishing.cancel()


async def test_bookmarks_of_older_releases_are_skipped_even_at_the_end(stream: _Stream) -> None:
    for count in (2, 3):
        await stream.publish(count)
        await stream.publish(1, {"bookmark": uuid.uuid4().hex})
    assert (await stream.end(), await stream.read(), await stream.read(6)) == (6, [0, 1, 3, 4, 5], [])
    async with journal(stream.settings, 1, stream=stream.name) as deliveries, asyncio.timeout(LIMIT_S):
        assert [(await anext(deliveries)).offset for _ in range(4)] == [1, 3, 4, 5]


async def test_a_journal_that_was_replaced_is_read_from_its_beginning(stream: _Stream) -> None:
    await stream.publish(3)
    async with journal(stream.settings, 1, stream=stream.name) as deliveries, asyncio.timeout(LIMIT_S):
        assert [(await anext(deliveries)).offset for _ in range(2)] == [1, 2]
        await stream.channel.queue_delete(stream.name)
        await stream.channel.declare_queue(stream.name, durable=True, arguments={"x-queue-type": "stream"})
        for number in range(5):
            await stream.channel.default_exchange.publish(aio_pika.Message(b"%d" % number), stream.name)
        assert [(await anext(deliveries)).body for _ in range(5)] == [b"%d" % number for number in range(5)]


async def test_whoever_reads_a_journal_leaves_nothing_in_it(rabbitmq_only: Servers, settings: Settings) -> None:
    assert isinstance(rabbitmq_only.stack, Stack)
    await empty_streams(rabbitmq_only.stack)
    event = orjson.dumps(call_event(513))
    feed = Feed(settings)
    async with (
        await aio_pika.connect(rabbitmq_only.stack.amqp_url, timeout=LIMIT_S) as connection,
        background(feed.consumer.run(), feed.run()),
    ):
        channel = await connection.channel()
        calls = await channel.get_exchange("calls")
        assert await feed.resume_offset(None) == -1
        async with journal(settings, "next") as deliveries, asyncio.timeout(LIMIT_S):
            await calls.publish(aio_pika.Message(event), "call.completed.acme.answered")
            assert (await anext(deliveries)).body == event
        assert await feed.resume_offset(None) == 0
        for stream in (CALLS_JOURNAL, CALLBACKS_JOURNAL):
            async with journal_until_now(settings, "first", stream=stream) as deliveries:
                assert [delivery.body async for delivery in deliveries] == [event] * (stream == CALLS_JOURNAL)
        last = event.replace(b"/1", b"/2")
        await calls.publish(aio_pika.Message(last), "call.completed.acme.answered")
        assert await rabbitmq_only.read_stream(CALLS_JOURNAL, last.__eq__) == [event, last]
        assert await journal_end(settings, stream=CALLBACKS_JOURNAL) is None


async def test_a_server_that_is_away_or_named_twice_changes_nothing(
    rabbitmq_only: Servers, stream: _Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = rabbitmq_only.stack.amqp_url
    settings = settings_here(monkeypatch, {"CALLFOLD_AMQP_URL": f"{url},amqp://guest:guest@127.0.0.1:{free_port()}/,{url}"})
    several = replace(stream, settings=settings)
    assert (await several.end(), await several.read()) == (None, [])
    await stream.publish(3)
    assert (await several.end(), await several.read()) == (2, [0, 1, 2])
