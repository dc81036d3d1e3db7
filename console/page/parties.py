"""Who called whom: the people of a call and of each leg, as its record names them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from console.call_query import JsonObject, row_of
from shared.domain.call import Status
from shared.domain.leg_event import CallType


@dataclass(frozen=True, slots=True)
class Parties:
    """The two ends of a call: `first` called `second`. None if it is not known.

    Attributes:
        number_e164: the international form of the number, if it differs from the number.
    """

    first: str | None
    second: str | None
    number_e164: str | None = None


def parties_of(record: JsonObject, call: str) -> Parties:
    """Name the ends of a call as a search lists them."""
    row = row_of(record, call, Status.COMPLETE)
    agent = _person(row.agent_name, row.agent)
    first, second = (row.number, agent) if row.call_type == CallType.INCOMING else (agent, row.number)
    return Parties(first, second, row.number_e164 if row.number_e164 != row.number else None)


def people_of(record: JsonObject) -> Mapping[str, str]:
    """Name who was on each leg, by CallID: the person if the record names one, else the number."""
    named = {leg["call_id"]: _person(leg.get("name"), leg.get("extension")) or leg.get("number") for leg in _legs(record)}
    return {call_id: name for call_id, name in named.items() if name}


def ring_seconds_of(record: JsonObject) -> Mapping[str, float]:
    """Return how long each leg rang, by CallID, as far as it is known."""
    rang = {leg["call_id"]: leg.get("ring_seconds") for leg in _legs(record)}
    return {call_id: seconds for call_id, seconds in rang.items() if seconds is not None}


def _legs(record: JsonObject) -> list[Mapping[str, Any]]:
    return [leg for leg in (record["agent"], record["dialed"], *record["other_legs"]) if leg]


def _person(name: str | None, extension: str | None) -> str | None:
    """Write `Kasper Jensen (1001)`, or what is known of it."""
    if name and extension and name != extension:
        return f"{name} ({extension})"
    return name or extension
