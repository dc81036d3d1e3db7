"""One leg of a call, read from its own facts alone. `call.py` infers what other legs imply."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from shared.domain.adapter_link import Placeholder
from shared.domain.callback import CallType, LegEvent
from shared.domain.callback_values import read_bit, read_wait_ms
from shared.domain.facts import AT, FIELD, GUID, LEG, RECORDED, URL
from shared.domain.ignored import IgnoredOfLeg, read_ignored
from shared.domain.times import seconds_between

_TIMESTAMPS = {"start": Placeholder.STARTED.value, "pickup": Placeholder.PICKED_UP.value, "end": Placeholder.ENDED.value}


class LegState(StrEnum):
    """State of a leg."""

    RINGING = "ringing"
    TALKING = "talking"
    ENDED = "ended"
    MISSED = "missed"


@dataclass(frozen=True, slots=True)
class ClockTimes:
    """Start, pickup and end of one leg by one clock: RFC 3339 UTC, or None if this clock does not know them."""

    start: str | None = None
    pickup: str | None = None
    end: str | None = None


@dataclass(frozen=True, slots=True)
class Leg:
    """One phone that rang. Times are RFC 3339 UTC with microseconds, or None if unknown.

    Attributes:
        inferred: the event for this state is missing, and the state follows from other facts.
        recording_url: RecordingURL as sent; a credential.
        fields: every other adapter value by its placeholder name.
        ignored: timestamps of the adapter (`start`, `pickup`, `end`) that contradict the leg's other times.
        ignored_values: every value of the adapter that was not used as it was sent, those timestamps included.
        is_pickup_late: the pickup was received after the end, and has no timestamp. `picked_up_at` is then the end, the latest
            possible time.
        pbx: the times by the timestamps of the adapter, without the ignored ones.
        received: the times by the receipts of the events, without those that say nothing about the time of the event.
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
    pbx: ClockTimes = ClockTimes()
    received: ClockTimes = ClockTimes()

    @property
    def is_over(self) -> bool:
        return self.missed_at is not None or self.hung_up_at is not None

    @property
    def is_ambiguous(self) -> bool:
        """Return whether the leg was hung up and neither picked up nor missed."""
        return self.hung_up_at is not None and self.state is LegState.RINGING

    @property
    def was_answered(self) -> bool:
        return self.state in (LegState.TALKING, LegState.ENDED)

    @property
    def seems_answered(self) -> bool:
        """Return whether the adapter's own values show a pickup. Used if there is no event for it."""
        return read_bit(self.fields.get(Placeholder.IS_ANSWERED, "")) is True or self.picked_up_at is not None

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
        for times, since in ((self.pbx, other.pbx), (self.received, other.received)):
            seconds = seconds_between(getattr(since, what), times.end if self.state is LegState.MISSED else times.pickup)
            if seconds is not None:
                return seconds
        return None

    @property
    def wait_seconds(self) -> float | None:
        """Return how long the phone rang according to TotalWaitTimeMs."""
        wait_ms = read_wait_ms(self.fields.get(Placeholder.TOTAL_WAIT_MS, ""))
        return None if wait_ms is None else wait_ms / 1000


def read_legs(facts: Mapping[str, str]) -> list[Leg]:
    """Read every leg from the facts of a call, the first seen first."""
    legs = (_leg(*named) for named in _leg_facts(facts).items())
    return sorted(legs, key=lambda leg: (leg.first_seen_at, leg.call_id))


def _leg_facts(facts: Mapping[str, str]) -> dict[tuple[str, str], dict[str, str]]:
    legs: dict[tuple[str, str], dict[str, str]] = {}
    for name, value in facts.items():
        if name.startswith(LEG):
            _, call_type, call_id, what = name.split(":", 3)
            legs.setdefault((call_type, call_id), {})[what] = value
    return legs


def _leg(identity: tuple[str, str], facts: Mapping[str, str]) -> Leg:
    """Read one leg from its facts, whose names are relative to the leg."""
    call_type, call_id = identity
    receipts = [facts[event] for event in LegEvent if event in facts]
    started_at, picked_up_at, end, ignored = _times(facts)
    missed_at = end or facts[LegEvent.MISSED] if LegEvent.MISSED in facts else None
    hung_up_at = end or facts[LegEvent.HANGUP] if LegEvent.HANGUP in facts else None
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
        first_seen_at=min(receipts),
        state=state,
        guid=facts.get(GUID),
        started_at=started_at,
        picked_up_at=hung_up_at or missed_at if is_pickup_late else picked_up_at,
        missed_at=missed_at,
        hung_up_at=hung_up_at,
        recorded=RECORDED in facts,
        recording_url=next((facts[URL + event] for event in _LATEST_FIRST if URL + event in facts), None),
        fields=_fields(facts),
        ignored=ignored,
        ignored_values=read_ignored(facts, ((_TIMESTAMPS[what], facts[AT + what]) for what in ignored)),
        is_pickup_late=is_pickup_late,
        pbx=ClockTimes(*(None if what in ignored else facts.get(AT + what) for what in ("start", "pickup", "end"))),
        received=_received(facts),
    )


def _received(facts: Mapping[str, str]) -> ClockTimes:
    """Return the times by receipt. The receipt of a pickup after the end is no time of pickup."""
    end = min((facts[event] for event in (LegEvent.HANGUP, LegEvent.MISSED) if event in facts), default=None)
    pickup = facts.get(LegEvent.PICKUP)
    return ClockTimes(facts.get(LegEvent.START), None if pickup is None or (end or pickup) < pickup else pickup, end)


def _times(facts: Mapping[str, str]) -> tuple[str | None, str | None, str | None, tuple[str, ...]]:
    """Return when a leg started, was picked up and ended (by the adapter, not by receipt), and the ignored timestamps.

    The adapter's timestamps take precedence over times of receipt. They are ignored if they contradict each other. If only some
    are sent, they are also ignored if they contradict the receipt of an earlier event or of the end.
    A pickup that is received after the end took place before it. Its time of receipt is then neither a time of pickup nor a
    contradiction.
    """
    at = {what: facts[AT + what] for what in ("start", "pickup", "end") if AT + what in facts}
    receipts = {"start": facts.get(LegEvent.START), "pickup": facts.get(LegEvent.PICKUP)}
    over = facts.get(LegEvent.HANGUP) or facts.get(LegEvent.MISSED)
    if over is not None and over < facts.get(LegEvent.PICKUP, over):
        receipts["pickup"] = None
    ignored: list[str] = []
    if "start" in at and at.get("pickup", at["start"]) < at["start"]:
        ignored.append("pickup")
        del at["pickup"]
    picked_up_at = at.get("pickup", receipts["pickup"])
    if "start" in at and picked_up_at is not None and picked_up_at < at["start"]:
        ignored.append("start")
        del at["start"]
    started_at = at.get("start", receipts["start"])
    end = at.get("end")
    if end is not None and end < max(started_at or end, picked_up_at or end):
        ignored.append("end")
        end = None
    over_at = end or min((facts[event] for event in (LegEvent.HANGUP, LegEvent.MISSED) if event in facts), default=None)
    if over_at is not None and at.get("pickup", over_at) > over_at:
        ignored.append("pickup")
        picked_up_at = receipts["pickup"]
    if over_at is not None and at.get("start", over_at) > over_at:
        ignored.append("start")
        started_at = receipts["start"]
    return started_at, picked_up_at, end, tuple(ignored)


# If events of one leg have different values, the value of the event later in the leg's life is used.
_LATEST_FIRST = (LegEvent.MISSED, LegEvent.HANGUP, LegEvent.PICKUP, LegEvent.START)


def _fields(facts: Mapping[str, str]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for event in _LATEST_FIRST:
        prefix = f"{FIELD}{event}."
        for name in sorted(facts):
            if name.startswith(prefix):
                fields.setdefault(name.removeprefix(prefix), facts[name])
    return fields
