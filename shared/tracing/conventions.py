"""The names, kinds and attributes of spans, by the semantic conventions of OpenTelemetry for messaging (with RabbitMQ) and HTTP.

A span has no query, number, name of a person or credential in its attributes. Paths of recordings can be credentials too.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NamedTuple

Attributes = Mapping[str, str | int | bool]

SOURCE: Final = "callfold.source"
CALL: Final = "callfold.call"
OUTCOME: Final = "callfold.outcome"
REVISION: Final = "callfold.revision"
RESULT: Final = "callfold.recording.result"
BYTES: Final = "callfold.recording.bytes"
ERROR: Final = "error.type"
STATUS: Final = "http.response.status_code"
# The path and query of a recording are credentials.
_HIDDEN_PATH = "/REDACTED"
_EVENT_PARTS = 4


class Kind(StrEnum):
    """Kinds of spans, with the names of OpenTelemetry."""

    INTERNAL = "INTERNAL"
    SERVER = "SERVER"
    CLIENT = "CLIENT"
    PRODUCER = "PRODUCER"
    CONSUMER = "CONSUMER"


class Operation(StrEnum):
    """Types of messaging operations that Callfold has. Its consumers are pushed to, so none is `receive`."""

    CREATE = "create"
    SEND = "send"
    PROCESS = "process"
    SETTLE = "settle"


_NAMES: Final = {
    Operation.CREATE: "create",
    Operation.SEND: "publish",
    Operation.PROCESS: "process",
    Operation.SETTLE: "ack",
}


class Described(NamedTuple):
    """A span before it begins."""

    name: str
    kind: Kind
    attributes: Attributes

    def about(self, attributes: Attributes) -> Described:
        """Return it with further attributes."""
        return self._replace(attributes={**self.attributes, **attributes})


def messaging(
    operation: Operation, destination: Destination, *, is_batch: bool = False, count: int = 0, message_id: str = ""
) -> Described:
    """Describe an operation on messages. `count` is the size of a batch, `message_id` the id of a single message."""
    kinds = {
        Operation.CREATE: Kind.PRODUCER,
        # The context of a batch is not that of its messages.
        Operation.SEND: Kind.CLIENT if is_batch else Kind.PRODUCER,
        Operation.PROCESS: Kind.CONSUMER,
        Operation.SETTLE: Kind.CLIENT,
    }
    attributes: dict[str, str | int | bool] = {
        "messaging.system": "rabbitmq",
        "messaging.operation.type": operation,
        "messaging.operation.name": _NAMES[operation],
        "messaging.destination.name": destination.name,
    }
    if destination.template:
        attributes["messaging.destination.template"] = destination.template
    if destination.routing_key:
        attributes["messaging.rabbitmq.destination.routing_key"] = destination.routing_key
    if is_batch:
        attributes["messaging.batch.message_count"] = count
    if message_id:
        attributes["messaging.message.id"] = message_id
    return Described(f"{_NAMES[operation]} {destination.template or destination.name}", kinds[operation], attributes)


class Destination(NamedTuple):
    """A destination of messages. If its name has many forms, the template has what they have in common."""

    name: str
    routing_key: str = ""
    template: str = ""


def published_to(exchange: str, routing_key: str) -> Destination:
    """Return a destination as its producer names it. The routing key of an event names its source, and perhaps an outcome."""
    name = ":".join(part for part in (exchange, routing_key) if part) or "amq.default"
    parts = routing_key.split(".")
    if exchange == "calls":
        variable = ["{source}", "{outcome}"] if len(parts) == _EVENT_PARTS else ["{source}"]
        return Destination(name, routing_key, f"{exchange}:{'.'.join([*parts[:2], *variable])}")
    return Destination(name, routing_key)


def consumed_from(exchange: str, routing_key: str, queue: str) -> Destination:
    """Return a destination as its consumer names it."""
    parts = [exchange, routing_key, queue if queue != routing_key else ""]
    return Destination(":".join(part for part in parts if part), routing_key)


def callback_request(method: str, source: str, call: str, scheme: str) -> Described:
    """Describe the request of a callback."""
    route = "/callbacks/{source}"
    attributes = {
        "http.request.method": method,
        "http.route": route,
        "url.path": f"/callbacks/{source}",
        "url.scheme": scheme,
        SOURCE: source,
        CALL: call,
    }
    return Described(f"{method} {route}", Kind.SERVER, attributes)


def download_request(scheme: str, host: str, port: int, *, resends: int) -> Described:
    """Describe a request for a recording, whose path and query are not shown."""
    attributes: dict[str, str | int | bool] = {
        "http.request.method": "GET",
        "url.full": f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}{_HIDDEN_PATH}",
        "server.address": host,
        "server.port": port,
    }
    if resends:
        attributes["http.request.resend_count"] = resends
    return Described("GET", Kind.CLIENT, attributes)
