"""What a revision is summed up by: whether facts amend it, and what it settled for all later ones."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import orjson

from shared.domain.call import Call, is_request_id
from shared.domain.call_event import dial_of, sides_of
from shared.domain.callback import CallType
from shared.domain.file_names import LegIds, guid_owners
from shared.domain.leg import Leg

# Of a record: what a dial request told.
_DIAL_TOLD = ("reference", "metadata", "dial")
_WITH_URL = " with URL"


def summary(call: Call, before: str = "", record_legs: Collection[str] = ()) -> str:
    """Sum up what a change of amends a record: outcome, completeness, the legs' states and recordings, talk time, the dial.

    It also keeps what the revisions so far, summed up in `before`, settled for all later ones: the time by which recordings are
    filed, and the names of their files; and, by the sides that the source has recorded, whose recordings it asks for.
    """
    if call.closing is None:
        raise ValueError(f"{call.key} is still open")
    legs = {leg_key(leg): [leg.state, recorded(leg)] for leg in call.legs}
    told = {"outcome": call.closing.outcome, "complete": call.closing.complete, "talk_seconds": call.talk_seconds, "legs": legs}
    asked = [leg_key(leg) for side, leg in sides_of(call) if leg.recorded and is_wanted(side, record_legs)]
    told |= dial_told(dial_of(call)) | {"asked": sorted(asked), "filed_at": filed_at(call, before), "guids": guids(call, before)}
    return orjson.dumps(told, option=orjson.OPT_SORT_KEYS).decode()


def dial_told(record: Mapping[str, object]) -> dict[str, object]:
    """Tell what a record says of its dial request, for a summary; of a call that was not dialed there is nothing."""
    return {name: record[name] for name in _DIAL_TOLD if record.get(name)}


def filed_at(call: Call, before: str) -> str:
    """Tell the start time by whose date a call's recordings are filed; later revisions do not move them."""
    return str(orjson.loads(before)["filed_at"]) if before else call.started_at


def guids(call: Call, before: str) -> dict[str, str]:
    """Tell which leg, by its CallID, each GUID names in the archive; later revisions do not change it."""
    told = orjson.loads(before) if before else {"guids": {}}
    return guid_owners(ids_of(call), told["guids"] if "guids" in told else _guids_before(told["legs"]))


def _guids_before(legs: Mapping[str, tuple[str, str]]) -> dict[str, str]:
    """Tell what a summary settled that was written before an upgrade: the GUIDs of its recordings name the legs they are of."""
    owners: dict[str, str] = {}
    for key, (_, name) in legs.items():
        call_id, guid = key.rpartition("/")[2], name.removesuffix(_WITH_URL)
        if guid not in {"", call_id}:
            owners.setdefault(guid, call_id)
    return owners


def ids_of(call: Call) -> list[LegIds]:
    """List what the legs of a call can be named by, in the order in which names are settled."""
    return [LegIds(leg.guid, leg.call_id) for _, leg in sides_of(call)]


def amends(before: str, after: str) -> bool:
    """Tell whether what a summary tells has changed. Talk times that differ by less than a second have not.

    They are times of receipt, and the earliest of a callback that came twice may be folded last.
    """
    if not before:  # sealed by a rebuild that knew no more than the revision
        return True
    if before == after:
        return False
    old, new = orjson.loads(before), orjson.loads(after)
    for told in (old, new):
        del told["filed_at"]
        for name in ("guids", "asked"):  # written before an upgrade, it has none
            told.pop(name, None)
    talked = [told.pop("talk_seconds") for told in (old, new)]
    if None in talked:
        return bool(old != new or talked[0] != talked[1])
    return bool(old != new or abs(talked[0] - talked[1]) >= 1)


def recorded(leg: Leg) -> str:
    """Name the recording of a leg, or nothing: its GUID tells where it goes, a RecordingURL that it can be had."""
    return f"{leg.guid or leg.call_id}{_WITH_URL if leg.recording_url else ''}" if leg.recorded else ""


def is_wanted(side: str, record_legs: Collection[str]) -> bool:
    """Tell whether a source wants the recordings of a side; `other` legs are nobody's choice, and always wanted."""
    return side in record_legs or side == "other"


def had_recordings(call: Call, summed_up: str, record_legs: Collection[str]) -> set[tuple[str, str]]:
    """List the legs, each with the name of its recording, which the jobs published with a summary asked for.

    Two legs may say that they have one GUID, so the name alone does not tell whose recording was fetched.
    """
    told = orjson.loads(summed_up) if summed_up else {"legs": {}}
    legs: Mapping[str, tuple[str, str]] = told["legs"]
    asked = told["asked"] if "asked" in told else _asked_before(call, list(legs), record_legs)
    return {(key, name) for key, (_, name) in legs.items() if name and key in asked}


def _asked_before(call: Call, legs: Sequence[str], record_legs: Collection[str]) -> set[str]:
    """Tell for which legs a summary asked that was written before an upgrade: for those of sides that are wanted now.

    Of several legs of one type one was the side's, and nobody knows which: they count as asked for.
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
    """Name a leg in a summary."""
    return f"{leg.call_type}/{leg.call_id}"
