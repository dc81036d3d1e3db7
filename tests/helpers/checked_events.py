"""Validates every event that Callfold publishes, or a test publishes or reads, against its schema without further fields.

It runs in the process of the tests and in the warm processes that they start. A message is checked when product code makes it,
and when it arrives. What is invalid goes to a file of the test process, which fails the test that runs then.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from functools import cache, wraps
from typing import Any, Final

import aio_pika
import jsonschema_rs
import orjson
from aiormq.abc import DeliveredMessage

from ingress.outgoing_message import OutgoingMessage
from shared.amqp.dead_letters import REASON
from shared.amqp.publisher import Message
from shared.amqp.topology import AUDIT_JOURNAL, CALLBACKS, CALLBACKS_DEAD, CALLS, MARKER_BODY, OPS, RECORDINGS_DEAD
from shared.domain.cloud_event import CLOUDEVENT
from shared.schemas.catalog import DEAD_LETTER, RAW_MESSAGE, path_of, schemas
from shared.schemas.generation import closed

FILE: Final = "TESTS_INVALID_EVENTS"
_SHOWN: Final = 5
_TYPE: Final = b'"type":"callfold.'
# What makes raw messages and dead letters of its own. Other code passes on what it was sent, which may be anything.
_WRITERS: Final = ("worker.", "ingress.callbacks", "console.dialing.")

_path: list[str] = []


@cache
def _validator(path: str) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(closed(schemas()[path]), validate_formats=True)


def problems_of(path: str, value: Any) -> list[str]:  # noqa: ANN401 - JSON
    """Return why a value does not match a schema; [] if it does."""
    if path not in schemas():
        return [f"there is no schema {path}"]
    validator = _validator(path)
    if validator.is_valid(value):
        return []
    found = [f"{'.'.join(map(str, error.instance_path))}: {error.message}" for error in validator.iter_errors(value)]
    return [f"{path} {problem}"[:400] for problem in found[:_SHOWN]]


def problems_of_event(body: bytes) -> list[str]:
    """Return why an event does not match its schema; [] if it does, and for a message that is no event of Callfold."""
    try:
        event = orjson.loads(body)
        kind = event["type"]
    except (ValueError, TypeError, KeyError):
        return []
    is_attempt = "event_id" in event  # a record of `forward.journal`, which names the type of its event
    return problems_of(path_of(kind), event) if str(kind).startswith("callfold.") and not is_attempt else []


def problems_of_message(message: Message | OutgoingMessage, content_type: str, writer: str) -> list[str]:
    """Return why a message does not match its schema; `writer` is the module that made it."""
    if content_type == CLOUDEVENT or message.exchange in {CALLS, OPS} or message.routing_key == AUDIT_JOURNAL:
        return problems_of_event(message.body)
    if not writer.startswith(_WRITERS):
        return []
    if message.exchange == CALLBACKS and message.body != MARKER_BODY:
        return problems_of(RAW_MESSAGE, orjson.loads(message.body))
    if message.routing_key in {CALLBACKS_DEAD, RECORDINGS_DEAD} and REASON in message.headers:
        return problems_of(DEAD_LETTER, {"headers": dict(message.headers), "body": _json(message.body)})
    return []


def _json(body: bytes) -> object:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return body.decode(errors="replace")


def _report(problems: list[str]) -> None:
    if problems:
        with open(_path[0], "a", encoding="utf-8") as file:  # noqa: PTH123 - one write, so that lines stay whole
            file.write("".join(f"{problem}\n" for problem in problems))


def install() -> None:
    """Check messages in this process from now on, and in those that are forked from it."""
    if FILE not in os.environ:
        handle, os.environ[FILE] = tempfile.mkstemp(prefix="invalid-events-")
        os.close(handle)
    _path[:] = [os.environ[FILE]]  # a forked process has another environment
    for path in schemas():  # a process that is forked has them
        _validator(path)
    _after_init(Message, lambda made, writer: problems_of_message(made, made.content_type, writer))
    _after_init(OutgoingMessage, lambda made, writer: problems_of_message(made, "", writer))
    for library in (DeliveredMessage, aio_pika.Message):  # the latter is what tests publish
        _after_init(library, lambda passed, _: problems_of_event(passed.body) if _claims_to_be_event(passed.body) else [])


def _claims_to_be_event(body: bytes) -> bool:
    """Return whether a message looks like an event of Callfold. Without `specversion` it is what another program may publish."""
    return _TYPE in body and b'"specversion"' in body


def _after_init(kind: type, check: Callable[[Any, str], list[str]]) -> None:
    original = kind.__init__  # type: ignore[misc]

    @wraps(original)
    def checked(self: object, *args: object, **kwargs: object) -> None:
        original(self, *args, **kwargs)
        _report(check(self, sys._getframe(1).f_globals["__name__"]))

    kind.__init__ = checked  # type: ignore[misc]


def take() -> list[str]:
    """Return what was invalid since the last call."""
    path = _path[0]
    if not os.path.getsize(path):  # noqa: PTH202 - asked after each test
        return []
    with open(path, "r+", encoding="utf-8") as file:  # noqa: PTH123 - as above
        lines = file.read().splitlines()
        file.truncate(0)
    return lines
