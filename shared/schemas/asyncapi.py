"""The AsyncAPI 3 document: exchanges and queues as channels, and the messages in them with their schemas and examples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from shared.amqp.topology import (
    AUDIT_JOURNAL,
    CALLBACKS,
    CALLBACKS_DEAD,
    CALLBACKS_JOURNAL,
    CALLS,
    CALLS_JOURNAL,
    OPS,
    OPS_JOURNAL,
    RECORDINGS_DEAD,
)
from shared.domain.closing import Outcome
from shared.domain.cloud_event import CLOUDEVENT, JSON
from shared.domain.condition import Kind
from shared.domain.recording import RecordingState
from shared.runtime.audit import Action
from shared.schemas.catalog import DEAD_LETTER, RAW_MESSAGE, path_of, schemas
from shared.schemas.examples import examples
from shared.schemas.generation import Json

_RAW, _DEAD = "RawMessage", "DeadLetter"
_CALL_EVENTS: Final = ("completed", "amended")
_RECORDING_EVENTS: Final = (RecordingState.STORED, RecordingState.ABSENT, RecordingState.FAILED, RecordingState.EXPIRED)
_SOURCE: Final = {"source": {"description": "Name of the source."}}
_TRACE: Final = {
    "type": "object",
    "properties": {"traceparent": {"type": "string", "description": "W3C trace context; absent if the event is not traced."}},
}


def document() -> Json:
    """Build the document. Callfold is the application that it describes, so it sends what subscribers receive."""
    channels = _channels()
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Callfold",
            "version": "1",
            "description": "Events that Callfold publishes to RabbitMQ. docs/subscribing.md describes how to receive them, and "
            "docs/schemas/README.md how their schemas change.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": CLOUDEVENT,
        "servers": _servers(),
        "channels": channels,
        "operations": {f"publish{name[:1].upper()}{name[1:]}": _operation(name, channels[name]) for name in channels},
        "components": {"messages": _messages()},
    }


def _servers() -> Json:
    amqp = {"host": "rabbitmq.example.com:5672", "protocol": "amqp", "protocolVersion": "0.9.1"}
    return {
        "rabbitmq": amqp | {"description": "RabbitMQ 3.10 or later."},
        "rabbitmqTls": amqp | {"host": "rabbitmq.example.com:5671", "protocol": "amqps", "description": "RabbitMQ with TLS."},
    }


def _channels() -> dict[str, Json]:
    outcome = {"outcome": {"description": "How the call ended.", "enum": [*Outcome]}}
    state = {"state": {"description": "Whether the condition was raised or cleared.", "enum": ["raised", "cleared"]}}
    channels = {
        f"call{what.title()}": _exchange(CALLS, f"call.{what}.{{source}}.{{outcome}}", [f"Call{what.title()}"], _SOURCE | outcome)
        for what in _CALL_EVENTS
    }
    channels |= {
        f"recording{what.title()}": _exchange(CALLS, f"recording.{what}.{{source}}", [f"Recording{what.title()}"], _SOURCE)
        for what in _RECORDING_EVENTS
    }
    channels |= {f"ops{_title(kind)}": _exchange(OPS, f"ops.{kind}.{{state}}", [f"Ops{_title(kind)}"], state) for kind in Kind}
    of_calls = [f"Call{what.title()}" for what in _CALL_EVENTS] + [f"Recording{what.title()}" for what in _RECORDING_EVENTS]
    return channels | {
        "callsJournal": _queue(CALLS_JOURNAL, of_calls, "A stream with the events of calls and recordings of 7 days."),
        "opsJournal": _queue(OPS_JOURNAL, [f"Ops{_title(kind)}" for kind in Kind], "A stream with operator events of 7 days."),
        "auditJournal": _queue(AUDIT_JOURNAL, [f"Audit{_title(each)}" for each in Action], "A stream with audited actions."),
        "callbacks": _exchange(CALLBACKS, None, [_RAW], {}, kind="fanout"),
        "callbacksJournal": _queue(CALLBACKS_JOURNAL, [_RAW], "A stream with the raw messages of 7 days."),
        "callbacksDead": _queue(CALLBACKS_DEAD, [_DEAD], "Raw messages that could not be folded."),
        "recordingsDead": _queue(RECORDINGS_DEAD, [_DEAD], "Recording jobs that ended without a recording."),
    }


def _exchange(
    exchange: str, address: str | None, messages: Iterable[str], parameters: Mapping[str, Json], *, kind: str = "topic"
) -> Json:
    binding = {"is": "routingKey", "exchange": {"name": exchange, "type": kind, "durable": True, "autoDelete": False}}
    channel = {"address": address, "description": f"The exchange `{exchange}`.", "messages": _refs(messages)}
    return channel | ({"parameters": dict(parameters)} if parameters else {}) | {"bindings": {"amqp": binding}}


def _queue(name: str, messages: Iterable[str], description: str) -> Json:
    queue = {"name": name, "durable": True, "exclusive": False, "autoDelete": False}
    binding = {"is": "queue", "queue": queue}
    return {"address": name, "description": description, "messages": _refs(messages), "bindings": {"amqp": binding}}


def _refs(messages: Iterable[str]) -> Json:
    return {name: {"$ref": f"#/components/messages/{name}"} for name in messages}


def _operation(name: str, channel: Json) -> Json:
    messages = [{"$ref": f"#/channels/{name}/messages/{message}"} for message in channel["messages"]]
    return {"action": "send", "channel": {"$ref": f"#/channels/{name}"}, "messages": messages}


def _messages() -> Json:
    known = examples()
    messages = {}
    for path, schema in schemas().items():
        if path in {RAW_MESSAGE, DEAD_LETTER}:
            continue
        event = next(kind for kind in known if kind.startswith("callfold.") and path_of(kind) == path)
        messages[schema["title"]] = {
            "name": event,
            "contentType": CLOUDEVENT,
            "headers": _TRACE,
            "payload": {"$ref": f"./schemas/{path}"},
            "examples": [{"name": "example", "payload": known[event]}],
        }
    dead = known["dead-letter"]
    messages[_RAW] = {
        "name": "raw-message",
        "contentType": JSON,
        "payload": {"$ref": f"./schemas/{RAW_MESSAGE}"},
        "examples": [{"name": "example", "payload": known["raw-message"]}],
    }
    messages[_DEAD] = {
        "name": "dead-letter",
        "contentType": JSON,
        "headers": {"$ref": f"./schemas/{DEAD_LETTER}#/$defs/DeadLetterHeaders"},
        "payload": {"$ref": f"./schemas/{DEAD_LETTER}#/properties/body"},
        "examples": [{"name": "example", "headers": dead["headers"], "payload": dead["body"]}],
    }
    return messages


def _title(name: str) -> str:
    return name.title().replace("_", "")
