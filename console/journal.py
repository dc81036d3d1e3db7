"""Reading the journal of call events: the stream `calls.journal`, from now on or from some time ago."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Literal

from shared.broker import BrokerAddress, Consumer, Delivery
from shared.errors import ConfigError
from shared.facts import rfc3339
from shared.process import background, instance_name
from shared.settings import Settings
from shared.topology import CALLS_JOURNAL, topology

Offset = datetime | Literal["first", "next"]
_PREFETCH = 200
_DURATION = re.compile(r"(\d+)([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


@asynccontextmanager
async def journal(settings: Settings, offset: Offset) -> AsyncIterator[AsyncIterator[Delivery]]:
    """Open the journal; yields an endless iterator of deliveries. After a reconnect it starts at the offset again."""
    address = BrokerAddress(settings.amqp_urls, topology(settings.recording_retry_seconds), instance_name("tail"))
    consumer = Consumer(address, CALLS_JOURNAL, prefetch=_PREFETCH, arguments={"x-stream-offset": offset})

    async def deliveries() -> AsyncIterator[Delivery]:
        while True:
            delivery = await consumer.get()
            yield delivery
            await delivery.ack()  # on a stream an ack only grants credit for more

    async with background(consumer.run()):
        await consumer.wait_up()
        yield deliveries()


def ago(text: str) -> datetime:
    """Turn `90s`, `15m`, `2h` or `7d` into the time that long ago.

    Raises:
        ConfigError: the text is none of these.
    """
    match = _DURATION.fullmatch(text.strip())
    if not match:
        raise ConfigError(f"{text!r} is not a duration: expected a number with s, m, h or d, like 90s or 2h.")
    return datetime.now(UTC) - timedelta(**{_UNITS[match[2]]: int(match[1])})


def is_since(event: dict[str, object], since: datetime) -> bool:
    """Tell whether an event is not older; a stream starts at a chunk, which can hold older ones."""
    return str(event.get("time", "")) >= rfc3339(since)


def topic_matcher(pattern: str) -> re.Pattern[str]:
    """Compile a topic pattern (`*` one word, `#` any number of words, as RabbitMQ has it) to match routing keys."""
    words = [{"*": r"[^.]+", "#": r".*"}.get(word, re.escape(word)) for word in pattern.split(".")]
    expression = r"\.".join(words)
    expression = expression.replace(r"\..*", r"(?:\..*)?").replace(r".*\.", r"(?:.*\.)?")
    return re.compile(expression)
