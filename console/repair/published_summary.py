"""What was published of a call, read back from its event: what a rebuild takes for the truth about revisions."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import orjson

from shared.domain.amendment import dial_summary, is_wanted, leg_key, recorded
from shared.domain.call import Call
from shared.domain.call_event import SIDES
from shared.domain.callback import LegEvent
from shared.domain.facts import AT, LEG, URL
from shared.domain.file_names import LegIds, Owners, guid_owners
from shared.domain.leg import Leg

Record = Mapping[str, Any]
"""The `data` of a call event."""

# What in a record's leg tells that an event was known when it was published; start is told by nothing.
_TOLD_BY = {LegEvent.PICKUP: "picked_up_at", LegEvent.MISSED: "missed_at", LegEvent.HANGUP: "hung_up_at"}


def ids_of(record: Record) -> list[LegIds]:
    """List what the legs of a record can be named by, in the order in which names are settled."""
    legs = (record["agent"], record["dialed"], *record["other_legs"])
    return [LegIds(leg["guid"] or None, str(leg["call_id"])) for leg in legs if leg]


def published_summary(
    record: Record,
    filed_at: str,
    facts: Mapping[str, str],
    call: Call,
    *,
    owners: Owners | None = None,
    record_legs: Collection[str] = (),
) -> str | None:
    """Sum up a published record as `summary.py` did then; None where the facts do not bear it out.

    `filed_at` and `owners` are what earlier revisions settled: see `naming.py`. `record_legs` are the sides that were wanted: no
    event tells them, so they are taken to be those that are wanted now.

    By now the facts may tell more than the record, but not less: a leg, or an event of it, that only the record knows says that
    these facts begin in the middle of the call. What a record does not tell of a leg is taken from the `call` they make.
    """
    legs: dict[str, list[str]] = {}
    asked: list[str] = []
    sides = [*((side, record[side]) for side in SIDES), *(("other", leg) for leg in record["other_legs"])]
    for side, told in sides:
        if told is None:
            continue
        leg = next((leg for leg in call.legs if leg.call_id == told["call_id"] and _is_known(leg, told, facts)), None)
        if leg is None:
            return None
        had_url = any(told[at] and _place(leg) + URL + event in facts for event, at in _TOLD_BY.items())
        then = replace(leg, guid=told["guid"], recorded=told["recorded"], recording_url=leg.recording_url if had_url else None)
        legs[leg_key(leg)] = [told["state"], recorded(then)]
        if then.recorded and is_wanted(side, record_legs):
            asked.append(leg_key(leg))
    summed_up = {name: record[name] for name in ("outcome", "complete", "talk_seconds")}
    summed_up |= dial_summary(record) | {"asked": sorted(asked), "legs": legs}
    summed_up |= {"filed_at": filed_at, "guids": guid_owners(ids_of(record), owners or {})}
    return orjson.dumps(summed_up, option=orjson.OPT_SORT_KEYS).decode()


def _is_known(leg: Leg, told: Record, facts: Mapping[str, str]) -> bool:
    """Tell whether the facts of a leg have every event that its record was made of."""
    place = _place(leg)
    return all(
        not told[at] or place + event in facts or (event is LegEvent.PICKUP and place + AT + "pickup" in facts)
        for event, at in _TOLD_BY.items()
    )


def _place(leg: Leg) -> str:
    return f"{LEG}{leg.call_type}:{leg.call_id}:"
