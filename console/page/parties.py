"""Who called whom: the people of a call and of each leg, as its record names them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from console.call_query import JsonObject, row_of
from shared.domain.call import Status

_INCOMING = "Incoming"


@dataclass(frozen=True, slots=True)
class Parties:
    """The two ends of a call: `first` called `second`. None if it is not known.

    Attributes:
        number_e164: the international form of the number, if it differs from the number.
    """

    first: str | None
    second: str | None
    agent: str | None = None
    number: str | None = None
    number_e164: str | None = None


def parties_of(record: JsonObject, call: str) -> Parties:
    """Name the ends of a call. What the record does not name itself is taken from the dial request, else from the fields."""
    row = row_of(record, call, Status.COMPLETE)
    agent_leg, far_leg = record["agent"] or {}, record["dialed"] or {}
    agent = _person(agent_leg) or row.agent
    number = far_leg.get("number") or agent_leg.get("number") or row.number
    e164 = far_leg.get("number_e164") or agent_leg.get("number_e164")
    first, second = (number, agent) if record.get("call_type") == _INCOMING else (agent, number)
    return Parties(first, second, agent, number, e164 if e164 != number else None)


def people_of(record: JsonObject) -> Mapping[str, str]:
    """Name who was on each leg, by CallID: the person if the record names one, else the number."""
    legs: list[Mapping[str, Any]] = [leg for leg in (record["agent"], record["dialed"], *record["other_legs"]) if leg]
    named = {leg["call_id"]: _person(leg) or leg.get("number") for leg in legs}
    return {call_id: name for call_id, name in named.items() if name}


def _person(leg: Mapping[str, Any]) -> str | None:
    """Write `Kaspar Hauser (1001)`, or what is known of it."""
    name, extension = leg.get("name"), leg.get("extension")
    if name and extension and name != extension:
        return f"{name} ({extension})"
    return name or extension
