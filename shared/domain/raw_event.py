"""Raw events: the content of the messages of the exchange `callbacks`.

One AMQP message is a JSON array of 1 to 500 events of four kinds: callbacks, dials, timers and annotations.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Final, Literal, assert_never

import orjson

from callfold_client.envelope import is_time
from shared.domain.annotation import MAX_BY_CHARACTERS, AnnotationType, body_text
from shared.domain.ids import CallRef, SourceName, is_call_ref
from shared.domain.raw_types import RawAnnotation, RawCallback, RawDial, RawTimer
from shared.partial_values import shorten_name

VERSION: Final = 1
MAX_EVENTS_PER_MESSAGE = 500
# It occurs once in each event, because inside a string its quotes would be escaped.
_RECEIVED_AT = re.compile(rb'"received_at": ?"([0-9T:.Z-]{27})"')
# A string is one token, so that brackets and commas inside it are ignored.
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{},]', re.DOTALL)
# Callfold writes no larger message. A larger one becomes one dead letter as a whole.
_MAX_BYTES, _MAX_ELEMENTS = 16 << 20, 50_000
# Of a dial. The console accepts fewer and shorter fields.
MAX_FIELDS, _MAX_FIELD_NAME_CHARACTERS, _MAX_FIELD_BYTES = 64, 128, 4 * 1024
_MAX_SOURCE_CHARACTERS = 63
PREVIOUS: Final = "previous"
"""The value of `secret` in a callback that came with a previous secret of its source."""
_ANNOTATION_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class CallbackEvent:
    """One HTTP callback.

    Attributes:
        received_at: RFC 3339 UTC, microseconds.
        query: the raw query string without the secret.
        has_previous_secret: whether it came with a previous secret of its source.
        traceparent: the context in which it was created, from a header of its message; '' if it is not traced.
    """

    kind: ClassVar[Literal["callback"]] = "callback"
    source: SourceName
    received_at: str
    query: str
    has_previous_secret: bool = False
    traceparent: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class DialEvent:
    """One accepted dial request. `fields` are its user, reference and metadata."""

    kind: ClassVar[Literal["dial"]] = "dial"
    source: SourceName
    received_at: str
    request_id: int
    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class TimerEvent:
    """A timer of a call; it makes `received_at` the current time of that call."""

    kind: ClassVar[Literal["timer"]] = "timer"
    source: SourceName
    received_at: str
    call: CallRef


@dataclass(frozen=True, slots=True)
class AnnotationEvent:
    """An annotation that a program or a person adds to a call. `body` is its JSON text with sorted names."""

    kind: ClassVar[Literal["annotation"]] = "annotation"
    source: SourceName
    received_at: str
    call: CallRef
    id: str
    type: AnnotationType
    by: str
    body: str


@dataclass(frozen=True, slots=True)
class Undecodable:
    """One element of a message that is not an event of a known kind and version."""

    body: bytes
    problem: str


RawEvent = CallbackEvent | DialEvent | TimerEvent | AnnotationEvent


def encode(event: RawEvent) -> bytes:
    """Return one event as a JSON object."""
    match event:
        case CallbackEvent():
            return orjson.dumps(_callback(event))
        case DialEvent():
            return orjson.dumps(_dial(event))
        case TimerEvent():
            return orjson.dumps(_timer(event))
        case AnnotationEvent():
            return orjson.dumps(_encoded_annotation(event))
        case _:
            assert_never(event)


def _callback(event: CallbackEvent) -> RawCallback:
    row: RawCallback = {
        "v": VERSION,
        "source": event.source,
        "received_at": event.received_at,
        "kind": event.kind,
        "query": event.query,
    }
    if event.has_previous_secret:
        row["secret"] = PREVIOUS
    return row


def _dial(event: DialEvent) -> RawDial:
    return {
        "v": VERSION,
        "source": event.source,
        "received_at": event.received_at,
        "kind": event.kind,
        "request_id": event.request_id,
        "fields": dict(event.fields),
    }


def _encoded_annotation(event: AnnotationEvent) -> RawAnnotation:
    return {
        "v": VERSION,
        "source": event.source,
        "received_at": event.received_at,
        "kind": event.kind,
        "call": event.call,
        "id": event.id,
        "type": event.type.value,
        "by": event.by,
        "body": orjson.loads(event.body),
    }


def _timer(event: TimerEvent) -> RawTimer:
    return {"v": VERSION, "source": event.source, "received_at": event.received_at, "kind": event.kind, "call": event.call}


def join(encoded: Iterable[bytes]) -> bytes:
    """Return one message body with encoded events."""
    return b"[" + b",".join(encoded) + b"]"


def receipt_times(body: bytes) -> list[str]:
    """Return the times of receipt in a message body without decoding it; none if another program wrote the body."""
    return [at.decode() for at in _RECEIVED_AT.findall(body)]


def decode(body: bytes) -> list[RawEvent | Undecodable]:
    """Parse a message body. It never raises: an element that is not an event is returned as `Undecodable`."""
    try:
        elements = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        return [Undecodable(body, f"not JSON: {error}")]
    if not isinstance(elements, list) or not elements:
        return [Undecodable(body, "not a JSON array of events")]
    if len(body) > _MAX_BYTES or len(elements) > _MAX_ELEMENTS:
        return [Undecodable(body, f"{len(elements)} events in {len(body)} bytes are more than a message can have")]
    events = [_decode_one(element) for element in elements]
    if not any(isinstance(event, str) for event in events):
        return [event for event in events if not isinstance(event, str)]
    slices = zip(events, _slices(body), strict=True)
    return [Undecodable(join([text]), event) if isinstance(event, str) else event for event, text in slices]


def _decode_one(element: object) -> RawEvent | str:
    """Parse one element; returns the problem if it is not an event."""
    try:
        return _event(element)
    except Exception as error:  # noqa: BLE001 - any failure of one element must not affect the others
        return f"{type(error).__name__}: {error}"


def _slices(body: bytes) -> Iterator[bytes]:
    """Return the unchanged texts of the elements of a JSON array; they may be nested too deeply to be encoded again."""
    depth, start = 0, 0
    for token in _TOKEN.finditer(body):
        text = token[0]
        if text in b"[{":
            depth += 1
            start = token.end() if depth == 1 else start
        elif text in b"]}" or (text == b"," and depth == 1):
            depth -= text != b","
            if depth == 0 or text == b",":
                yield body[start : token.start()].strip()
                start = token.end()


def _event(element: object) -> RawEvent:
    if not isinstance(element, dict):
        raise TypeError("an event is a JSON object")
    if element["v"] != VERSION:
        raise ValueError(f"unknown version {_shown(element['v'])}")
    source, received_at = _source(element), _time(element, "received_at")
    match element["kind"]:
        case CallbackEvent.kind:
            has_previous = element.get("secret") == PREVIOUS
            return CallbackEvent(source, received_at, _text(element, "query"), has_previous_secret=has_previous)
        case DialEvent.kind:
            return DialEvent(source, received_at, _request_id(element), _fields(element["fields"]))
        case TimerEvent.kind:
            return TimerEvent(source, received_at, _call(element))
        case AnnotationEvent.kind:
            return _annotation(element, source, received_at)
        case kind:
            raise ValueError(f"unknown kind {_shown(kind)}")


def _annotation(element: dict[str, object], source: SourceName, received_at: str) -> AnnotationEvent:
    name, by, body = _text(element, "id"), _text(element, "by"), element["body"]
    if not _ANNOTATION_ID.fullmatch(name):
        raise ValueError(f"id {_shown(name)} is not 32 hexadecimal digits")
    if len(by) > MAX_BY_CHARACTERS:
        raise ValueError(f"by is longer than {MAX_BY_CHARACTERS} characters")
    if not isinstance(body, dict):
        raise TypeError("body is not an object")
    kind = AnnotationType(_text(element, "type"))
    return AnnotationEvent(source, received_at, _call(element), name, kind, by, body_text(body))


def _shown(value: object) -> str:
    """Return a wrong value for an error, shortened; only the type of a list or an object."""
    return repr(shorten_name(str(value))) if isinstance(value, (str, int, float)) or value is None else type(value).__name__


def _source(element: dict[str, object]) -> SourceName:
    source = _text(element, "source")
    if len(source) > _MAX_SOURCE_CHARACTERS:
        raise ValueError(f"source is longer than {_MAX_SOURCE_CHARACTERS} characters")
    return SourceName(source)


def _call(element: dict[str, object]) -> CallRef:
    call = _text(element, "call")
    if not is_call_ref(call):
        raise ValueError(f"call {_shown(call)} is neither a RequestID nor `call-<CallID>`")
    return CallRef(call)


def _time(element: dict[str, object], name: str) -> str:
    """Return a time. Facts compare times as text, so only one fixed-width form is allowed."""
    text = _text(element, name)
    if not is_time(text):
        raise ValueError(f"{name} is not RFC 3339 UTC with microseconds")
    return text


def _request_id(element: dict[str, object]) -> int:
    value = element["request_id"]
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise TypeError("request_id is not a whole number above 0")
    return value


def _fields(value: object) -> dict[str, str]:
    """Return user, reference and metadata of a dial, without nulls."""
    if not isinstance(value, dict):
        raise TypeError("fields is not an object")
    if len(value) > MAX_FIELDS:
        raise ValueError(f"fields has more than {MAX_FIELDS} fields")
    return {name: _field(name, text) for name, text in value.items() if text is not None}


def _field(name: str, value: object) -> str:
    if not isinstance(value, (str, int, float)) or isinstance(value, bool):
        raise TypeError(f"fields.{shorten_name(name)} is neither text nor a number")
    text = str(value)
    if len(name) > _MAX_FIELD_NAME_CHARACTERS or len(text.encode("utf-8", "surrogatepass")) > _MAX_FIELD_BYTES:
        limits = f"{_MAX_FIELD_NAME_CHARACTERS} characters of its name or {_MAX_FIELD_BYTES} bytes of its value"
        raise ValueError(f"fields.{shorten_name(name)} exceeds {limits}")
    return text


def _text(element: dict[str, object], name: str) -> str:
    value = element[name]
    if not isinstance(value, str):
        raise TypeError(f"{name} is not a string")
    return value
