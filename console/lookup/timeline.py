"""The raw events of one call, as the journal of callbacks has them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple, assert_never
from urllib.parse import unquote, unquote_plus

from shared.domain.adapter_link import Adapter, Placeholder
from shared.domain.call import Call
from shared.domain.callback import parse_callback
from shared.domain.callback_query import has_semicolons, is_escaped
from shared.domain.callback_values import core
from shared.domain.facts import LEG, facts_of, leg_of
from shared.domain.ids import CallKey, first_use
from shared.domain.leg_event import LegEvent
from shared.domain.raw_event import (
    AnnotationEvent,
    CallbackEvent,
    DialEvent,
    RawEvent,
    TimerEvent,
    Undecodable,
    decode,
    encode,
    receipt_times,
)
from shared.domain.times import java_time
from shared.masking import MASK, is_credential, mask_credentials

_BEFORE = timedelta(minutes=1)
# Events received this long after the call's last one belong to other calls, unless a spool delayed them even longer.
_AFTER = timedelta(hours=1)
# Of one call. No page shows so many, and they are kept in memory.
_MAX_ROWS = 5000
_MAX_CHARACTERS = 4 << 20
# Each is a part of a query too, so that the parts are the whole query.
_SEPARATORS, _SEMICOLONS = re.compile("(&)"), re.compile("(&amp;|;)")
_EVENT_TIME = {
    LegEvent.START: Placeholder.STARTED,
    LegEvent.PICKUP: Placeholder.PICKED_UP,
    LegEvent.HANGUP: Placeholder.ENDED,
    LegEvent.MISSED: Placeholder.ENDED,
}


Row = Mapping[str, str]


class Timeline(NamedTuple):
    """Raw events in RabbitMQ's order of arrival, whether these are all, and why the journal could not be read."""

    rows: Sequence[Row] = ()
    is_whole: bool = False
    problem: str | None = None


@dataclass(slots=True)
class Search:
    """The search for the raw events of one call in the journal.

    Attributes:
        since, until: times of receipt between which the call's events are, unless a spool delayed them.
        own: the call, if its RequestID was used for others too.
        known: the rows that an earlier pass found, up to the message `last` (offset, hash).
        is_same_journal: whether the journal still has this message at its offset.
        result: None until the search is over.
    """

    key: CallKey
    adapter: Adapter
    since: datetime
    until: datetime
    own: Call | None = None
    known: Sequence[Row] = ()
    last: tuple[int, int] | None = None
    is_same_journal: bool = True
    rows: list[Row] = field(default_factory=list)
    size: int = 0
    is_cut: bool = False
    result: Timeline | None = None

    @classmethod
    def of(cls, call: Call, adapter: Adapter) -> Search:
        # Times of receipt: the clock of the PBX can be hours off.
        since = datetime.fromisoformat(call.first_event_at) - _BEFORE
        until = datetime.fromisoformat(call.last_event_at) + _AFTER
        return cls(call.key, adapter, since, until, call if call.is_of_several else None)

    def begin(self) -> None:
        """Begin a pass over the journal. An earlier pass can have been cancelled half-way."""
        self.rows, self.size, self.is_cut = [*self.known], sum(map(_size, self.known)), False
        self.is_same_journal = self.last is None

    def may_be_in(self, body: bytes) -> bool:
        """Return whether a message can have an event of the call, without decoding the message."""
        return self._digits.encode() in body or b"%3" in body or b"%25" in body or b"\\u" in body

    def add_from(self, events: Iterable[RawEvent]) -> None:
        """Add the events of the call, up to a limit."""
        for event in events:
            if self._may_be(event) and _belongs_to(event, self.key, self.adapter, self.own):
                row = _row(event, self.adapter)
                self.size += _size(row)
                self.is_cut = self.is_cut or len(self.rows) >= _MAX_ROWS or self.size > _MAX_CHARACTERS
                if not self.is_cut:
                    self.rows.append(row)

    def timeline(self, *, is_whole: bool) -> Timeline:
        """Return the events found so far."""
        return Timeline(tuple(self.rows), is_whole and not self.is_cut)

    @property
    def _digits(self) -> str:
        return first_use(self.key.call).removeprefix("call-")

    def _may_be(self, event: RawEvent) -> bool:
        """Return whether an event can belong to the call. To parse every callback would take very long."""
        if event.source != self.key.source:
            return False
        # A digit of a callback can be percent-encoded: %30 to %39, or %2530.
        return not isinstance(event, CallbackEvent) or any(each in event.query for each in (self._digits, "%3", "%25"))


def _size(row: Row) -> int:
    return sum(map(len, row.values()))


def received_at(body: bytes) -> datetime:
    """Return the earliest time of receipt in a message; 1970 if it has none."""
    return datetime.fromisoformat(min(receipt_times(body), default="1970-01-01T00:00:00Z"))


def events_of(body: bytes) -> list[RawEvent]:
    return [event for event in decode(body) if not isinstance(event, Undecodable)]


def _belongs_to(event: RawEvent, key: CallKey, adapter: Adapter, own: Call | None) -> bool:
    if event.source != key.source:
        return False
    try:
        of_event, facts = facts_of(event, adapter)
        if own is None or isinstance(event, TimerEvent | AnnotationEvent):
            return of_event == key
        is_own = own.first_event_at <= event.received_at <= own.last_event_at
        if isinstance(event, CallbackEvent):
            is_own = leg_of(facts) in {f"{LEG}{leg.call_type}:{leg.call_id}:" for leg in own.legs}
        return is_own and of_event.call == first_use(key.call)
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
            event_time = java_time(core(callback.extras.get(_EVENT_TIME[callback.event], "")), event.received_at)
            row |= {"told_at": event_time} if event_time else {}
        case DialEvent():
            row = {"kind": "dial", "what": encode(event).decode()}
        case AnnotationEvent():
            row = {"kind": "annotation", "what": f"{event.type} {event.id} by {event.by}, {len(event.body.encode())} bytes"}
        case TimerEvent():
            row = {"kind": "timer", "what": encode(event).decode()}
        case _:
            assert_never(event)
    return row | {"received_at": event.received_at, "what": mask_credentials(row["what"])}


def _without_credentials(adapter: Adapter, query: str) -> str:
    """Mask the values that are credentials by their meaning, whatever their parameters are called."""
    parts = []
    plain = unquote(query) if is_escaped(query) else query
    for part in _SEMICOLONS.split(plain) if has_semicolons(plain) else _SEPARATORS.split(plain):
        name, equals, value = part.partition("=")
        decoded = unquote_plus(name)
        meaning = adapter.meaning(decoded) or ""
        is_secret = meaning == Placeholder.RECORDING_URL or is_credential(meaning)
        parts.append(f"{name}{equals}{MASK}" if value and is_secret else part)
    return "".join(parts)
