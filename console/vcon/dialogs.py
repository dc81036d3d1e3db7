"""The dialogs of a vCon: one for each leg of the call, in the order agent, dialed, others."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import datetime

from console.vcon.parties import Parties
from console.vcon.published_call import LegRecordings, PublishedCall, Publisher
from shared.domain.closing import Outcome
from shared.domain.event_types import CallRecord, LegRecord
from shared.domain.leg import LegState
from shared.domain.leg_event import CallType
from shared.domain.recording import RecordingState
from shared.domain.recording_info import RecordingInfo

Dialog = dict[str, object]
_WAV = "audio/x-wav"
_WAS_STORED = frozenset({RecordingState.STORED, RecordingState.EXPIRING, RecordingState.EXPIRED})
_PICKED_UP = frozenset({LegState.ENDED, LegState.TALKING})
_TALKED = frozenset({Outcome.ANSWERED, Outcome.UNKNOWN})
# Why there was no conversation although a phone was picked up.
_DISPOSITIONS = {Outcome.AGENT_HUNG_UP: "hung-up", Outcome.DIALED_MISSED: "no-answer", Outcome.ANSWERED: "hung-up"}


def legs_of(record: CallRecord) -> list[LegRecord]:
    """Return the legs of a call in the order of the dialogs."""
    return [leg for leg in (record["agent"], record["dialed"], *record["other_legs"]) if leg is not None]


def dialogs_of(call: PublishedCall, publisher: Publisher, parties: Parties) -> list[Dialog]:
    """Return the dialogs of a call. A dial request of which no phone was reported is one that failed."""
    recordings = {each.call_id: each for each in call.recordings}
    legs = legs_of(call.record)
    if not legs:
        attempt = {"type": "incomplete", "start": call.record["started_at"], "disposition": "failed"}
        return [attempt | {"parties": parties.of_dial()} | _context(call)]
    return [_dialog(call, publisher, parties, leg, recordings.get(leg["call_id"])) for leg in legs]


def content_hash(info: RecordingInfo) -> str | None:
    """Return the hash of a recording. Those of previous releases have a SHA-256 only, which the draft permits too."""
    for algorithm, digest in (("sha512", info.sha512), ("sha256", info.sha256)):
        if digest is not None:
            return f"{algorithm}-{base64.urlsafe_b64encode(bytes.fromhex(digest)).rstrip(b'=').decode()}"
    return None


def _dialog(
    call: PublishedCall, publisher: Publisher, parties: Parties, leg: LegRecord, recordings: LegRecordings | None
) -> Dialog:
    _, present = parties.of_leg(leg)
    info = recordings.recording if recordings is not None else None
    was_stored = info is not None and info.state in _WAS_STORED
    if not was_stored and not _may_have_talked(call.record, leg):
        return {
            "type": "incomplete",
            "start": leg["started_at"]
            or leg["picked_up_at"]
            or leg["missed_at"]
            or leg["hung_up_at"]
            or call.record["started_at"],
            "parties": present,
            "disposition": _disposition(call.record, leg),
            **_context(call, leg),
            **_history(call.record, parties, leg, present),
        }
    dialog: Dialog = {"type": "recording", "start": leg["picked_up_at"] or leg["started_at"] or call.record["started_at"]}
    seconds = info.seconds if info is not None and was_stored else None
    seconds = _seconds(leg) if seconds is None else seconds
    if seconds is not None:
        dialog["duration"] = seconds
    channels = (info.channels or 1) if info is not None else 1
    # Which side has which channel is not known, so each one can have all of them.
    dialog["parties"] = present if channels == 1 else [present] * channels
    if recordings is not None and info is not None and was_stored:
        dialog |= _content(call, publisher, recordings)
    return {**dialog, **_context(call, leg), **_history(call.record, parties, leg, present)}


def _content(call: PublishedCall, publisher: Publisher, recordings: LegRecordings) -> Dialog:
    """Return where the recording is. One that has expired has neither URL nor hash; an attachment says that it has expired."""
    info = recordings.recording
    content: Dialog = {"mediatype": _WAV, "filename": f"{recordings.name}.wav"}
    if info.state is not RecordingState.STORED:
        return content
    url, digest = publisher.recording_url(call.key, recordings.name), content_hash(info)
    if url is not None and digest is not None:
        content["url"] = url
    if digest is not None:
        content["content_hash"] = digest
    return content


def _may_have_talked(record: CallRecord, leg: LegRecord) -> bool:
    return leg["state"] in _PICKED_UP and record["outcome"] in _TALKED and leg["call_type"] != CallType.LOGIN


def _disposition(record: CallRecord, leg: LegRecord) -> str:
    """Return why there was no conversation, in the words of the draft. FocalScope does not report that a phone was busy."""
    if leg["state"] == LegState.MISSED:
        return "no-answer"
    if leg["state"] == LegState.RINGING or record["outcome"] is None:
        return "failed"
    return _DISPOSITIONS.get(Outcome(record["outcome"]), "failed")


def _seconds(leg: LegRecord) -> float | None:
    if leg["picked_up_at"] is None or leg["hung_up_at"] is None:
        return None
    seconds = (datetime.fromisoformat(leg["hung_up_at"]) - datetime.fromisoformat(leg["picked_up_at"])).total_seconds()
    return seconds if seconds >= 0 else None


def _context(call: PublishedCall, leg: LegRecord | None = None) -> Dialog:
    """Return what the contact-centre extension knows, and the system in which the call was."""
    kind = call.record["call_type"] if leg is None else leg["call_type"]
    context: Dialog = {"application": "FocalScope", "interaction_id": str(call.key)}
    if leg is not None:
        context["message_id"] = leg["call_id"]
    if kind is not None:
        context["interaction_type"] = kind
    if call.record["queue"] is not None:
        context["skill"] = [call.record["queue"]]
    return context


def _history(record: CallRecord, parties: Parties, leg: LegRecord, present: Sequence[int]) -> Dialog:
    """Return when each party of a leg joined and left, as far as its own phone reported that."""
    phones: dict[int, LegRecord] = {}
    for phone in (leg, record["agent"], record["dialed"]):
        if phone is not None:
            phones.setdefault(parties.of_leg(phone)[0], phone)
    moments = [
        {"party": index, "time": time, "event": event}
        for index in present
        if index in phones
        for event, time in (("join", phones[index]["picked_up_at"]), ("drop", phones[index]["hung_up_at"]))
        if time is not None and phones[index]["picked_up_at"] is not None
    ]
    return {"party_history": sorted(moments, key=lambda moment: str(moment["time"]))} if moments else {}
