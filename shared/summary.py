"""What a revision is summed up by: whether facts amend it, and what it settled for all later ones."""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from shared.call import Call
from shared.leg import Leg
from shared.naming import LegIds, settled
from shared.records import dial_of, sides_of

# Of a record: what a dial request told.
_DIAL_TOLD = ("reference", "metadata", "dial")
_WITH_URL = " with URL"


def summary(call: Call, before: str = "") -> str:
    """Sum up what a change of amends a record: outcome, completeness, the legs' states and recordings, talk time, the dial.

    It also keeps what the revisions so far, summed up in `before`, settled for all later ones: the time by which recordings are
    filed, and the names of their files.
    """
    if call.closing is None:
        raise ValueError(f"{call.key} is still open")
    legs = {leg_key(leg): [leg.state, recorded(leg)] for leg in call.legs}
    told = {"outcome": call.closing.outcome, "complete": call.closing.complete, "talk_seconds": call.talk_seconds, "legs": legs}
    told |= dial_told(dial_of(call)) | {"filed_at": filed_at(call, before), "guids": guids(call, before)}
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
    return settled(ids_of(call), told["guids"] if "guids" in told else _guids_before(told["legs"]))


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
        told.pop("guids", None)  # written before an upgrade, it has none
    talked = [told.pop("talk_seconds") for told in (old, new)]
    if None in talked:
        return bool(old != new or talked[0] != talked[1])
    return bool(old != new or abs(talked[0] - talked[1]) >= 1)


def recorded(leg: Leg) -> str:
    """Name the recording of a leg, or nothing: its GUID tells where it goes, a RecordingURL that it can be had."""
    return f"{leg.guid or leg.call_id}{_WITH_URL if leg.recording_url else ''}" if leg.recorded else ""


def had_recordings(summed_up: str) -> set[tuple[str, str]]:
    """List the legs, each with the name of its recording, whose jobs were published with a summary.

    Two legs may say that they have one GUID, so the name alone does not tell whose recording was fetched.
    """
    legs = orjson.loads(summed_up)["legs"] if summed_up else {}
    return {(key, name) for key, (_, name) in legs.items() if name}


def leg_key(leg: Leg) -> str:
    """Name a leg in a summary."""
    return f"{leg.call_type}/{leg.call_id}"
