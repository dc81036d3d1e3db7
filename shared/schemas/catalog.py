"""Every published schema: its name, its type, and what its events alone have, such as their `type`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Annotated, Final, get_args

from pydantic import Field
from typing_extensions import TypedDict, is_typeddict

from shared.amqp.dead_letters import DeadLetterReason
from shared.domain import event_types, raw_types
from shared.domain.annotation import AnnotationType
from shared.domain.cloud_event import dataschema_of
from shared.domain.condition import Kind
from shared.domain.event_types import AuditEvent, CallEvent, CallEventType, OpsEvent, RecordingEvent, RecordingEventType
from shared.domain.ignored import Reason as IgnoredReason
from shared.domain.raw_event import MAX_EVENTS_PER_MESSAGE
from shared.domain.raw_types import (
    DeadLetterHeaders,
    RawAnnotation,
    RawCallback,
    RawDial,
    RawTimer,
    RecordingJobBody,
    UnreadBody,
)
from shared.domain.recording_flags import Flag
from shared.domain.recording_info import OTHER_CONTENT, UNLISTED
from shared.domain.recording_reasons import Reason as RecordingReason
from shared.runtime.audit import Action
from shared.schemas.generation import DIALECT, Json, encode, extensible, schema_of

RAW_MESSAGE: Final = "raw-message/v1.json"
DEAD_LETTER: Final = "dead-letter/v1.json"
_ID: Final = "callfold:/docs/schemas/"
_READERS: Final = " Readers ignore fields that they do not know, because a later release may add some."
_TYPES: Final[Mapping[str, type]] = {
    name: kind for module in (event_types, raw_types) for name, kind in vars(module).items() if is_typeddict(kind)
}
# The values of texts to which a later release may add some.
_RECORDING_REASONS: Final = [*RecordingReason, OTHER_CONTENT, UNLISTED, "retention"]
_FAILED: Final = [*DeadLetterReason, *RecordingReason]
_CONDITIONS: Final[Mapping[Kind, str]] = {
    Kind.BROKER_AWAY: "An ingress has no connection to RabbitMQ.",
    Kind.SPOOLING: "The spool of an ingress has callbacks.",
    Kind.SPOOL_FULL: "The spool of an ingress is nearly full.",
    Kind.SOURCE_SILENT: "A source is silent against its own habit.",
    Kind.DEAD_LETTERS_GROWING: "A queue of dead letters grows.",
    Kind.STATE_REBUILT: "Redis has lost state, which workers rebuild.",
    Kind.ARCHIVE_AWAY: "The archive cannot be written.",
    Kind.CERTIFICATE_EXPIRING: "A certificate of a server expires soon.",
}
_ACTIONS: Final[Mapping[Action, str]] = {
    Action.DIAL: "A call was dialed.",
    Action.ANNOTATE: "An annotation was added to a call, or refused.",
    Action.REDRIVE: "Dead letters were redriven.",
    Action.DROP: "Dead letters were dropped.",
    Action.DOWNLOAD: "A recording was downloaded.",
    Action.LOG_IN: "A person logged in.",
    Action.LOG_IN_REFUSED: "A log-in was refused.",
    Action.DELETION: "Retention deleted recordings.",
    Action.HOLD: "A call was excluded from retention.",
    Action.RELEASE: "The hold on a call ended.",
    Action.ACCEPT: "A refused file was accepted as a recording.",
    Action.ENDPOINT_ADDED: "A webhook endpoint was added.",
    Action.ENDPOINT_CHANGED: "A webhook endpoint was changed.",
    Action.ENDPOINT_REMOVED: "A webhook endpoint was removed.",
    Action.ENDPOINT_TESTED: "A test event was sent to a webhook endpoint.",
}
_SUMMARIES: Final[Mapping[str, str]] = {
    "callfold.call.completed.v1": "A call is complete.",
    "callfold.call.amended.v1": "The record of a completed call has changed. The event has the whole record.",
    "callfold.recording.stored.v1": "A recording is in the archive.",
    "callfold.recording.absent.v1": "The PBX has no recording of the leg.",
    "callfold.recording.failed.v1": "A recording could not be archived.",
    "callfold.recording.expired.v1": "Retention has deleted a recording.",
    **{f"callfold.ops.{kind}.v1": f"{text} The condition is raised, or cleared." for kind, text in _CONDITIONS.items()},
    **{f"callfold.audit.{action}.v1": text for action, text in _ACTIONS.items()},
}

Raw = Annotated[RawCallback | RawDial | RawTimer | RawAnnotation, Field(discriminator="kind")]
RawMessage = Annotated[list[Raw], Field(min_length=1, max_length=MAX_EVENTS_PER_MESSAGE)]
DeadRaw = Annotated[RawCallback | RawDial | RawTimer | RawAnnotation | UnreadBody, Field(discriminator="kind")]
DeadBody = list[DeadRaw] | RecordingJobBody


class _DeadLetter(TypedDict):
    headers: DeadLetterHeaders
    body: DeadBody


@cache
def schemas() -> Mapping[str, Json]:
    """Return every schema by its path below `docs/schemas/`."""
    calls = [_event(CallEvent, kind, _published_record) for kind in get_args(CallEventType)]
    recordings = [_event(RecordingEvent, kind, _recording) for kind in get_args(RecordingEventType)]
    ops = [_event(OpsEvent, f"callfold.ops.{kind}.v1", _const("what", kind)) for kind in Kind]
    audit = [_event(AuditEvent, f"callfold.audit.{action}.v1", _const("action", action)) for action in Action]
    return dict([*calls, *recordings, *ops, *audit, _raw_message(), _dead_letter()])


def path_of(kind: str) -> str:
    """Return the path of the schema of a type of event below `docs/schemas/`."""
    return dataschema_of(kind).removeprefix(_ID)


@cache
def encoded(path: str) -> bytes:
    """Return a schema as its file has it.

    Raises:
        KeyError: there is no such schema.
    """
    return encode(schemas()[path])


Change = Callable[[Json], None]


def _event(kind: type, name: str, change_data: Change) -> tuple[str, Json]:
    """Return path and schema of one type of event; `change_data` changes the definition of its `data`."""
    group, what = name.split(".")[1:3]
    schema = _schema(kind, path_of(name), f"{group}_{what}".title().replace("_", ""))
    if (summary := _SUMMARIES.get(name)) is not None:
        schema["description"] = f"{summary} A CloudEvents 1.0 event in structured JSON.{_READERS}"
    attributes = schema["properties"]
    attributes["type"] = {"const": name, "type": "string", "description": attributes["type"]["description"]}
    attributes["dataschema"] |= {"const": dataschema_of(name)}
    change_data(schema["$defs"][attributes["data"]["$ref"].rpartition("/")[2]])
    for definition in schema["$defs"].values():
        _allow_more(definition)
    return path_of(name), schema


def _raw_message() -> tuple[str, Json]:
    schema = _schema(RawMessage, RAW_MESSAGE, "RawMessage")
    schema["description"] = "The body of a message of the exchange `callbacks`: a list of raw events." + _READERS
    return RAW_MESSAGE, schema


def _dead_letter() -> tuple[str, Json]:
    schema = _schema(_DeadLetter, DEAD_LETTER, "DeadLetter")
    _allow_more(schema["$defs"]["DeadLetterHeaders"])
    schema["description"] = (
        "A message of `callbacks.dead` or `recordings.dead`: the headers that Callfold sets, and the body of the original "
        "message. A message that RabbitMQ itself dead-lettered has only the header `x-death`." + _READERS
    )
    schema["properties"] = {
        "headers": {
            "anyOf": [
                {"$ref": "#/$defs/DeadLetterHeaders"},
                {"type": "object", "required": ["x-death"], "properties": {"x-death": {"type": "array"}}},
            ],
            "description": "Headers of the message.",
        },
        "body": schema["properties"]["body"]
        | {"description": "The body of the original message. With `undecodable` and `damaged_in_spool` it can be anything."},
    }
    of_any = {"reason": {"enum": sorted([DeadLetterReason.UNDECODABLE, DeadLetterReason.DAMAGED_IN_SPOOL])}}
    body = schema["properties"]["body"]
    schema["if"] = {"properties": {"headers": {"type": "object", "properties": of_any, "required": ["reason"]}}}
    schema["then"] = True
    schema["else"] = {"properties": {"body": {"anyOf": body.pop("anyOf")}}}
    return DEAD_LETTER, schema


def _schema(kind: object, path: str, title: str) -> Json:
    schema = schema_of(kind, _TYPES)
    description = schema.pop("description", "") + _READERS
    first = {"$schema": DIALECT, "$id": _ID + path, "title": title, "description": description.strip()}
    return first | {name: part for name, part in schema.items() if name not in first}


def _published_record(record: Json) -> None:
    """Describe the record of a closed call. That of an open call, in the HTTP API, has no outcome yet."""
    fields = record["properties"]
    fields["revision"]["minimum"] = 1
    for name in ("outcome", "complete", "close_reason"):
        description = fields[name]["description"].removesuffix(" Never null in an event.")
        fields[name] = _without_null(fields[name]) | {"description": description}


def _without_null(field: Json) -> Json:
    if "anyOf" in field:
        return {name: value for branch in field["anyOf"] if branch != {"type": "null"} for name, value in branch.items()}
    return field | {"type": next(kind for kind in field["type"] if kind != "null")}


def _recording(data: Json) -> None:
    fields = data["properties"]
    values = extensible(_RECORDING_REASONS)["anyOf"]
    fields["reason"] = {"anyOf": [*values, {"type": "null"}], "description": fields["reason"]["description"]}
    fields["flags"]["items"] = extensible([*Flag])


def _const(field: str, value: str) -> Change:
    def change(data: Json) -> None:
        data["properties"][field] |= {"const": value}

    return change


def _allow_more(definition: Json) -> None:
    """List the known values of a text to which a later release may add some."""
    reasons = {"IgnoredValue": [*IgnoredReason], "DeadLetterHeaders": _FAILED}.get(str(definition.get("title")))
    if definition.get("title") == "AnnotationRecord":
        kind = definition["properties"]["type"]
        definition["properties"]["type"] = extensible([*AnnotationType]) | {"description": kind["description"]}
    if reasons is not None:
        reason = definition["properties"]["reason"]
        definition["properties"]["reason"] = extensible(reasons) | {"description": reason["description"]}
