"""Raw events: what entered Callfold, as it lies in the messages of the exchange `callbacks`.

One AMQP message is a JSON array of 1 to 500 events of three kinds: a callback, a dial, a timer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import assert_never

import orjson

from shared.ids import CallRef, SourceName

VERSION = 1
_TIME_WIDTH = len("2026-11-23T07:44:00.123456Z")
MAX_EVENTS_PER_MESSAGE = 500


@dataclass(frozen=True, slots=True)
class CallbackEvent:
    """One HTTP callback. `query` is the raw query string without the secret; `received_at` is RFC 3339 UTC, microseconds."""

    source: SourceName
    received_at: str
    query: str


@dataclass(frozen=True, slots=True)
class DialEvent:
    """One accepted dial request: who asked for the call and with what reference."""

    source: SourceName
    received_at: str
    request_id: int
    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class TimerEvent:
    """It is now `received_at`, says a timer of this call."""

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
    common = {"v": VERSION, "source": event.source, "received_at": event.received_at}
    match event:
        case CallbackEvent():
            return orjson.dumps(common | {"kind": "callback", "query": event.query})
        case DialEvent():
            return orjson.dumps(common | {"kind": "dial", "request_id": event.request_id, "fields": dict(event.fields)})
        case TimerEvent():
            return orjson.dumps(common | {"kind": "timer", "call": event.call})
        case _:
            assert_never(event)


def join(encoded: Iterable[bytes]) -> bytes:
    """Put encoded events into one message body."""
    return b"[" + b",".join(encoded) + b"]"


def decode(body: bytes) -> list[RawEvent | Undecodable]:
    """Read a message body. Total: whatever cannot be read comes back as `Undecodable`, beside the events that can."""
    try:
        elements = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        return [Undecodable(body, f"not JSON: {error}")]
    if not isinstance(elements, list) or not elements:
        return [Undecodable(body, "not a JSON array of events")]
    return [_decode_one(element) for element in elements]


def _decode_one(element: object) -> RawEvent | Undecodable:
    try:
        return _event(element)
    except (KeyError, TypeError, ValueError) as error:
        return Undecodable(join([orjson.dumps(element)]), f"{type(error).__name__}: {error}")


def _event(element: object) -> RawEvent:
    if not isinstance(element, dict):
        raise TypeError("an event is a JSON object")
    if element["v"] != VERSION:
        raise ValueError(f"version {element['v']!r} is not known")
    source, received_at = SourceName(_text(element, "source")), _time(element, "received_at")
    match element["kind"]:
        case "callback":
            return CallbackEvent(source, received_at, _text(element, "query"))
        case "dial":
            if not isinstance(element["request_id"], int) or not isinstance(element["fields"], dict):
                raise TypeError("a dial has an integer request_id and an object of fields")
            fields = {str(name): str(value) for name, value in element["fields"].items()}
            return DialEvent(source, received_at, element["request_id"], fields)
        case "timer":
            return TimerEvent(source, received_at, CallRef(_text(element, "call")))
        case kind:
            raise ValueError(f"kind {kind!r} is not known")


def _time(element: dict[str, object], name: str) -> str:
    """Read a time. Facts compare times as text, so only the one fixed-width form may come in."""
    text = _text(element, name)
    at = datetime.fromisoformat(text)
    if len(text) != _TIME_WIDTH or not text.endswith("Z") or at.tzinfo is None:
        raise ValueError(f"{name} is not RFC 3339 UTC with microseconds")
    return text


def _text(element: dict[str, object], name: str) -> str:
    value = element[name]
    if not isinstance(value, str):
        raise TypeError(f"{name} is not a string")
    return value
