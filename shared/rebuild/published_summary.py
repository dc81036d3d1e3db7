"""Recovery of the summary of a published revision from its event, for a rebuild of Redis."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import orjson

from shared.domain.annotation import digest_of, digest_of_all
from shared.domain.call import Call
from shared.domain.call_event import SIDES
from shared.domain.facts import AT, LEG, URL
from shared.domain.file_names import LegIds, Owners, guid_owners
from shared.domain.leg import Leg
from shared.domain.leg_event import LegEvent
from shared.domain.revision_summary import (
    compared_state,
    dial_summary,
    has_dialed_leg,
    is_newer,
    is_wanted,
    leg_key,
    recorded,
    with_newer_values,
)

Record = Mapping[str, Any]
"""The `data` of a call event."""

Place = tuple[str, str | None]
"""The side of a recorded leg in one revision, and its GUID."""

Places = Mapping[str, Mapping[int, Place]]
"""The places of recorded legs, by CallID and revision."""

# The field of a leg in a record that proves that an event was known at publication. Nothing proves `start`.
_TIME_FIELDS = {LegEvent.PICKUP: "picked_up_at", LegEvent.MISSED: "missed_at", LegEvent.HANGUP: "hung_up_at"}


def ids_of(record: Record) -> list[LegIds]:
    """List the ids of a record's legs, in the order in which file names are settled."""
    legs = (record["agent"], record["dialed"], *record["other_legs"])
    return [LegIds(leg["guid"] or None, str(leg["call_id"])) for leg in legs if leg]


def places_of(record: Record) -> dict[str, Place]:
    """Return the place of each recorded leg in a record, by CallID."""
    legs = [*((side, record[side]) for side in SIDES), *(("other", leg) for leg in record["other_legs"])]
    return {str(leg["call_id"]): (side, leg["guid"] or None) for side, leg in legs if leg and leg["recorded"]}


def annotation_digest(annotation: Record) -> str:
    """Return the digest of an annotation in a record, or in one that a rebuild keeps without bodies."""
    return str(annotation["digest"]) if "digest" in annotation else digest_of(annotation)


def requested_place(places: Mapping[int, Place], record_legs: Collection[str]) -> Place | None:
    """Return the place in the last revision that requested the recording of a leg; None if no revision did."""
    revisions = [revision for revision, (side, _) in places.items() if is_wanted(side, record_legs)]
    return places[max(revisions)] if revisions else None


def published_summary(
    record: Record,
    filed_at: str,
    facts: Mapping[str, str],
    call: Call,
    *,
    owners: Owners | None = None,
    record_legs: Collection[str] = (),
    places: Places | None = None,
) -> str | None:
    """Return the summary of a published record, as `shared/domain/revision_summary.py` wrote it at publication.

    Returns None if the facts lack a leg or an event that the record has: then they begin in the middle of the call. They may
    have more than the record. Values of a leg that no record contains come from the `call` derived from the facts.

    `filed_at` and `owners` are what earlier revisions settled (see `shared/domain/file_names.py`). `record_legs` are the sides
    to be recorded. No event contains them, so the current setting is taken. `places` are those of each leg in all revisions: a
    recording that one of them requested stays requested.
    """
    legs: dict[str, list[str]] = {}
    asked: dict[str, str] = {}
    states: dict[str, str] = {}
    sides = [*((side, record[side]) for side in SIDES), *(("other", leg) for leg in record["other_legs"])]
    known = [(side, each, _find(each, call, facts)) for side, each in sides if each is not None]
    has_dialed = has_dialed_leg(call.key.call, [leg for _, _, leg in known if leg])
    for side, published, leg in known:
        if leg is None:
            return None
        had_url = any(published[at] and _prefix(leg) + URL + event in facts for event, at in _TIME_FIELDS.items())
        then = replace(
            leg, guid=published["guid"], recorded=published["recorded"], recording_url=leg.recording_url if had_url else None
        )
        state = compared_state(
            leg,
            published["state"],
            is_inferred=bool(published.get("inferred")),
            is_over=bool(published["missed_at"] or published["hung_up_at"]),
            has_dialed=has_dialed,
        )
        legs[leg_key(leg)], states[leg_key(leg)] = [state, recorded(then)], published["state"]
        if then.recorded:
            place = requested_place({**(places or {}).get(leg.call_id, {}), record["revision"]: (side, then.guid)}, record_legs)
            if place is not None:
                asked[leg_key(leg)] = recorded(replace(then, guid=place[1]))
    fields = {name: record[name] for name in ("outcome", "complete")}
    fields["talk_seconds"] = call.mixed_talk_seconds if is_newer(record) else record["talk_seconds"]
    annotations = digest_of_all(map(annotation_digest, record.get("annotations", ())))
    fields |= dial_summary(record) | {"asked": with_newer_values(asked, record, states, annotations), "legs": legs}
    fields |= {"filed_at": filed_at, "guids": guid_owners(ids_of(record), owners or {})}
    return orjson.dumps(fields, option=orjson.OPT_SORT_KEYS).decode()


def _find(published: Record, call: Call, facts: Mapping[str, str]) -> Leg | None:
    """Return the leg of a call that a record has; None if the facts lack one of its events."""
    kind = published.get("call_type")  # absent in records of the first release
    legs = (leg for leg in call.legs if leg.call_id == published["call_id"] and kind in {None, leg.call_type})
    return next((leg for leg in legs if _is_known(leg, published, facts)), None)


def _is_known(leg: Leg, published: Record, facts: Mapping[str, str]) -> bool:
    """Return whether the facts have every event that this leg's record was made of."""
    prefix = _prefix(leg)
    return all(
        not published[at] or prefix + event in facts or (event is LegEvent.PICKUP and prefix + AT + "pickup" in facts)
        for event, at in _TIME_FIELDS.items()
    )


def _prefix(leg: Leg) -> str:
    return f"{LEG}{leg.call_type}:{leg.call_id}:"
