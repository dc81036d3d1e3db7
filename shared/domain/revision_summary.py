"""The summary of a revision: it decides whether new facts amend the record, and fixes file names for later revisions.

Workers of several releases share the summaries. The first release compares every value but `filed_at`, `guids` and `asked`. So
these values keep the meaning they had, and a value that it does not know is in `asked`. There, a value counts only if both
summaries have it. So no release amends a call only because the other one has published it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import orjson

from shared.domain.annotation import digest_of_all
from shared.domain.call import Call
from shared.domain.call_event import E164, SIDES, dial_of, leg_identity, parties_of, sides_of
from shared.domain.file_names import LegIds, guid_owners
from shared.domain.ids import is_request_id
from shared.domain.leg import Leg, LegState
from shared.domain.leg_event import CallType
from shared.domain.parties import EndedBy

_DIAL_FIELDS = ("reference", "metadata", "dial")
_WITH_URL = " with URL"
_IDENTITY_FIELDS = ("call_id", "extension", "name", "user_id", "number")
_ANNOTATIONS = "annotations"
_NEWER = "record"  # in `asked`, whose other names are those of legs, as `API/1`


def summary(call: Call, before: str = "", record_legs: Collection[str] = ()) -> str:
    """Return the values of which a change amends the record, see docs/record.md.

    The summary also keeps the recordings that were requested, by the sides that the source has recorded. From `before`, the last
    summary, it takes over what stays fixed: these requests, the date by which recordings are filed, and their file names.
    """
    if call.closing is None:
        raise ValueError(f"{call.key} is still open")
    all_legs = [(leg_key(leg), recorded(leg), leg) for leg in call.legs]
    has_dialed = has_dialed_leg(call.key.call, call.legs)
    content = {
        "outcome": call.closing.outcome,
        "complete": call.closing.complete,
        "talk_seconds": call.mixed_talk_seconds,
        "legs": {
            key: [compared_state(leg, leg.state, is_inferred=leg.inferred, is_over=leg.is_over, has_dialed=has_dialed), recording]
            for key, recording, leg in all_legs
        },
    }
    asked = dict(requested_recordings(call, before, record_legs))
    asked |= {leg_key(leg): recorded(leg) for side, leg in sides_of(call) if leg.recorded and is_wanted(side, record_legs)}
    legs = {side: leg and leg_identity(call, leg) for side, leg in zip(SIDES, (call.agent, call.dialed), strict=True)}
    talk = {"talk_seconds": call.talk_seconds}
    content |= dial_summary(dial_of(call))
    states = {key: leg.state for key, _, leg in all_legs}
    annotations = digest_of_all(each.digest for each in call.annotations)
    content |= {
        "asked": with_newer_values(asked, parties_of(call) | legs | talk, states, annotations),
        "filed_at": filed_at(call, before),
        "guids": guids(call, before),
    }
    return orjson.dumps(content, option=orjson.OPT_SORT_KEYS).decode()


def has_dialed_leg(call: str, legs: Iterable[Leg]) -> bool:
    """Return whether a call is a pair with a dialed leg."""
    return is_request_id(call) and any(leg.call_type is CallType.OUTGOING for leg in legs)


def compared_state(leg: Leg, state: str, *, is_inferred: bool, is_over: bool, has_dialed: bool) -> str:
    """Return a state as the first release has it: if a number was dialed, every agent leg without pickup and missed was answered.

    `state` is the one of a record, `has_dialed` says whether the call is a pair with a dialed leg.
    """
    is_silent = state == LegState.RINGING or (is_inferred and state == LegState.MISSED)
    if is_silent and has_dialed and leg.call_type is CallType.API:
        return LegState.ENDED if is_over else LegState.TALKING
    return state


def with_newer_values(
    asked: Mapping[str, str], record: Mapping[str, Any], states: Mapping[str, str], annotations: str
) -> dict[str, object]:
    """Return `asked` with the values of a record that the first release does not have; there are none if it wrote the record.

    `annotations` is the digest of all annotations in the record.
    """
    if not is_newer(record):
        return dict(asked)
    newer: dict[str, object] = {"states": states}
    newer |= {name: record[name] for name in ("call_type", "queue", "talk_seconds")}
    if record["ended_by"] != EndedBy.UNKNOWN:  # between this and a side there may be a fraction of a second
        newer["ended_by"] = record["ended_by"]
    for side in SIDES:
        leg = record[side] or {"call_id": None}
        newer |= {f"{side}.{name}": leg[name] for name in _IDENTITY_FIELDS if name in leg}
    newer |= {_ANNOTATIONS: annotations} if annotations else {}
    return {**asked, _NEWER: newer}


def is_newer(record: Mapping[str, Any]) -> bool:
    """Return whether a release after the first one has written a record."""
    return "ended_by" in record


def dial_summary(record: Mapping[str, object]) -> dict[str, object]:
    """Return the part of a summary about the dial request; empty if the call was not dialed."""
    fields = {name: record[name] for name in _DIAL_FIELDS if record.get(name)}
    if isinstance(dial := fields.get("dial"), Mapping):
        fields["dial"] = {name: value for name, value in dial.items() if name != E164}  # it follows from the number
    return fields


def filed_at(call: Call, before: str) -> str:
    """Return the start time by whose date a call's recordings are filed; later revisions do not move them."""
    return str(orjson.loads(before)["filed_at"]) if before else call.started_at


def guids(call: Call, before: str) -> dict[str, str]:
    """Return the CallID of the leg that each GUID names in the archive; later revisions do not change it."""
    content = orjson.loads(before) if before else {"guids": {}}
    return guid_owners(ids_of(call), content["guids"] if "guids" in content else _guids_of_old_summary(content["legs"]))


def _guids_of_old_summary(legs: Mapping[str, tuple[str, str]]) -> dict[str, str]:
    """Return the same for a summary that an earlier version wrote, from the GUIDs of its recordings."""
    owners: dict[str, str] = {}
    for key, (_, name) in legs.items():
        call_id, guid = key.rpartition("/")[2], name.removesuffix(_WITH_URL)
        if guid not in {"", call_id}:
            owners.setdefault(guid, call_id)
    return owners


def ids_of(call: Call) -> list[LegIds]:
    """Return the ids that can name the legs of a call, in the order in which names are assigned."""
    return [LegIds(leg.guid, leg.call_id) for _, leg in sides_of(call)]


def amends(before: str, after: str) -> bool:
    """Return whether a summary has changed. A difference in talk time of less than a second is not a change.

    Talk times come from times of receipt, and of a repeated callback the earliest may be folded last.
    """
    if not before:  # a rebuild restored the revision without a summary
        return True
    if before == after:
        return False
    old, new = orjson.loads(before), orjson.loads(after)
    newer = [_newer(content) for content in (old, new)]
    for content in (old, new):
        del content["filed_at"]
        for name in ("guids", "asked"):  # absent in summaries of earlier versions
            content.pop(name, None)
    talk_seconds = [content.pop("talk_seconds") for content in (old, new)]
    if all("talk_seconds" in values for values in newer):
        talk_seconds = [values.pop("talk_seconds") for values in newer]
    # Unlike other values, the annotations of a summary without any are known: an earlier release publishes none.
    if len({values.get(_ANNOTATIONS) for values in newer}) > 1:
        return True
    if old != new or any(newer[0][name] != newer[1][name] for name in newer[0].keys() & newer[1].keys()):
        return True
    if None in talk_seconds:
        return bool(talk_seconds[0] != talk_seconds[1])
    return bool(abs(talk_seconds[0] - talk_seconds[1]) >= 1)


def _newer(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values in a summary that the first release does not have; none if it has written the summary."""
    asked = content.get("asked")
    newer = asked.get(_NEWER) if isinstance(asked, dict) else None
    return newer if isinstance(newer, dict) else {}


def recorded(leg: Leg) -> str:
    """Return the recording of a leg for a summary, or "": its GUID or CallID, and whether there is a RecordingURL."""
    return f"{leg.guid or leg.call_id}{_WITH_URL if leg.recording_url else ''}" if leg.recorded else ""


def is_wanted(side: str, record_legs: Collection[str]) -> bool:
    """Return whether a source wants the recordings of a side; those of `other` legs are always wanted."""
    return side in record_legs or side == "other"


def requested_recordings(call: Call, before: str, record_legs: Collection[str]) -> set[tuple[str, str]]:
    """Return the legs and recordings that the jobs of the revisions up to the last summary requested.

    Two legs may have the same GUID, so the recording alone does not identify the leg.
    """
    if not before:
        return set()
    content = orjson.loads(before)
    if isinstance(content.get("asked"), dict):
        return {(key, name) for key, name in content["asked"].items() if key != _NEWER}
    legs: Mapping[str, tuple[str, str]] = content["legs"]
    requested = content["asked"] if "asked" in content else _requested_by_old_summary(call, list(legs), record_legs)
    return {(key, name) for key, (_, name) in legs.items() if name and key in requested}


def _requested_by_old_summary(call: Call, legs: Sequence[str], record_legs: Collection[str]) -> set[str]:
    """Return the legs that a summary of an earlier version requested: those of the sides that are wanted now.

    If a type has several legs, it is unknown which of them was the side, so all of them count as requested.
    """
    sides = (
        {CallType.API: "agent", CallType.OUTGOING: "dialed"} if is_request_id(call.key.call) else dict.fromkeys(CallType, "agent")
    )
    types = [CallType(key.partition("/")[0]) for key in legs]
    return {
        key
        for key, kind in zip(legs, types, strict=True)
        if types.count(kind) > 1 or is_wanted(sides.get(kind, "other"), record_legs)
    }


def leg_key(leg: Leg) -> str:
    """Return the name of a leg in a summary."""
    return f"{leg.call_type}/{leg.call_id}"
