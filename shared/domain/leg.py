"""One leg of a call, read from its own facts alone. `closing.py` infers what other legs imply."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from shared.domain.adapter_link import TIMESTAMPS, Placeholder
from shared.domain.callback_values import as_number, read_bit, read_wait_ms
from shared.domain.facts import AT, FIELD, GUID, LEG, RECORDED, URL
from shared.domain.first_release import mixed_times
from shared.domain.ignored import IgnoredOfLeg, read_ignored
from shared.domain.leg_event import CallType, LegEvent
from shared.domain.pbx_clock import UNKNOWN_TIMES, ClockTimes, LegTimes, PbxClock, leg_times, pbx_clock
from shared.domain.recording_link import IN_DOUBT, is_link
from shared.domain.times import seconds_between

_PLACEHOLDERS = {what: name for name, what in TIMESTAMPS.items()}
_RECEIPTS = tuple(LegEvent)


class LegState(StrEnum):
    """State of a leg."""

    RINGING = "ringing"
    TALKING = "talking"
    ENDED = "ended"
    MISSED = "missed"


_ANSWERED = frozenset({LegState.TALKING, LegState.ENDED})


@dataclass(frozen=True, slots=True)
class Leg:
    """One phone that rang. Times are RFC 3339 UTC with microseconds, or None if unknown.

    Attributes:
        inferred: the event for this state is missing, and the state follows from other facts.
        recording_url: RecordingURL as sent; a credential.
        fields: every other adapter value by its placeholder name.
        first_seen_at: receipt of the first event, on the axis of the call's times (see `pbx_clock.py`).
        ignored: timestamps of the adapter (`start`, `pickup`, `end`) that contradict the leg's other times.
        ignored_values: every value of the adapter that was not used as it was sent, those timestamps included.
        is_pickup_late: the pickup was received after the end, and has no timestamp. `picked_up_at` is then the end, the latest
            possible time.
        pbx, axis, received: the times by the clock of the PBX, the same completed by receipts that were moved to it, and the
            receipts (see `pbx_clock.py`). No duration mixes them.
        has_pickup_timestamp: PickupTimestampUTC shows a pickup, even if its clock was wrong.
        mixed: the times as the first release has them, for summaries.
    """

    call_type: CallType
    call_id: str
    first_seen_at: str
    state: LegState
    guid: str | None = None
    inferred: bool = False
    started_at: str | None = None
    picked_up_at: str | None = None
    missed_at: str | None = None
    hung_up_at: str | None = None
    recorded: bool = False
    recording_url: str | None = field(default=None, repr=False)
    fields: Mapping[str, str] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    ignored_values: tuple[IgnoredOfLeg, ...] = ()
    is_pickup_late: bool = False
    pbx: ClockTimes = UNKNOWN_TIMES
    axis: ClockTimes = UNKNOWN_TIMES
    received: ClockTimes = UNKNOWN_TIMES
    has_pickup_timestamp: bool = False
    mixed: ClockTimes = UNKNOWN_TIMES

    @property
    def is_over(self) -> bool:
        return self.missed_at is not None or self.hung_up_at is not None

    @property
    def is_ambiguous(self) -> bool:
        """Return whether the leg was hung up and neither picked up nor missed."""
        return self.hung_up_at is not None and self.state is LegState.RINGING

    @property
    def was_answered(self) -> bool:
        return self.state in _ANSWERED

    @property
    def seems_answered(self) -> bool:
        """Return whether the adapter's own values show a pickup. Used if there is no event for it."""
        return read_bit(self.fields.get(Placeholder.IS_ANSWERED, "")) is True or self.has_pickup_timestamp

    @property
    def ring_seconds(self) -> float | None:
        """Return how long the phone rang until it was picked up or missed, by one clock, else by TotalWaitTimeMs."""
        by_clocks = self.rang_since("start")
        return self.wait_seconds if by_clocks is None else by_clocks

    def rang_since(self, what: Literal["start", "pickup"], of: Leg | None = None) -> float | None:
        """Return the seconds from a time of a leg (default: this one) until this leg was picked up or missed.

        Both times are of one clock, the PBX's if it has both. None if no clock has both.
        """
        if self.state is LegState.RINGING:
            return None
        other = of or self
        for times, since in ((self.pbx, other.pbx), (self.axis, other.axis), (self.received, other.received)):
            seconds = seconds_between(getattr(since, what), times.end if self.state is LegState.MISSED else times.pickup)
            if seconds is not None:
                return seconds
        return None

    @property
    def wait_seconds(self) -> float | None:
        """Return how long the phone rang according to TotalWaitTimeMs."""
        wait_ms = read_wait_ms(self.fields.get(Placeholder.TOTAL_WAIT_MS, ""))
        return None if wait_ms is None else wait_ms / 1000


def read_legs(facts: Mapping[str, str]) -> tuple[list[Leg], PbxClock]:
    """Read every leg from the facts of a call, the first seen first, and the clock of the PBX during the call."""
    by_leg = _leg_facts(facts)
    clock = pbx_clock(by_leg.values())
    legs = (_leg(identity, leg_facts, clock) for identity, leg_facts in by_leg.items())
    return sorted(legs, key=in_order), clock


def in_order(leg: Leg) -> tuple[str, str]:
    """Return the key by which legs are sorted: the first seen first."""
    return leg.first_seen_at, leg.call_id


def _leg_facts(facts: Mapping[str, str]) -> dict[tuple[str, str], dict[str, str]]:
    legs: dict[tuple[str, str], dict[str, str]] = {}
    for name, value in facts.items():
        if name.startswith(LEG):
            _, call_type, call_id, what = name.split(":", 3)
            legs.setdefault((call_type, call_id), {})[what] = value
    return legs


def _leg(identity: tuple[str, str], facts: Mapping[str, str], clock: PbxClock) -> Leg:
    """Read one leg from its facts, whose names are relative to the leg."""
    call_type, call_id = identity[0], identity[1].partition(".")[0]  # `77.2` is a CallID used again, see `uses.py`
    times = leg_times(facts, clock)
    picked_up_at = times.picked_up_at
    missed_at, hung_up_at = (_ended_at(facts, event, times, clock) for event in (LegEvent.MISSED, LegEvent.HANGUP))
    is_over = missed_at is not None or hung_up_at is not None
    state = LegState.RINGING
    if LegEvent.PICKUP in facts:
        state = LegState.ENDED if is_over else LegState.TALKING
    elif missed_at is not None:
        state, picked_up_at = LegState.MISSED, None
    is_pickup_late = LegEvent.PICKUP in facts and picked_up_at is None
    return Leg(
        call_type=CallType(call_type),
        call_id=call_id,
        first_seen_at=clock.place(min([facts[event] for event in _RECEIPTS if event in facts])),
        state=state,
        guid=facts.get(GUID),
        started_at=times.started_at,
        picked_up_at=min(filter(None, (hung_up_at, missed_at)), default=None) if is_pickup_late else picked_up_at,
        missed_at=missed_at,
        hung_up_at=hung_up_at,
        recorded=RECORDED in facts,
        recording_url=_recording_url(facts),
        fields=_fields(facts),
        ignored=times.ignored,
        ignored_values=read_ignored(facts, ((_PLACEHOLDERS[what], facts[AT + what]) for what in times.ignored)),
        is_pickup_late=is_pickup_late,
        pbx=times.pbx,
        axis=times.axis,
        received=times.received,
        has_pickup_timestamp=times.has_pickup_timestamp,
        mixed=mixed_times(facts),
    )


def _ended_at(facts: Mapping[str, str], event: LegEvent, times: LegTimes, clock: PbxClock) -> str | None:
    if event not in facts:
        return None
    return times.over_at or clock.place(facts[event])


# If events of one leg have different values, the value of the event later in the leg's life is used.
_LATEST_FIRST = (LegEvent.MISSED, LegEvent.HANGUP, LegEvent.PICKUP, LegEvent.START)
_URLS = [URL + event for event in _LATEST_FIRST]


def _recording_url(facts: Mapping[str, str]) -> str | None:
    """Return the RecordingURL of the latest event that names a recording, preferably one that was not cut.

    If none names a recording, return any: earlier versions kept those too.
    """
    urls = [facts[name] for name in _URLS if name in facts]
    if not urls:
        return None
    links = list(filter(is_link, urls)) or urls[:1]
    return next((link for link in links if not link.endswith(IN_DOUBT)), links[0])


def _fields(facts: Mapping[str, str]) -> dict[str, str]:
    fields: dict[str, str] = {}
    names = sorted([name for name in facts if name.startswith(FIELD)])
    for event in _LATEST_FIRST if names else ():
        prefix = f"{FIELD}{event}."
        for name in names:
            if name.startswith(prefix) and not (value := facts[name]).isspace():
                placeholder = name.removeprefix(prefix)
                fields.setdefault(placeholder, as_number(placeholder, value) if value[:1] == " " else value)
    return fields
