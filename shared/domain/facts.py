"""From a raw event to facts: (field, value) pairs that can be merged in any order, any number of times.

A field keeps the lexicographic minimum of its values; a field that starts with `>` the maximum. So values are ordered
strings: RFC 3339 UTC times with microseconds, ids, plain text. What is not true yet is absent, never false.

| field | value |
|---|---|
| `>clock` | the latest time a timer told: what the call knows of "now"; a repeated callback is no clock |
| `dial`, `dial.<name>` | time of the dial request; who asked, with what reference |
| `leg:<CallType>:<CallID>:<event>` | time of receipt of start, pickup, missed or hangup |
| `leg:...:at.start`, `.at.pickup`, `.at.end` | the adapter's own timestamps |
| `leg:...:guid`, `leg:...:recorded` | the recording's GUID; `1` once it is known to be recorded |
| `leg:...:url.<event>` | RecordingURL as that event told it (a credential: never shown) |
| `leg:...:f.<event>.<Placeholder>` | any other adapter value, as that event told it |
| `leg:...:nonsense.<Placeholder>` | a timestamp that cannot be true: ignored, kept to be seen and counted |
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import assert_never

from shared.domain.adapter_link import Adapter, Placeholder
from shared.domain.callback import Callback, LegEvent, parse_callback
from shared.domain.ids import CallKey, CallRef, SourceName
from shared.domain.raw_event import CallbackEvent, DialEvent, RawEvent, TimerEvent

CLOCK = ">clock"
DIAL = "dial"
LEG = "leg:"
GUID = "guid"
RECORDED = "recorded"
URL = "url."
AT = "at."
FIELD = "f."
NONSENSE = ":nonsense."

Fact = tuple[str, str]

_TIMESTAMPS = {
    Placeholder.STARTED.value: AT + "start",
    Placeholder.PICKED_UP.value: AT + "pickup",
    Placeholder.ENDED.value: AT + "end",
}
_BEGINNINGS = frozenset({*LegEvent, AT + "start", AT + "pickup"})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# What is told of a time that far from its receipt is nonsense, and nonsense must not date a call: a PBX clock may be ahead a
# little; a call begun before it was hung up, by no more than the longest call and a day.
_MAX_AHEAD = timedelta(minutes=5)
_MAX_BEHIND = timedelta(days=2)


def facts_of(event: RawEvent, adapter: Adapter) -> tuple[CallKey, list[Fact]]:
    """Name the call an event belongs to, and what it tells about it.

    Raises:
        InvalidCallbackError: the event is a callback that cannot be understood.
    """
    match event:
        case CallbackEvent():
            callback = parse_callback(adapter, event.query)
            return call_key(event.source, callback), _callback_facts(callback, event.received_at)
        case DialEvent():
            facts = [(DIAL, event.received_at)]
            facts += [(f"{DIAL}.{name}", value) for name, value in event.fields.items() if value]
            return CallKey(event.source, CallRef(str(event.request_id))), facts
        case TimerEvent():
            return CallKey(event.source, event.call), [(CLOCK, event.received_at)]
        case _:
            assert_never(event)


def call_key(source: SourceName, callback: Callback) -> CallKey:
    """Name the call of a callback: its RequestID, or its CallID where the dial API did not start it."""
    if callback.request_id is None:
        return CallKey(source, CallRef(f"call-{callback.call_id}"))
    return CallKey(source, CallRef(str(callback.request_id)))


def _callback_facts(callback: Callback, received_at: str) -> list[Fact]:
    leg = f"{LEG}{callback.call_type}:{callback.call_id}:"
    facts = [(leg + callback.event, received_at)]
    if callback.guid is not None:
        facts.append((leg + GUID, callback.guid))
    if callback.recorded:
        facts.append((leg + RECORDED, "1"))
    facts += _timestamps(leg, callback, received_at)
    for name, value in callback.extras.items():
        if name == Placeholder.RECORDING_URL:
            facts.append((f"{leg}{URL}{callback.event}", value))
        elif name not in _TIMESTAMPS:
            facts.append((f"{leg}{FIELD}{callback.event}.{name}", value))
    return facts


def _timestamps(leg: str, callback: Callback, received_at: str) -> list[Fact]:
    """Read the adapter's own timestamps; what cannot be true is kept apart: zero, far from now, an end before its start."""
    facts: list[Fact] = []
    earlier = ""
    for name, what in _TIMESTAMPS.items():
        value = callback.extras.get(name)
        if value is None:
            continue
        at = java_time(value, received_at)
        if at is None or at < earlier:
            facts.append((f"{leg.removesuffix(':')}{NONSENSE}{name}", value))
        else:
            earlier = at
            facts.append((leg + what, at))
    return facts


def java_time(text: str, received_at: str) -> str | None:
    """Turn a Java timestamp (milliseconds since 1970 UTC) into RFC 3339, or None where it is nonsense."""
    if not (text.isascii() and text.isdigit()) or len(text) > len("9999999999999"):
        return None
    at = _EPOCH + timedelta(milliseconds=int(text))
    received = datetime.fromisoformat(received_at)
    return rfc3339(at) if received - _MAX_BEHIND <= at <= received + _MAX_AHEAD else None


def started_us(facts: Iterable[Fact]) -> int | None:
    """Tell when what some facts speak of began (microseconds since 1970); None where they tell of no event."""
    times = [value for name, value in facts if name == DIAL or (name.startswith(LEG) and name.rpartition(":")[2] in _BEGINNINGS)]
    return microseconds(min(times)) if times else None


def microseconds(at: str) -> int:
    """Turn a time of ours into microseconds since 1970."""
    return (datetime.fromisoformat(at) - _EPOCH) // timedelta(microseconds=1)


def at_microseconds(since_1970: int) -> str:
    """Turn microseconds since 1970 into a time of ours."""
    return rfc3339(_EPOCH + timedelta(microseconds=since_1970))


def milliseconds(at: str) -> int:
    """Turn a time of ours into milliseconds since 1970."""
    return (datetime.fromisoformat(at) - _EPOCH) // timedelta(milliseconds=1)


def rfc3339(at: datetime) -> str:
    """Write a time in UTC with microseconds and `Z`: fixed width, so that text order is time order."""
    return at.isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"
