"""The history in this process or another: publish events for it, and wait until it has them."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager, suppress

import orjson
import pytest
from sqlalchemy import func, select

from console.history.service import serve
from console.history.store import History
from console.history.tables import CALLS as CALLS_TABLE
from shared.amqp.connection import BrokerAddress
from shared.amqp.publisher import Message, Publisher
from shared.amqp.topology import AUDIT_JOURNAL, CALLS, CALLS_JOURNAL, topology
from shared.config.settings import load_settings
from shared.errors import HistoryUnavailableError
from shared.runtime.process import background
from shared.streams.journal import journal_end, journal_until_now
from tests.helpers.history import Event, call_event
from tests.helpers.pace import LIMIT_S
from tests.helpers.servers import RETRY_S, Servers, eventually


@asynccontextmanager
async def publishing(servers: Servers) -> AsyncIterator[Publisher]:
    publisher = Publisher(BrokerAddress((servers.stack.amqp_url,), topology(RETRY_S), "tests"), timeout_s=LIMIT_S)
    async with background(publisher.run()):
        await asyncio.wait_for(publisher.wait_until_up(), LIMIT_S)
        yield publisher


async def publish(publisher: Publisher, events: Sequence[Event]) -> None:
    await publisher.publish_until_confirmed(
        Message(CALLS, "call.completed.x.answered", orjson.dumps(event), str(event["id"])) for event in events
    )


def calls_of(source: str, count: int, *, first: int = 1) -> list[Event]:
    return [call_event(number, source=source) for number in range(first, first + count)]


def new_source() -> str:
    return f"h{uuid.uuid4().hex[:12]}"


@asynccontextmanager
async def serving(servers: Servers, url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """Run the history in this process, where a test can shorten its waits; stopped as by SIGTERM."""
    for name, value in servers.environment(CALLFOLD_HISTORY_URL=url).items():
        monkeypatch.setenv(name, value)
    stop = asyncio.Event()
    task = asyncio.create_task(serve(load_settings(), stop))
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait_for(task, LIMIT_S)


async def count_of(url: str, source: str) -> int:
    """How many calls of a source there are; none while the history cannot be read."""
    async with aclosing(History(url)) as history:
        with suppress(HistoryUnavailableError):
            return await history._do(
                lambda connection: connection.execute(select(func.count()).where(CALLS_TABLE.c.source == source)).scalar_one()
            )
    return 0


async def has_calls(url: str, source: str, count: int) -> None:
    async def there() -> bool:
        return await count_of(url, source) == count

    await eventually(there)


async def settled(url: str) -> None:
    """Wait until the last event of each stream is written."""
    last = {stream: await _last_offset(stream) for stream in (CALLS_JOURNAL, AUDIT_JOURNAL)}
    async with aclosing(History(url)) as history:

        async def are_written() -> bool:
            marks = {stream: await history.checkpoint(stream) for stream in last}
            return all(offset is None or ((mark := marks[stream]) and mark[0] == offset) for stream, offset in last.items())

        await eventually(are_written)


async def _last_offset(stream: str) -> int | None:
    """Find the last event of a stream; None if it has none."""
    settings, window = load_settings(), 500
    end = await journal_end(settings, stream=stream, connect_s=LIMIT_S)
    while end is not None:
        first = max(0, end - window)
        async with journal_until_now(settings, first, stream=stream, connect_s=LIMIT_S) as deliveries:
            offsets = [delivery.offset async for delivery in deliveries]
        if offsets or first == 0:
            return max(offsets, default=None)
        window *= 4
    return None
