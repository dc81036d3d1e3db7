"""The raw events of one call, read from the journal of callbacks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple, assert_never
from urllib.parse import unquote_plus

from console.streams.journal import journal_until_now
from shared.amqp.topology import CALLBACKS_JOURNAL
from shared.config.settings import Settings
from shared.domain.adapter_link import Adapter, Placeholder
from shared.domain.call import Call
from shared.domain.callback import LegEvent, parse_callback
from shared.domain.facts import facts_of
from shared.domain.ids import CallKey
from shared.domain.raw_event import CallbackEvent, DialEvent, RawEvent, TimerEvent, Undecodable, decode, encode
from shared.domain.times import java_time
from shared.errors import CallfoldError
from shared.masking import MASK, is_credential, mask_credentials
from shared.runtime.process import leaf_errors

_BEFORE = timedelta(minutes=1)
# The journal is in RabbitMQ's order of arrival. It is read from the call's start for this long, or up to now.
_READ_FOR_S = 5.0
# Limits on connecting, and on the whole read if RabbitMQ or the journal stops answering.
_CONNECT_S = 3.0
_WAIT_FOR_S = 10.0
# Events received this long after the call's last one belong to other calls, unless a spool delayed them even longer.
_AFTER = timedelta(hours=1)
_EVENT_TIME = {
    LegEvent.START: Placeholder.STARTED,
    LegEvent.PICKUP: Placeholder.PICKED_UP,
    LegEvent.HANGUP: Placeholder.ENDED,
    LegEvent.MISSED: Placeholder.ENDED,
}


class Timeline(NamedTuple):
    """Raw events in RabbitMQ's order of arrival, whether these are all, and why the journal could not be read."""

    rows: Sequence[Mapping[str, str]] = ()
    is_whole: bool = False
    problem: str | None = None


async def read_timeline(settings: Settings, adapter: Adapter, key: CallKey, call: Call) -> Timeline:
    """Read the raw events of a call. A failure is reported in the result."""
    timeline = Timeline()
    try:
        async with asyncio.timeout(_WAIT_FOR_S):
            timeline = await _read_journal(settings, adapter, key, call)
    except* TimeoutError:
        timeline = Timeline(problem=f"RabbitMQ did not answer within {_WAIT_FOR_S:g} s. Try again later.")
    except* CallfoldError as group:  # raised in the connection's task group
        timeline = Timeline(problem=str(leaf_errors(group)[0]))
    return timeline


async def _read_journal(settings: Settings, adapter: Adapter, key: CallKey, call: Call) -> Timeline:
    rows: list[dict[str, str]] = []
    first_at = min(call.started_at, *(leg.first_seen_at for leg in call.legs), call.last_event_at)
    since, until = datetime.fromisoformat(first_at) - _BEFORE, datetime.fromisoformat(call.last_event_at) + _AFTER
    deadline = time.monotonic() + _READ_FOR_S
    async with journal_until_now(settings, since, stream=CALLBACKS_JOURNAL, connect_s=_CONNECT_S) as deliveries:
        async for delivery in deliveries:
            events = (event for event in decode(delivery.body) if not isinstance(event, Undecodable))
            rows += [_row(event, adapter) for event in events if _belongs_to(event, key, adapter)]
            if time.monotonic() > deadline:
                return Timeline(rows, _received_at(delivery.body) > until)
    return Timeline(rows, is_whole=True)


def _received_at(body: bytes) -> datetime:
    times = [event.received_at for event in decode(body) if not isinstance(event, Undecodable)]
    return datetime.fromisoformat(min(times, default="1970-01-01T00:00:00Z"))


def _belongs_to(event: RawEvent, key: CallKey, adapter: Adapter) -> bool:
    if event.source != key.source:
        return False
    try:
        return facts_of(event, adapter)[0] == key
    except Exception:  # noqa: BLE001 - an event that cannot be parsed belongs to no call
        return False


def _row(event: RawEvent, adapter: Adapter) -> dict[str, str]:
    match event:
        case CallbackEvent():
            callback = parse_callback(adapter, event.query)
            row = {
                "kind": "callback",
                "what": _without_credentials(adapter, event.query),
                "leg": callback.call_id,
                "event": str(callback.event),
            }
            event_time = java_time(callback.extras.get(_EVENT_TIME[callback.event], ""), event.received_at)
            row |= {"told_at": event_time} if event_time else {}
        case DialEvent():
            row = {"kind": "dial", "what": encode(event).decode()}
        case TimerEvent():
            row = {"kind": "timer", "what": encode(event).decode()}
        case _:
            assert_never(event)
    return row | {"received_at": event.received_at, "what": mask_credentials(row["what"])}


def _without_credentials(adapter: Adapter, query: str) -> str:
    """Mask the values that are credentials by their meaning, whatever their parameters are called."""
    parts = []
    for part in query.split("&"):
        name, equals, value = part.partition("=")
        meaning = adapter.meanings.get(unquote_plus(name), "")
        is_secret = meaning == Placeholder.RECORDING_URL or is_credential(meaning)
        parts.append(f"{name}{equals}{MASK}" if value and is_secret else part)
    return "&".join(parts)
