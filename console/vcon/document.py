"""The vCon of a published revision. A pure function: the same revision and recordings always give the same bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import orjson

from console.vcon.annotations import place_annotations
from console.vcon.dialogs import dialogs_of, legs_of
from console.vcon.parties import Parties
from console.vcon.published_call import LegRecordings, PublishedCall, Publisher
from console.vcon.uuids import vcon_uuid

Vcon = dict[str, object]
RECORD, RECORDINGS = "callfold.record", "callfold.recordings"
"""Purposes of the attachments that hold the whole record, and what is known of the recordings."""


def vcon_of(call: PublishedCall, publisher: Publisher) -> Vcon:
    """Return the unsigned vCon of a revision."""
    record = call.record
    parties = Parties(record, publisher.host)
    dialogs = dialogs_of(call, publisher, parties)
    callfold = parties.callfold()
    recordings = _in_order(call)
    updated_at = max([call.at, *(at for each in recordings for at in _times(each))])
    annotations = record.get("annotations", ())
    placed = place_annotations(annotations, dialogs, callfold, 2 if recordings else 1)
    body = {**call.published, "annotations": placed.references} if annotations else call.published
    related = {"party": callfold, "dialog": 0, "mediatype": "application/json", "encoding": "json"}
    attachments: list[Vcon] = [{"purpose": RECORD, "start": call.at, **related, "body": body}]
    if recordings:
        described = [_description(each) for each in recordings]
        attachments.append({"purpose": RECORDINGS, "start": updated_at, **related, "body": described})
    vcon: Vcon = {"uuid": vcon_uuid(publisher.host, call.key, record["revision"], record["started_at"])}
    vcon |= {"extensions": ["CC"], "created_at": call.at, "updated_at": updated_at}
    if record["revision"] > 1:
        vcon["amended"] = _amended(call, publisher)
    return vcon | {
        "parties": parties.all,
        "dialog": dialogs,
        "analysis": placed.analysis,
        "attachments": [*attachments, *placed.attachments],
    }


def encode(vcon: Mapping[str, object]) -> bytes:
    return orjson.dumps(vcon)


def _amended(call: PublishedCall, publisher: Publisher) -> Vcon:
    """Return the reference to the revision before this one.

    It has no URL, because a URL needs a hash. The bytes of an older vCon can change still: its recordings are stored and expire.
    """
    if call.previous is None:
        return {}
    return {"uuid": vcon_uuid(publisher.host, call.key, call.previous["revision"], call.previous["started_at"])}


def _in_order(call: PublishedCall) -> Sequence[LegRecordings]:
    """Return the recordings of legs that this revision has, in the order of its dialogs."""
    recordings = {each.call_id: each for each in call.recordings}
    return [recordings[leg["call_id"]] for leg in legs_of(call.record) if leg["call_id"] in recordings]


def _description(each: LegRecordings) -> Vcon:
    return {
        "call_id": each.call_id,
        "name": each.name,
        "recording": each.recording.to_json(),
        "others": [info.to_json() for info in each.others],
    }


def _times(each: LegRecordings) -> list[str]:
    infos = (each.recording, *each.others)
    return [at for info in infos for at in (info.at, info.expired_at) if at is not None]
