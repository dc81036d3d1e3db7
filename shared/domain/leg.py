"""One leg of a call, read from what was told of it alone; what other legs imply is judged in `call.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from shared.domain.adapter_link import Placeholder
from shared.domain.callback import CallType, LegEvent
from shared.domain.facts import AT, FIELD, GUID, LEG, RECORDED, URL


class LegState(StrEnum):
    """Where a leg stands."""

    RINGING = "ringing"
    TALKING = "talking"
    ENDED = "ended"
    MISSED = "missed"


@dataclass(frozen=True, slots=True)
class Leg:
    """One phone that rang. Times are RFC 3339 UTC with microseconds, or None where nothing told them.

    Attributes:
        inferred: the state follows from other facts, since the event that would tell it did not come.
        recording_url: RecordingURL as sent; a credential.
        fields: every other adapter value by its placeholder name.
        ignored: timestamps of the adapter (`start`, `pickup`, `end`) that contradict the leg's other times.
        is_pickup_late: the pickup was received after the end, and no timestamp tells when it was: `picked_up_at` is the end,
            the latest it can have been.
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
    is_pickup_late: bool = False

    @property
    def is_over(self) -> bool:
        return self.missed_at is not None or self.hung_up_at is not None

    @property
    def is_ambiguous(self) -> bool:
        """Hung up, and nothing tells whether anybody had picked up."""
        return self.hung_up_at is not None and self.state is LegState.RINGING

    @property
    def was_answered(self) -> bool:
        return self.state in (LegState.TALKING, LegState.ENDED)

    @property
    def seems_answered(self) -> bool:
        """What the adapter's own values say where no event tells whether anybody picked up."""
        return self.fields.get(Placeholder.IS_ANSWERED) == "1" or self.picked_up_at is not None

    @property
    def wait_seconds(self) -> float | None:
        """How long it rang, by TotalWaitTimeMs."""
        told = self.fields.get(Placeholder.TOTAL_WAIT_MS, "")
        return int(told) / 1000 if told.isascii() and told.isdigit() and len(told) <= _MAX_WAIT_DIGITS else None


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


def _leg(identity: tuple[str, str], told: Mapping[str, str]) -> Leg:
    """Read one leg from what was told of it alone."""
    call_type, call_id = identity
    receipts = [told[event] for event in LegEvent if event in told]
    started_at, picked_up_at, end, ignored = _times(told)
    missed_at = end or told[LegEvent.MISSED] if LegEvent.MISSED in told else None
    hung_up_at = end or told[LegEvent.HANGUP] if LegEvent.HANGUP in told else None
    is_over = missed_at is not None or hung_up_at is not None
    state = LegState.RINGING
    if LegEvent.PICKUP in told:
        state = LegState.ENDED if is_over else LegState.TALKING
    elif missed_at is not None:
        state, picked_up_at = LegState.MISSED, None
    is_pickup_late = LegEvent.PICKUP in told and picked_up_at is None
    return Leg(
        call_type=CallType(call_type),
        call_id=call_id,
        first_seen_at=min(receipts),
        state=state,
        guid=told.get(GUID),
        started_at=started_at,
        picked_up_at=hung_up_at or missed_at if is_pickup_late else picked_up_at,
        missed_at=missed_at,
        hung_up_at=hung_up_at,
        recorded=RECORDED in told,
        recording_url=next((told[URL + event] for event in _LATEST_FIRST if URL + event in told), None),
        fields=_fields(told),
        ignored=ignored,
        is_pickup_late=is_pickup_late,
    )


def _times(told: Mapping[str, str]) -> tuple[str | None, str | None, str | None, tuple[str, ...]]:
    """Tell when a leg started, was picked up, and ended by the adapter (not by receipt); and which timestamps were ignored.

    The adapter's own timestamps win over times of receipt, unless they contradict each other or, where only some are sent,
    the receipts of what came before, or of the end. A pickup that is received after the end was before it, and its receipt tells
    no more than that: it is no time of pickup, and contradicts none.
    """
    at = {what: told[AT + what] for what in ("start", "pickup", "end") if AT + what in told}
    receipts = {"start": told.get(LegEvent.START), "pickup": told.get(LegEvent.PICKUP)}
    over = told.get(LegEvent.HANGUP) or told.get(LegEvent.MISSED)
    if over is not None and over < told.get(LegEvent.PICKUP, over):
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
    over_at = end or min((told[event] for event in (LegEvent.HANGUP, LegEvent.MISSED) if event in told), default=None)
    if over_at is not None and at.get("pickup", over_at) > over_at:
        ignored.append("pickup")
        picked_up_at = receipts["pickup"]
    if over_at is not None and at.get("start", over_at) > over_at:
        ignored.append("start")
        started_at = receipts["start"]
    return started_at, picked_up_at, end, tuple(ignored)


_MAX_WAIT_DIGITS = 9
# Where events of one leg tell different values, the later event in a leg's life knows better.
_LATEST_FIRST = (LegEvent.MISSED, LegEvent.HANGUP, LegEvent.PICKUP, LegEvent.START)


def _fields(told: Mapping[str, str]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for event in _LATEST_FIRST:
        prefix = f"{FIELD}{event}."
        for name in sorted(told):
            if name.startswith(prefix):
                fields.setdefault(name.removeprefix(prefix), told[name])
    return fields
