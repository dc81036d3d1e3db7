"""Turn a raw event into facts: (field, value) pairs that can be merged in any order, any number of times.

A field keeps the lexicographic minimum of its values; a field that starts with `>` keeps the maximum. Values are therefore
ordered strings: RFC 3339 UTC times with microseconds, ids, plain text. A fact that is not true yet is absent, never false.

- `>clock`: the latest time of a timer event, which is "now" for the call. A repeated callback does not change it.
- `dial`, `dial.<name>`: time of the dial request, with its user, reference and metadata.
- `dial:<time>`, `dial:<time>.<name>`: the same, so that the dials of two uses of a RequestID do not mix.
- `use`: the number of the first use of which there are facts, in a call of a later use (`uses.py`).
- `leg:<CallType>:<CallID>:<event>`: time of receipt of start, pickup, missed or hangup.
- `leg:<CallType>:<CallID>.2:...`: the same of a leg whose CallID was used before with its RequestID (`reused_legs.py`).
- `leg:...:at.start`, `.at.pickup`, `.at.end`: timestamps of the adapter.
- `leg:...:pbx_ahead`: seconds by which the clock of the PBX is ahead, estimated by other calls of its source (`pbx_clock.py`).
- `leg:...:guid`: GUID of the recording.
- `leg:...:recorded`: `1` once the leg is known to be recorded.
- `leg:...:url.<event>`: RecordingURL of that event, a credential that is never shown.
- `leg:...:f.<event>.<Placeholder>`: any other adapter value of that event.
- `leg:...:ignored.<event>.<Placeholder>.<reason>`: a value that was not used as it was sent, see `ignored.py`.
- `leg:...:nonsense.<Placeholder>`: the same for a timestamp, as an earlier version wrote it.
- `+annotation:<id>`: an annotation without its body, see `annotation.py`. A field that starts with `+` keeps the minimum, but it
  is no event: it does not count as a sign of life of the call.
- `=<digest>`: the body of an annotation. It is stored apart, and is not among the facts that a merge returns.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import assert_never

from shared.domain.adapter_link import TIMESTAMPS, Adapter, Placeholder
from shared.domain.annotation import annotation_facts
from shared.domain.callback import Callback, parse_callback
from shared.domain.callback_values import core
from shared.domain.ids import CallKey, CallRef, SourceName
from shared.domain.ignored import FACT, IgnoredValue, Reason, ignored_fact
from shared.domain.leg_event import LegEvent
from shared.domain.raw_event import AnnotationEvent, CallbackEvent, DialEvent, RawEvent, TimerEvent
from shared.domain.times import java_time, microseconds

CLOCK = ">clock"
DIAL = "dial"
DIAL_AT = "dial:"
LEG = "leg:"
GUID = "guid"
RECORDED = "recorded"
URL = "url."
AT = "at."
AHEAD = "pbx_ahead"
FIELD = "f."
IGNORED = ":" + FACT

Fact = tuple[str, str]

_RECEIPT = tuple(f":{event}" for event in LegEvent)
_DATING = (*_RECEIPT, f":{AT}start", f":{AT}pickup")
_TIME_CHARACTERS = len("2026-11-23T07:44:00.123456Z")


def facts_of(event: RawEvent, adapter: Adapter) -> tuple[CallKey, list[Fact]]:
    """Return the call of an event, and its facts.

    Raises:
        InvalidCallbackError: the event is a callback that cannot be parsed.
    """
    match event:
        case CallbackEvent():
            callback = parse_callback(adapter, event.query)
            return call_key(event.source, callback), _callback_facts(callback, event.received_at)
        case DialEvent():
            facts = [(DIAL, event.received_at)]
            facts += [(f"{DIAL}.{name}", value) for name, value in event.fields.items() if value]
            facts += [(f"{DIAL_AT}{event.received_at}{name.removeprefix(DIAL)}", value) for name, value in facts]
            return CallKey(event.source, CallRef(str(event.request_id))), facts
        case TimerEvent():
            return CallKey(event.source, event.call), [(CLOCK, event.received_at)]
        case AnnotationEvent():
            annotation = {"id": event.id, "at": event.received_at, "type": event.type, "by": event.by}
            return CallKey(event.source, event.call), annotation_facts(annotation, event.body)
        case _:
            assert_never(event)


def call_key(source: SourceName, callback: Callback) -> CallKey:
    """Return the call of a callback, named by its RequestID, or by its CallID if the dial API did not start the call."""
    if callback.request_id is None:
        return CallKey(source, CallRef(f"call-{callback.call_id}"))
    return CallKey(source, CallRef(str(callback.request_id)))


def _callback_facts(callback: Callback, received_at: str) -> list[Fact]:
    """Return the facts of a callback, those of ignored values last."""
    leg = f"{LEG}{callback.call_type}:{callback.call_id}:"
    facts = [(leg + callback.event, received_at)]
    if callback.guid is not None:
        facts.append((leg + GUID, callback.guid))
    if callback.recorded:
        facts.append((leg + RECORDED, "1"))
    times, not_used = _timestamps(callback, received_at)
    facts += [(leg + name, at) for name, at in times]
    for name, value in callback.extras.items():
        if name == Placeholder.RECORDING_URL:
            facts.append((f"{leg}{URL}{callback.event}", value))
        elif name not in TIMESTAMPS:
            facts.append((f"{leg}{FIELD}{callback.event}.{name}", value))
    for ignored in (*callback.ignored, *not_used):
        name, value = ignored_fact(callback.event, ignored)
        facts.append((leg + name, value))
    return facts


def _timestamps(callback: Callback, received_at: str) -> tuple[list[Fact], list[IgnoredValue]]:
    """Return the adapter's timestamps, and those that are ignored: zero, far from now, or out of order."""
    times: list[Fact] = []
    ignored: list[IgnoredValue] = []
    earlier = ""
    for name, what in TIMESTAMPS.items():
        value = callback.extras.get(name)
        if value is None:
            continue
        at = java_time(value if value.isdecimal() else core(value), received_at)
        if at is not None and at >= earlier:
            earlier = at
            times.append((AT + what, at))
        elif at is not None or value.strip():
            ignored.append(IgnoredValue(name, value, Reason.NOT_A_TIME if at is None else Reason.CONTRADICTS))
    return times, ignored


def leg_of(facts: Sequence[Fact]) -> str:
    """Return the prefix of the names of a callback's facts, which identifies its leg; "" for a dial or a timer."""
    name = facts[0][0] if facts else ""
    return name[: name.rindex(":") + 1] if name.startswith(LEG) else ""


def receipt_of_leg(name: str) -> tuple[str, str] | None:
    """Split the name of a fact that is the receipt of a callback into `leg:API:77:` and its event; None for another fact."""
    if not is_receipt_of_leg(name):
        return None
    end = name.rindex(":") + 1
    return name[:end], name[end:]


def is_receipt_of_leg(name: str) -> bool:
    """Return whether a fact is the receipt of a callback, such as `leg:API:77:pickup`."""
    return name.endswith(_RECEIPT) and name.startswith(LEG)


def is_receipt_of_dial(name: str) -> bool:
    """Return whether a fact is the receipt of a dial request: `dial` is the first one, `dial:<time>` any."""
    return name == DIAL or (name.startswith(DIAL_AT) and len(name) == len(DIAL_AT) + _TIME_CHARACTERS)


def receipts(facts: Mapping[str, str]) -> list[str]:
    """Return when the events of one call were received: its first dial request and its callbacks."""
    return [at for name, at in facts.items() if name == DIAL or is_receipt_of_leg(name)]


def started_us(facts: Iterable[Fact]) -> int | None:
    """Return the start of a call by some of its facts (microseconds since 1970); None if no event is among them."""
    times = [value for name, value in facts if name == DIAL or (name.endswith(_DATING) and name.startswith(LEG))]
    return microseconds(min(times)) if times else None
