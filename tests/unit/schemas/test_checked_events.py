"""The check of every message that tests publish or read finds what it should, and lets through what is no event of Callfold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import aio_pika
import orjson
import pamqp.commands
import pytest
from aiormq.abc import DeliveredMessage
from pamqp.header import ContentHeader

from ingress.outgoing_message import OutgoingMessage
from shared.amqp.publisher import Message
from shared.amqp.topology import AUDIT_JOURNAL, CALLBACKS, CALLBACKS_DEAD, CALLBACKS_FOLD, CALLS, MARKER_BODY, OPS
from shared.domain.cloud_event import CLOUDEVENT
from shared.domain.raw_event import join
from shared.schemas.examples import examples
from tests.helpers.checked_events import problems_of_message, take

EVENT = examples()["callfold.call.completed.v1"]
RAW = examples()["raw-message"]


def publish(event: object) -> None:
    Message(CALLS, "call.completed.acme.answered", orjson.dumps(event), "id", CLOUDEVENT)


def read(event: object) -> None:
    DeliveredMessage(pamqp.commands.Basic.Deliver(), ContentHeader(), orjson.dumps(event), None)  # type: ignore[arg-type]


def publish_without_callfold(event: object) -> None:
    aio_pika.Message(orjson.dumps(event))


@pytest.mark.parametrize("pass_on", [publish, publish_without_callfold, read])
def test_an_event_is_checked_when_it_is_made_and_when_it_arrives(pass_on: Callable[[object], None]) -> None:
    for event in (EVENT, {"type": "com.example.order", "id": 5}, 7):
        pass_on(event)
    assert take() == []
    pass_on({**EVENT, "data": {**EVENT["data"], "outcome": "lost"}})
    (problem,) = take()
    assert problem.startswith('callfold.call.completed/v1.json data.outcome: "lost" is not one of')


def changed(name: str, **changes: object) -> bytes:
    return orjson.dumps({**examples()[name], **changes})


@pytest.mark.parametrize(
    ("message", "writer"),
    [
        (Message("elsewhere", "", changed("callfold.call.completed.v1"), "id", CLOUDEVENT), "x"),
        (Message("", CALLBACKS_FOLD, MARKER_BODY, "id"), "worker.folding.barrier_rounds"),
        (Message(CALLBACKS, "", b"[1]", "id"), "ingress.spool_drain"),
        (Message("", CALLBACKS_DEAD, b"?", "id", headers={"reason": "undecodable", "detail": "", "first_seen": ""}), "worker.x"),
    ],
)
def test_what_is_valid_or_was_sent_by_others_is_no_problem(message: Message, writer: str) -> None:
    assert problems_of_message(message, message.content_type, writer) == []


@pytest.mark.parametrize(
    ("make", "writer"),
    [
        (lambda: Message(OPS, "x", changed("callfold.ops.spooling.v1", dataschema="x"), "id"), "shared.runtime.ops_reporter"),
        (lambda: Message("", AUDIT_JOURNAL, changed("callfold.audit.drop.v1", time=""), "id"), "shared.runtime.audit"),
        (lambda: Message(CALLS, "x", b'{"type":"callfold.call.lost.v1"}', "id"), "x"),
        (lambda: Message(CALLBACKS, "", join([orjson.dumps({**RAW[0], "newer": 1})]), "id"), "worker.folding.timers"),
        (lambda: OutgoingMessage("", CALLBACKS_DEAD, {"reason": "tired"}, b"[]"), "ingress.callbacks"),
    ],
)
def test_what_does_not_match_its_schema_is_a_problem(make: Callable[[], Any], writer: str) -> None:
    assert problems_of_message(make(), "", writer)
    take()
