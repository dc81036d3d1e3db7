"""Reading the journals: the streams `calls.journal` and `callbacks.journal`, from now on or from some time ago."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, cast

import orjson

from shared.broker import Consumer, Delivery, Message, Publisher
from shared.errors import CallfoldError, ConfigError
from shared.events import is_time
from shared.facts import rfc3339
from shared.getter import Getter
from shared.log import get_logger
from shared.process import background, broker_address
from shared.settings import Settings
from shared.topology import CALLS_JOURNAL

log = get_logger(__name__)

Event = Mapping[str, Any]  # JSON
Offset = datetime | int | Literal["first", "next"]
_PREFETCH = 200
_SILENCE_S = 30
_CONNECT_S = 15
_BOOKMARK = "bookmark"
_DURATION = re.compile(r"(\d+)([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class NotConnectedError(CallfoldError):
    """RabbitMQ cannot be reached, or refuses: a command gives up."""


@asynccontextmanager
async def journal(settings: Settings, offset: Offset, *, stream: str = CALLS_JOURNAL) -> AsyncIterator[AsyncIterator[Delivery]]:
    """Open a journal; yields an endless iterator of deliveries. After a reconnect it goes on where it was."""
    address = broker_address(settings, "tail")
    last: int | None = None
    consumer = Consumer(
        address, stream, prefetch=_PREFETCH, arguments=lambda: {"x-stream-offset": offset if last is None else last + 1}
    )
    publisher = Publisher(address, timeout_s=settings.publish_timeout_seconds)

    async def deliveries() -> AsyncIterator[Delivery]:
        nonlocal last
        while True:
            delivery = await consumer.get()
            if last is None or delivery.offset > last:  # a stream begins at a chunk, which can hold older ones
                last = delivery.offset
                if not is_bookmark(delivery):
                    yield delivery
            await delivery.ack()  # on a stream an ack only grants credit for more

    async with background(consumer.run(), publisher.run()):
        await connected(consumer, publisher)
        if offset == "next":
            await publisher.publish(bookmark(stream))  # what is read first: from then on it is known where to go on
        yield deliveries()


@asynccontextmanager
async def journal_until_now(
    settings: Settings, since: Offset, *, stream: str, connect_s: float = _CONNECT_S
) -> AsyncIterator[AsyncIterator[Delivery]]:
    """Open a journal; yields an iterator of what it holds from some time, some offset, or `first`, up to this moment.

    Raises:
        CallfoldError: RabbitMQ cannot be reached, or went while it was read.
    """
    async with _up_to_now(settings, since, stream, connect_s) as deliveries:
        yield (delivery async for delivery in deliveries if not is_bookmark(delivery))


async def journal_end(settings: Settings, *, stream: str, connect_s: float = _CONNECT_S) -> int:
    """Tell an offset at which a journal ended a moment ago, however long it is.

    Raises:
        CallfoldError: RabbitMQ cannot be reached, or went meanwhile.
    """
    async with _up_to_now(settings, "next", stream, connect_s) as deliveries:
        return max([delivery.offset async for delivery in deliveries])


@asynccontextmanager
async def _up_to_now(settings: Settings, since: Offset, stream: str, connect_s: float) -> AsyncIterator[AsyncIterator[Delivery]]:
    """Read a journal up to this moment. It does not tell where it ends: a bookmark that is put there now is the end."""
    end = bookmark(stream)
    address = broker_address(settings, "journal")
    consumer = Consumer(address, stream, prefetch=_PREFETCH, arguments={"x-stream-offset": since})
    publisher = Publisher(address, timeout_s=settings.publish_timeout_seconds)

    async def deliveries() -> AsyncIterator[Delivery]:
        is_end = False
        while not is_end:
            try:
                async with asyncio.timeout(_SILENCE_S):
                    delivery = await consumer.get()
            except TimeoutError:
                raise CallfoldError(f"{stream} could not be read to its end: nothing came for {_SILENCE_S} s.") from None
            await delivery.ack()
            is_end = is_bookmark(delivery) and bookmark_id(delivery) == end.message_id
            yield delivery

    async with background(consumer.run(), publisher.run()):
        await connected(publisher, consumer, within_s=connect_s)
        await publisher.publish(end)
        yield deliveries()


def bookmark(stream: str) -> Message:
    """Write a message that only this stream gets, and that says nothing but where it stands."""
    mark = uuid.uuid4().hex
    return Message("", stream, b"[]", mark, headers={_BOOKMARK: mark})


def is_bookmark(delivery: Delivery) -> bool:
    """Tell a place that somebody marked for himself from what the journal holds."""
    return _BOOKMARK in delivery.headers


def bookmark_id(delivery: Delivery) -> str:
    """Tell the message id of a delivered bookmark."""
    return str(delivery.headers[_BOOKMARK])


def read_event(delivery: Delivery) -> Event | None:
    """Read a published event; None where it is none of ours, which the log tells: anybody may publish to the exchange."""
    try:
        event = orjson.loads(delivery.body)
    except orjson.JSONDecodeError:
        event = None
    match event:
        case {
            "id": str(),
            "subject": str(),
            "time": str(),
            "type": str(kind),
            "data": {"source": str(), "request_id": _} as data,
        }:
            is_call = kind.startswith("callfold.call.")
            if kind.startswith("callfold.recording.") or (is_call and _is_record(data)):
                return cast("Event", event)
    log.warning("foreign_message", offset=delivery.offset, routing_key=delivery.routing_key)
    return None


def one_line(delivery: Delivery) -> bytes:
    """Write a published event's JSON on one line: line ends stand only between its tokens."""
    return delivery.body.replace(b"\r", b" ").replace(b"\n", b" ")


def _is_record(data: Mapping[str, object]) -> bool:
    match data:
        case {
            "revision": int(revision),
            "started_at": str(started_at),
            "outcome": str(),
            "close_reason": str(),
            "complete": bool(),
            "talk_seconds": float() | int() | None,
            "agent": agent,
            "dialed": dialed,
            "other_legs": list(others),
        }:
            legs = [leg for leg in (agent, dialed, *others) if leg is not None]
            return revision > 0 and is_time(started_at) and all(map(_is_leg, legs))
    return False


def _is_leg(leg: object) -> bool:
    match leg:
        case {
            "call_id": str(),
            "guid": str() | None,
            "state": str(),
            "recorded": bool(),
            "picked_up_at": str() | None,
            "missed_at": str() | None,
            "hung_up_at": str() | None,
        }:
            return True
    return False


async def connected(*links: Publisher | Consumer | Getter, within_s: float = _CONNECT_S) -> None:
    """Wait until a command's connections are up.

    Raises:
        NotConnectedError: RabbitMQ cannot be reached, or refuses.
    """
    try:
        async with asyncio.timeout(within_s):
            for link in links:
                await link.wait_up()
    except TimeoutError:
        problem = next(link.problem for link in links if not link.is_up)
        raise NotConnectedError(f"RabbitMQ {problem}: see CALLFOLD_AMQP_URL, or run `callfold doctor`.") from None


def ago(text: str, now: datetime | None = None) -> datetime:
    """Turn `90s`, `15m`, `2h` or `7d` into the time that long ago, or that long before another time.

    Raises:
        ConfigError: the text is none of these.
    """
    match = _DURATION.fullmatch(text.strip())
    if not match:
        raise ConfigError(f"{text!r} is not a duration: expected a number with s, m, h or d, like 90s or 2h.")
    return (now or datetime.now(UTC)) - timedelta(**{_UNITS[match[2]]: int(match[1])})


def is_since(event: Event, since: datetime) -> bool:
    """Tell whether an event is not older; a stream starts at a chunk, which can hold older ones."""
    return str(event.get("time", "")) >= rfc3339(since)


def topic_matcher(pattern: str) -> re.Pattern[str]:
    """Compile a topic pattern (`*` one word, `#` any number of words, as RabbitMQ has it) to match routing keys."""
    # "#.#" is "#": many in a row would take the matcher ages to give up.
    given = re.sub(r"(?<![^.])#(\.#)+(?![^.])", "#", pattern).split(".")
    words = [{"*": r"[^.]+", "#": r".*"}.get(word, re.escape(word)) for word in given]
    expression = r"\.".join(words)
    expression = expression.replace(r"\..*", r"(?:\..*)?").replace(r".*\.", r"(?:.*\.)?")
    return re.compile(expression)
