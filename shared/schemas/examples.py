"""An example of each kind of message, as the code of Callfold writes it. The AsyncAPI document and the tests use them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

import orjson

from shared.amqp.dead_letters import DeadLetterReason, dead_letter_headers
from shared.domain.adapter_link import make_link, parse_link
from shared.domain.annotation import AnnotationType, annotation_id, body_text
from shared.domain.call import Call, derive
from shared.domain.call_event import call_event, call_record, recording_event
from shared.domain.closing import Policy
from shared.domain.cloud_event import JSON, SPEC_VERSION, dataschema_of
from shared.domain.condition import Figure, Kind, Observation, observed
from shared.domain.event_types import AuditEvent, RecordingOutcome
from shared.domain.facts import facts_of
from shared.domain.ids import CallRef, SourceName
from shared.domain.raw_event import AnnotationEvent, CallbackEvent, DialEvent, RawEvent, TimerEvent, encode, join
from shared.domain.recording import RecordingJob, RecordingState
from shared.domain.recording_reasons import Reason
from shared.runtime.audit import Action

Example = Any  # JSON
RAW_MESSAGE: Final = "raw-message"
DEAD_LETTER: Final = "dead-letter"

_SOURCE: Final = SourceName("acme")
_POLICY: Final = Policy(settle_s=10, leg_grace_s=3600, max_call_s=14400)
_AGENT: Final = "CallType=API&CallID=1000000087849&Guid=bfa2dbc8-ab8a-34c8-f243-c2aad8c446ff"
_DIALED: Final = "CallType=Outgoing&CallID=1000000087850&Guid=923041af-adb5-a8ae-f29c-e60ea5e17448"
_LATER: Final = "CallType=Outgoing&CallID=1000000087853&Guid=0d1c5d34-3f2e-4f6e-8c07-2f0b5f3c9d11"
_MORE: Final = "&RequestID=513&ResponderAgentExt=1001&ResponderAgent=Kasper&ResponderUserID=1234&LastQueueName=Sales"
_SINCE: Final = "2026-11-23T07:00:00.000000Z"
_SUBJECTS: Final[Mapping[Kind, tuple[str, Mapping[str, Figure]]]] = {
    Kind.BROKER_AWAY: ("ingress-1", {}),
    Kind.SPOOLING: ("ingress-1", {"messages": 12, "bytes": 34567}),
    Kind.SPOOL_FULL: ("ingress-1", {"bytes": 950000000, "max_bytes": 1000000000}),
    Kind.SOURCE_SILENT: ("acme", {"seconds": 900}),
    Kind.DEAD_LETTERS_GROWING: ("callbacks.dead", {"depth": 5, "added": 2}),
    Kind.STATE_REBUILT: ("redis", {"partitions": 16}),
    Kind.ARCHIVE_AWAY: ("archive", {"failed_checks": 2}),
    Kind.CERTIFICATE_EXPIRING: ("rabbitmq.example.com:5671", {"expires_at": "2026-12-01T00:00:00.000000Z", "days_left": 8}),
}


@cache
def examples() -> Mapping[str, Example]:
    """Return an example of each type of event, of a raw message, and of a dead letter, by type or name."""
    call = _call(_events())
    amended = _call([*_events(), CallbackEvent(_SOURCE, _at(50), f"{_LATER}&Event=missed{_MORE}"), _annotation()])
    texts = {each.digest: _annotation().body for each in amended.annotations}
    bodies = [call_event(call, call_record(call, 1, "DK", {}))[2], call_event(amended, call_record(amended, 2, "DK", texts))[2]]
    bodies += [_recording(state, *outcome) for state, outcome in _outcomes().items()]
    bodies += [_ops(kind) for kind in Kind]
    bodies += [orjson.dumps(_audit(action)) for action in Action]
    events = {event["type"]: event for event in map(orjson.loads, bodies)}
    return {**events, RAW_MESSAGE: _raw_message(), DEAD_LETTER: _dead_letter()}


def _at(seconds: float) -> str:
    return f"2026-11-23T07:44:{seconds:09.6f}Z"


def _events() -> list[RawEvent]:
    return [
        DialEvent(_SOURCE, _at(0), 513, {"agent": "1001", "number": "+4512345678", "reference": "crm-42"}),
        CallbackEvent(_SOURCE, _at(4), f"{_AGENT}&Event=pickup{_MORE}"),
        CallbackEvent(_SOURCE, _at(7), f"{_DIALED}&Event=pickup{_MORE}"),
        CallbackEvent(_SOURCE, _at(37), f"{_DIALED}&Event=hangup&IsCallRecorded=1{_MORE}"),
        CallbackEvent(_SOURCE, _at(38.5), f"{_AGENT}&Event=hangup&IsCallRecorded=1{_MORE}"),
    ]


def _annotation() -> AnnotationEvent:
    name, body = annotation_id(_SOURCE, "513", "whisper/513"), body_text({"text": "Good morning ...", "language": "en"})
    return AnnotationEvent(_SOURCE, _at(55), CallRef("513"), name, AnnotationType.TRANSCRIPT, "whisper-1", body)


def _call(events: list[RawEvent]) -> Call:
    adapter = parse_link(make_link("https://callfold.example.com", _SOURCE, None))
    learned = [facts_of(event, adapter) for event in events]
    return derive(learned[0][0], {name: value for _, facts in learned for name, value in facts}, _POLICY)


def _outcomes() -> Mapping[RecordingState, tuple[str, RecordingOutcome]]:
    none: RecordingOutcome = {
        "uri": None,
        "bytes": None,
        "sha256": None,
        "seconds": None,
        "channels": None,
        "sample_rate": None,
        "encryption": None,
        "attempts": 1,
        "reason": None,
        "flags": [],
    }
    stored: RecordingOutcome = {
        **none,
        "uri": "s3://recordings/acme/monitor/2026-UTC/11/23/923041af-adb5-a8ae-f29c-e60ea5e17448.wav",
        "bytes": 480044,
        "sha256": "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
        "sha512": "0cf9180a764aba863a67b6d72f0918bc131c6772642cb2dce5a34f0a702f9470"
        "ddc2bf125c12198b1995c233c34b4afd346c54a2334c350a948a51b6e8b4e6b6",
        "seconds": 30.0,
        "channels": 1,
        "sample_rate": 8000,
    }
    return {
        RecordingState.STORED: (_at(45), stored),
        RecordingState.ABSENT: (_at(45), {**none, "attempts": 6, "reason": Reason.NOT_FOUND}),
        RecordingState.FAILED: (_at(45), {**none, "attempts": 4, "reason": Reason.NOT_ALLOWED}),
        RecordingState.EXPIRED: ("2027-11-24T03:00:00.000000Z", {**stored, "reason": "retention"}),
    }


def _recording(state: RecordingState, at: str, outcome: RecordingOutcome) -> bytes:
    guid = "923041af-adb5-a8ae-f29c-e60ea5e17448"
    job = RecordingJob(
        source=_SOURCE,
        call="513",
        request_id=513,
        call_id="1000000087850",
        guid=guid,
        name=guid,
        leg="dialed",
        fetch=True,
        state=RecordingState.WAITING,
        recording_url=None,
        started_at=_at(0),
        record={},
    )
    return recording_event(job, state, at, outcome)[2]


def _ops(kind: Kind) -> bytes:
    subject, figures = _SUBJECTS[kind]
    seen = Observation(kind, subject, is_bad=True, at=_SINCE, detail="A sentence for people.", figures=figures)
    record = observed(None, seen, now=_SINCE, hold_s=60)
    if record is None or record.event is None:
        raise ValueError(f"the condition {kind} was not raised")
    return record.event.body.encode()


def _audit(action: Action) -> AuditEvent:
    kind = f"callfold.audit.{action}.v1"
    return {
        "specversion": SPEC_VERSION,
        "id": "2f1c8a52-7a55-4c3f-9d0c-6f2f5a0e7b11",
        "source": "/callfold/acme",
        "type": kind,
        "time": _at(0),
        "datacontenttype": JSON,
        "dataschema": dataschema_of(kind),
        "data": {"who": "crm", "action": action, "source": _SOURCE, "call": "513", "detail": {}},
        "subject": "513",
    }


def _raw_message() -> Example:
    timer = TimerEvent(_SOURCE, _at(59), CallRef("513"))
    return orjson.loads(join(map(encode, [*_events()[:2], timer, _annotation()])))


def _dead_letter() -> Example:
    event = CallbackEvent(_SOURCE, _at(4), "Event=pickup&CallID=1000000087849")
    headers = dead_letter_headers(DeadLetterReason.INVALID_CALLBACK, "CallType is missing.", event.received_at)
    return {"headers": headers, "body": orjson.loads(join([encode(event)]))}
