"""`callfold tail`: follow the published events, from now on or from an earlier time."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import datetime
from typing import cast

from console.durations import ago
from console.safe_text import plain_line
from console.streams.events import Event, is_since, one_line, read_event, topic_matcher
from console.streams.journal import journal
from shared.config.settings import Settings


async def tail(settings: Settings, pattern: str, since: str | None, limit: int | None, *, as_json: bool) -> None:
    """Print events whose routing key matches the pattern, until Ctrl-C or until `limit` events were printed."""
    start = ago(since) if since else None
    matches = topic_matcher(pattern)
    printed = 0
    async with journal(settings, start or "next") as deliveries:
        async for delivery in deliveries:
            event = read_event(delivery) if matches(delivery.routing_key) else None
            if event is None or not _is_recent(event, start):
                continue
            line = one_line(delivery).decode() if as_json else _line(delivery.routing_key, event)
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
            printed += 1
            if printed == limit:
                return


def _is_recent(event: Event, start: datetime | None) -> bool:
    return start is None or is_since(event, start)


def _line(routing_key: str, event: Mapping[str, object]) -> str:
    data = cast("Mapping[str, object]", event["data"])
    details = [f"{name}={data[name]}" for name in ("close_reason", "talk_seconds", "uri", "reason") if data.get(name) is not None]
    return plain_line(f"{event['time']}  {event['id']:<28}  {routing_key:<40}  {' '.join(details)}")
