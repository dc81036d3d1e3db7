"""From messages of the streams to rows of the history: pure, so that the same messages always give the same rows."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, NamedTuple, Self

import orjson
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, ValidationError

from console.call_query import CallRow, row_of
from shared.domain.call import Status
from shared.log import get_logger

log = get_logger(__name__)

Row = dict[str, object]

INDEXED_CHARACTERS = 256
"""PostgreSQL's indexes take no value of more than about 2700 bytes; what is compared in full is the record."""

_AUDIT = "callfold.audit."
CALL_EVENTS = frozenset({"callfold.call.completed.v1", "callfold.call.amended.v1"})
_RECORDING = re.compile(r"callfold\.recording\.(stored|absent|failed|expired)\.v1")
_RECORDING_ID = re.compile(r"(?P<leg>[^/]+/[^/]+/recording/[^/]+)/[a-z]+(?P<suffix>/[^/]+)?")
_TIME = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$"
_COLUMNS = tuple(name for name in CallRow.model_fields if name not in {"status", "agents", "numbers"})


def _real(at: str) -> str:
    datetime.fromisoformat(at)
    return at


At = Annotated[str, Field(pattern=_TIME), AfterValidator(_real)]
Short = Annotated[str, Field(max_length=INDEXED_CHARACTERS)]
Int = Annotated[int, Field(ge=0, lt=1 << 31)]
BigInt = Annotated[int, Field(ge=0, lt=1 << 63)]


class Entry(NamedTuple):
    """One message of a stream."""

    offset: int
    body: bytes

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(self.body).hexdigest()


class Mark(NamedTuple):
    """The last event of a stream that was written."""

    offset: int
    fingerprint: str


class _Event(BaseModel):
    id: Annotated[str, Field(min_length=1, max_length=400)]
    type: Short
    time: At
    source: Annotated[str, Field(pattern=r"^/callfold(/[^/]{1,100})?$")]
    subject: Short = ""
    data: dict[str, Any]  # of whatever kind of event: read by type below

    @property
    def source_name(self) -> str:
        return self.source.removeprefix("/callfold").removeprefix("/")


class _Revision(BaseModel):
    revision: Int
    started_at: At
    request_id: BigInt | None


def _as_json(value: object) -> object:
    if not isinstance(value, dict):
        raise ValueError("is no object")  # noqa: TRY004 - pydantic's own way to say so
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


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


class _Audit(BaseModel):
    who: str
    action: str
    source: str | None = None
    call: str | None = None
    detail: dict[str, Any] = {}


@dataclass(slots=True)
class Batch:
    """Rows of one transaction.

    Attributes:
        calls: by (source, call), the highest revision of each.
        recordings: by id, the latest of each.
        legs: whose recordings changed.
    """

    stream: str
    mark: Mark
    events: list[Row] = field(default_factory=list)
    calls: dict[tuple[str, str], Row] = field(default_factory=dict)
    recordings: dict[str, Row] = field(default_factory=dict)
    legs: set[str] = field(default_factory=set)
    audit: list[Row] = field(default_factory=list)
    newest: str = ""

    @classmethod
    def of(cls, stream: str, entries: Sequence[Entry]) -> Self:
        """Read messages, at least one, in the order of their stream."""
        batch = cls(stream, Mark(entries[-1].offset, entries[-1].fingerprint))
        for entry in entries:
            try:
                batch._add(_Event.model_validate(orjson.loads(entry.body)), entry.body)
            except (KeyError, TypeError, AttributeError, ValueError) as error:
                # Anybody may publish to the exchange. What is not ours, or broken, is kept as it came.
                batch._keep_unreadable(entry, _told(error))
        return batch

    @classmethod
    def unreadable(cls, stream: str, entry: Entry, reason: str, *, with_body: bool = True) -> Self:
        """Take a message that can be read, and whose rows the database does not take, as one that cannot be read."""
        batch = cls(stream, Mark(entry.offset, entry.fingerprint))
        batch._keep_unreadable(entry, reason, with_body=with_body)
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

    def _keep_unreadable(self, entry: Entry, reason: str, *, with_body: bool = True) -> None:
        log.warning("history_unreadable_event", stream=self.stream, offset=entry.offset, detail=reason)
        body = entry.body if with_body else b""
        self._add_event(f"unreadable/{self.stream}/{entry.fingerprint}", "unreadable", "", ("", ""), body, reason)

    def _add_event(  # noqa: PLR0917 - a row
        self, event_id: str, kind: str, time: str, call: tuple[str, str], body: bytes, reason: str | None = None
    ) -> None:
        row = {"id": event_id, "type": kind, "time": time, "source": call[0], "call": call[1], "reason": reason}
        self.events.append(clean({**row, "body": body.decode("utf-8", "replace")}))

    def _add_call(self, event: _Event) -> None:
        told = _Revision.model_validate(event.data)
        row = row_of(event.data, event.subject, Status.COMPLETE)
        if row.source != event.source_name:
            raise ValueError("the source of the event and of its record differ")
        key = (row.source, row.call)
        if key in self.calls and int(str(self.calls[key]["revision"])) >= told.revision:
            return
        self.calls[key] = clean(
            {name: getattr(row, name) for name in _COLUMNS}
            | {
                "name": f"{row.source}/{row.call}",
                "reference": indexed(row.reference),
                "agents": listed(row.agents),
                "numbers": listed(row.numbers),
                "record": orjson.dumps(event.data).decode(),
            }
        )

    def _add_recording(self, event: _Event, state: str) -> None:
        found = _RECORDING_ID.fullmatch(event.id)
        if found is None:
            raise ValueError("the id of a recording's event is not ours")
        # The suffix of `stored` tells another recording of the leg; of `failed` and `absent`, which asking it answers.
        copy = (found["suffix"] or "") if state == "stored" else ""
        row = _Recording.model_validate(event.data).model_dump() | {
            "id": found["leg"] + copy,
            "leg_id": found["leg"],
            "source": event.source_name,
            "call": event.subject,
            "state": state,
            "at": event.time,
            "event": event.id,
        }
        before = self.recordings.get(str(row["id"]))
        self.legs.add(str(clean(row)["leg_id"]))
        if before is None or (str(before["at"]), str(before["event"])) < (event.time, event.id):
            self.recordings[str(row["id"])] = clean(row)

    def _add_audit(self, event: _Event) -> None:
        told = _Audit.model_validate(event.data)
        row = told.model_dump(exclude={"detail"}) | {"id": event.id, "at": event.time}
        self.audit.append(clean({**row, "detail": orjson.dumps(told.detail).decode()}))


def _told(error: Exception) -> str:
    """Tell what is wrong with an event without quoting what it holds."""
    if isinstance(error, ValidationError):
        return ", ".join(sorted({".".join(map(str, told["loc"])) for told in error.errors()}))
    return type(error).__name__


def clean(row: Mapping[str, object]) -> Row:
    """Replace NUL, which a callback can carry and PostgreSQL refuses in text; JSON has it escaped, and keeps it."""
    return {name: value.replace("\0", "\ufffd") if isinstance(value, str) else value for name, value in row.items()}


def indexed(text: str | None) -> str | None:
    """Shorten a value to what an index takes."""
    return text and text[:INDEXED_CHARACTERS]


def listed(values: Iterable[str]) -> str:
    """Write values so that LIKE finds each of them whole."""
    return "".join(f"\n{value.casefold()}" for value in values) + "\n"
