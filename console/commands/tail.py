"""`callfold tail`: follow the published events, from now on or from an earlier time, without end or until a time."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

from console.durations import moment
from console.safe_text import plain_line
from shared.amqp.delivery import Delivery
from shared.amqp.topology import CALLS_JOURNAL, OPS_JOURNAL
from shared.config.settings import Settings
from shared.domain.times import rfc3339
from shared.errors import ConfigError
from shared.streams.events import Event, one_line, read_event, read_ops_event, topic_matcher
from shared.streams.journal import Offset, journal, journal_until_now

_DETAILS = ("close_reason", "talk_seconds", "uri", "reason", "detail")


@dataclass(frozen=True, slots=True)
class Span:
    """The times of the events to print.

    Attributes:
        since: time of the first publication. None: from now on, or all of the journal if `until` is past.
        until: the time after the last event. None: without end.
    """

    since: datetime | None
    until: datetime | None

    @classmethod
    def of(cls, since: str | None, until: str | None) -> Span:
        """Read the options of the command.

        Raises:
            ConfigError: one is no time, or they are in the wrong order.
        """
        now = datetime.now(UTC)
        begin, end = moment(since, now) if since else None, moment(until, now) if until else None
        if begin and end and end < begin:
            raise ConfigError("--until is earlier than --since, so no event can match.")
        return cls(now if end and end > now and not begin else begin, end)

    def has(self, event: Event) -> bool:
        """Return whether an event is not after the end.

        Where it begins is a matter of the journal alone. The time of an event is that of the call's last callback. A timer or an
        annotation can publish it long after that.
        """
        return self.until is None or str(event.get("time", "")) < rfc3339(self.until)


async def tail(settings: Settings, pattern: str, span: Span, limit: int | None, *, as_json: bool, is_ops: bool = False) -> None:
    """Print events whose routing key matches the pattern, until Ctrl-C, the end of the span, or `limit` events.

    With `is_ops`, print operator events.
    """
    matches = topic_matcher(pattern)
    read = read_ops_event if is_ops else read_event
    printed = 0
    async with aclosing(_deliveries(settings, span, OPS_JOURNAL if is_ops else CALLS_JOURNAL)) as deliveries:
        async for delivery in deliveries:
            event = read(delivery) if matches(delivery.routing_key) else None
            if event is None or not span.has(event):
                continue
            line = one_line(delivery.body).decode() if as_json else _line(delivery.routing_key, event)
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
            printed += 1
            if printed == limit:
                return


async def _deliveries(settings: Settings, span: Span, stream: str) -> AsyncGenerator[Delivery, None]:
    """Yield the journal from the begin of a span. If the span ends, so does this, without waiting for a further event."""
    since = span.since
    if span.until is None:
        async with journal(settings, since or "next", stream=stream) as deliveries:
            async for delivery in deliveries:
                yield delivery
        return
    last: int | None = None
    if _seconds_to(span.until) > 0:  # what is published until then is printed at once
        async with journal(settings, since or "next", stream=stream) as deliveries:
            while (left_s := _seconds_to(span.until)) > 0:
                try:
                    async with asyncio.timeout(left_s):
                        delivery = await anext(deliveries)
                except TimeoutError:
                    break
                last = delivery.offset
                yield delivery
    # Events of the last moment can still be on their way to this reader.
    begin: Offset = last + 1 if last is not None else since or "first"
    async with journal_until_now(settings, begin, stream=stream) as deliveries:
        async for delivery in deliveries:
            yield delivery


def _seconds_to(at: datetime) -> float:
    return (at - datetime.now(UTC)).total_seconds()


def _line(routing_key: str, event: Mapping[str, object]) -> str:
    data = cast("Mapping[str, object]", event["data"])
    details = [f"{name}={data[name]}" for name in _DETAILS if data.get(name) is not None]
    return plain_line(f"{event['time']}  {event['id']:<28}  {routing_key:<40}  {' '.join(details)}")
