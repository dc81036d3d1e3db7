"""Raw events: what entered Callfold, as it lies in the messages of the exchange `callbacks`.

One AMQP message is a JSON array of 1 to 500 events of three kinds: a callback, a dial, a timer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, assert_never

import orjson

from shared.domain.ids import CallRef, SourceName

VERSION = 1
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", re.ASCII)
# What lies outside is no time of receipt, and could not be counted with.
_YEARS = range(2000, 9000)
MAX_EVENTS_PER_MESSAGE = 500
# Once in each event: within a string its quotes would be escaped.
_RECEIVED_AT = re.compile(rb'"received_at": ?"([0-9T:.Z-]{27})"')
# Strings are tokens, so that what is in them is none.
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{},]', re.DOTALL)
# A body beyond these is none of ours: it is one dead letter, not taken apart.
_MAX_BYTES, _MAX_ELEMENTS = 16 << 20, 50_000


@dataclass(frozen=True, slots=True)
class CallbackEvent:
    """One HTTP callback. `query` is the raw query string without the secret; `received_at` is RFC 3339 UTC, microseconds."""

    kind: ClassVar[str] = "callback"
    source: SourceName
    received_at: str
    query: str


@dataclass(frozen=True, slots=True)
class DialEvent:
    """One accepted dial request: who asked for the call and with what reference."""

    kind: ClassVar[str] = "dial"
    source: SourceName
    received_at: str
    request_id: int
    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class TimerEvent:
    """It is now `received_at`, says a timer of this call."""

    kind: ClassVar[str] = "timer"
    source: SourceName
    received_at: str
    call: CallRef


@dataclass(frozen=True, slots=True)
class Undecodable:
    """One element of a message that is no event of a kind and version we know."""

    body: bytes
    problem: str


RawEvent = CallbackEvent | DialEvent | TimerEvent


def encode(event: RawEvent) -> bytes:
    """Write one event as a JSON object."""
    common = {"v": VERSION, "source": event.source, "received_at": event.received_at, "kind": event.kind}
    match event:
        case CallbackEvent():
            return orjson.dumps(common | {"query": event.query})
        case DialEvent():
            return orjson.dumps(common | {"request_id": event.request_id, "fields": dict(event.fields)})
        case TimerEvent():
            return orjson.dumps(common | {"call": event.call})
        case _:
            assert_never(event)


def join(encoded: Iterable[bytes]) -> bytes:
    """Put encoded events into one message body."""
    return b"[" + b",".join(encoded) + b"]"


def receipts(body: bytes) -> list[str]:
    """Find when the events of a message body were received, without decoding it; what anybody else wrote may tell no time."""
    return [at.decode() for at in _RECEIVED_AT.findall(body)]


def decode(body: bytes) -> list[RawEvent | Undecodable]:
    """Read a message body. Total: whatever cannot be read comes back as `Undecodable`, beside the events that can."""
    try:
        elements = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        return [Undecodable(body, f"not JSON: {error}")]
    if not isinstance(elements, list) or not elements:
        return [Undecodable(body, "not a JSON array of events")]
    if len(body) > _MAX_BYTES or len(elements) > _MAX_ELEMENTS:
        return [Undecodable(body, f"{len(elements)} events in {len(body)} bytes are more than a message has")]
    found = [_decode_one(element) for element in elements]
    if not any(isinstance(event, str) for event in found):
        return [event for event in found if not isinstance(event, str)]
    slices = zip(found, _slices(body), strict=True)
    return [Undecodable(join([text]), event) if isinstance(event, str) else event for event, text in slices]


def is_ahead(event: RawEvent | Undecodable, now: str) -> bool:
    """Tell whether an event is a timer's that tells a time after `now`."""
    return isinstance(event, TimerEvent) and event.received_at > now


def _decode_one(element: object) -> RawEvent | str:
    """Read one element; returns what is wrong with it where it is no event."""
    try:
        return _event(element)
    except Exception as error:  # noqa: BLE001 - whatever an element does to us, its neighbours are good
        return f"{type(error).__name__}: {error}"


def _slices(body: bytes) -> Iterator[bytes]:
    """Cut a JSON array into the texts of its elements, as they are: they may be nested deeper than can be written again."""
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
        raise ValueError(f"version {element['v']!r} is not known")
    source, received_at = SourceName(_text(element, "source")), _time(element, "received_at")
    match element["kind"]:
        case CallbackEvent.kind:
            return CallbackEvent(source, received_at, _text(element, "query"))
        case DialEvent.kind:
            return DialEvent(source, received_at, _request_id(element), _fields(element["fields"]))
        case TimerEvent.kind:
            return TimerEvent(source, received_at, CallRef(_text(element, "call")))
        case kind:
            raise ValueError(f"kind {kind!r} is not known")


def _time(element: dict[str, object], name: str) -> str:
    """Read a time. Facts compare times as text, so only the one fixed-width form may come in."""
    text = _text(element, name)
    if not is_time(text):
        raise ValueError(f"{name} is not RFC 3339 UTC with microseconds")
    return text


def is_time(text: str) -> bool:
    """Tell whether a text is a time as we write it, of a year that can be."""
    if not _TIME.fullmatch(text):
        return False
    try:
        return datetime.fromisoformat(text).year in _YEARS  # a month 13 has the form, and is no time
    except ValueError:
        return False


def _request_id(element: dict[str, object]) -> int:
    value = element["request_id"]
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise TypeError("request_id is not a whole number above 0")
    return value


def _fields(value: object) -> dict[str, str]:
    """Read who asked and with what reference; what is null was not told."""
    if not isinstance(value, dict):
        raise TypeError("fields is not an object")
    told = {str(name): text for name, text in value.items() if text is not None}
    for name, text in told.items():
        if not isinstance(text, (str, int, float)) or isinstance(text, bool):
            raise TypeError(f"fields.{name} is neither text nor a number")
    return {name: str(text) for name, text in told.items()}


def _text(element: dict[str, object], name: str) -> str:
    value = element[name]
    if not isinstance(value, str):
        raise TypeError(f"{name} is not a string")
    return value
