"""Stream messages as rows of the history. This is pure: the same messages always give the same rows."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple, Self

import orjson
from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from console.call_query import CallRow, row_of
from console.history.attempts import read_attempt
from console.history.values import At, BigInt, Int, Row, Short, one_per_line, truncated, without_nul
from shared.amqp.topology import FORWARD_JOURNAL
from shared.domain.call import Status
from shared.log import get_logger

log = get_logger(__name__)

_AUDIT = "callfold.audit."
CALL_EVENTS = frozenset({"callfold.call.completed.v1", "callfold.call.amended.v1"})
_RECORDING = re.compile(r"callfold\.recording\.(stored|absent|failed|expired)\.v1")
_RECORDING_ID = re.compile(r"(?P<leg>[^/]+/[^/]+/recording/[^/]+)/[a-z]+(?P<suffix>/[^/]+)?")
_COLUMNS = tuple(name for name in CallRow.model_fields if name not in {"status", "agents", "numbers", "number_e164"})


def fingerprint(body: bytes) -> str:
    """Return what identifies the content of a message."""
    return hashlib.sha256(body).hexdigest()


class StreamMessage(NamedTuple):
    """One message of a stream."""

    offset: int
    body: bytes

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.body)


class Checkpoint(NamedTuple):
    """The last event of a stream that was written: its offset, and a fingerprint to recognize it."""

    offset: int
    fingerprint: str


class _Event(BaseModel):
    id: Annotated[str, Field(min_length=1, max_length=400)]
    type: Short
    time: At
    source: Annotated[str, Field(pattern=r"^/callfold(/[^/]{1,100})?$")]
    subject: Short = ""
    data: dict[str, Any]  # parsed below by event type

    @property
    def source_name(self) -> str:
        return self.source.removeprefix("/callfold").removeprefix("/")


class _Revision(BaseModel):
    revision: Int
    started_at: At
    request_id: BigInt | None


def _as_json(value: object) -> object:
    if not isinstance(value, dict):
        raise ValueError("is not an object")  # noqa: TRY004 - pydantic reports only ValueError
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def _list_as_json(value: object) -> object:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError("is not a list of texts")
    return orjson.dumps(value).decode()


class _Recording(BaseModel):
    call_id: Short
    guid: Short | None
    leg: str
    uri: str | None = None
    bytes: BigInt | None = None
    sha256: str | None = None
    seconds: float | None = None
    channels: Int | None = None
    sample_rate: Int | None = None
    encryption: Annotated[str, BeforeValidator(_as_json)] | None = None
    attempts: Int | None = None
    reason: str | None = None
    flags: Annotated[str, BeforeValidator(_list_as_json)] | None = None


class _Audit(BaseModel):
    who: str
    action: str
    source: str | None = None
    call: str | None = None
    detail: dict[str, Any] = {}


@dataclass(slots=True)
class Batch:
    """The rows of one transaction.

    Attributes:
        checkpoint: the last event of the batch.
        calls: by source and call, the highest revision of each.
        recordings: by id, the latest state of each.
        legs: the legs whose recordings changed.
        attempts: deliveries to webhooks that were attempted.
        newest: the time of the newest event.
    """

    stream: str
    checkpoint: Checkpoint
    events: list[Row] = field(default_factory=list)
    calls: dict[tuple[str, str], Row] = field(default_factory=dict)
    recordings: dict[str, Row] = field(default_factory=dict)
    legs: set[str] = field(default_factory=set)
    audit: list[Row] = field(default_factory=list)
    attempts: list[Row] = field(default_factory=list)
    newest: str = ""

    @classmethod
    def of(cls, stream: str, messages: Sequence[StreamMessage]) -> Self:
        """Read one or more messages in stream order."""
        batch = cls(stream, Checkpoint(messages[-1].offset, messages[-1].fingerprint))
        for message in messages:
            try:
                if stream == FORWARD_JOURNAL:
                    batch._add_attempt(read_attempt(message.body))
                else:
                    batch._add(_Event.model_validate(orjson.loads(message.body)), message.body)
            except (KeyError, TypeError, AttributeError, ValueError) as error:
                # Any client may publish to the exchange. Unknown and broken messages are kept as received.
                batch._add_unreadable(message, _describe(error))
        return batch

    @classmethod
    def unreadable(cls, stream: str, message: StreamMessage, reason: str, *, with_body: bool = True) -> Self:
        """Keep a message as unreadable because the database rejects its rows."""
        batch = cls(stream, Checkpoint(message.offset, message.fingerprint))
        batch._add_unreadable(message, reason, with_body=with_body)
        return batch

    def _add(self, event: _Event, body: bytes) -> None:
        if event.type.startswith(_AUDIT):
            self._add_audit(event)
        elif event.type in CALL_EVENTS:
            self._add_call(event)
        elif recording := _RECORDING.fullmatch(event.type):
            self._add_recording(event, recording[1])
        if not event.type.startswith(_AUDIT):
            self._add_event(event.id, event.type, event.time, (event.source_name, event.subject), body)
        self.newest = max(self.newest, event.time)

    def _add_unreadable(self, message: StreamMessage, reason: str, *, with_body: bool = True) -> None:
        log.warning("history_event_unreadable", stream=self.stream, offset=message.offset, detail=reason)
        body = message.body if with_body else b""
        self._add_event(f"unreadable/{self.stream}/{message.fingerprint}", "unreadable", "", ("", ""), body, reason)

    def _add_event(  # noqa: PLR0917 - the columns of one row
        self, event_id: str, kind: str, time: str, call: tuple[str, str], body: bytes, reason: str | None = None
    ) -> None:
        row = {"id": event_id, "type": kind, "time": time, "source": call[0], "call": call[1], "reason": reason}
        self.events.append(without_nul({**row, "body": body.decode("utf-8", "replace")}))

    def _add_call(self, event: _Event) -> None:
        revision = _Revision.model_validate(event.data).revision
        row = row_of(event.data, event.subject, Status.COMPLETE)
        if row.source != event.source_name:
            raise ValueError("the source of the event and of its record differ")
        key = (row.source, row.call)
        if key in self.calls and int(str(self.calls[key]["revision"])) >= revision:
            return
        self.calls[key] = without_nul(
            {name: getattr(row, name) for name in _COLUMNS}
            | {
                "name": f"{row.source}/{row.call}",
                "reference": truncated(row.reference),
                "agents": one_per_line(row.agents),
                "numbers": one_per_line(row.numbers),
                # A list of calls reads every record. Transcripts stay in the events.
                "record": orjson.dumps({name: value for name, value in event.data.items() if name != "annotations"}).decode(),
            }
        )

    def _add_recording(self, event: _Event, state: str) -> None:
        event_id = _RECORDING_ID.fullmatch(event.id)
        if event_id is None:
            raise ValueError("the id of the recording event has an unknown format")
        # The suffix of `stored` identifies a further recording of the leg. That of `failed` and `absent` identifies the job.
        suffix = (event_id["suffix"] or "") if state == "stored" else ""
        row = _Recording.model_validate(event.data).model_dump() | {
            "id": event_id["leg"] + suffix,
            "leg_id": event_id["leg"],
            "source": event.source_name,
            "call": event.subject,
            "state": state,
            "at": event.time,
            "event": event.id,
        }
        before = self.recordings.get(str(row["id"]))
        self.legs.add(str(without_nul(row)["leg_id"]))
        if before is None or (str(before["at"]), str(before["event"])) < (event.time, event.id):
            self.recordings[str(row["id"])] = without_nul(row)

    def _add_audit(self, event: _Event) -> None:
        line = _Audit.model_validate(event.data)
        row = line.model_dump(exclude={"detail"}) | {"id": event.id, "at": event.time}
        self.audit.append(without_nul({**row, "detail": orjson.dumps(line.detail).decode()}))

    def _add_attempt(self, row: Row) -> None:
        self.attempts.append(row)
        self.newest = max(self.newest, str(row["at"]))


def _describe(error: Exception) -> str:
    """Describe why an event is unreadable without quoting its content."""
    if isinstance(error, ValidationError):
        return ", ".join(sorted({".".join(map(str, problem["loc"])) for problem in error.errors()}))
    return type(error).__name__
