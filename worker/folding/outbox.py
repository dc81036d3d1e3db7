"""What a completed call publishes, as bytes that can lie in Redis until the broker has confirmed them."""

from __future__ import annotations

from collections.abc import Collection

import orjson

from shared.amqp.publisher import Message
from shared.amqp.topology import CALLS, RECORDINGS
from shared.domain.call import Call
from shared.domain.call_event import CLOUDEVENT, JSON, call_event, call_record
from shared.domain.recording_plan import recording_jobs

# Every job holds the record of its call, so many legs make a large one: neither Redis nor RabbitMQ must choke on it.
_MAX_BYTES = 16 << 20


def write_outbox(call: Call, revision: int, record_legs: Collection[str], *, before: str = "") -> bytes:
    """Write the call event and the recording jobs of one revision; `before` is the summary of the last one.

    Raises:
        ValueError: the call has so many legs that it is too large to publish.
    """
    record = call_record(call, revision)
    routing_key, event_id, body = call_event(call, record)
    _check_size(call, len(body) * (1 + len(call.legs)))  # before the jobs are there: they could fill the memory
    rows = [(CALLS, routing_key, event_id, CLOUDEVENT, body.decode())]
    jobs = recording_jobs(call, record, record_legs, before)
    rows += [(RECORDINGS, RECORDINGS, job.id, JSON, job.encode().decode()) for job in jobs]
    outbox = orjson.dumps(rows)
    _check_size(call, len(outbox))
    return outbox


def _check_size(call: Call, size: int) -> None:
    if size > _MAX_BYTES:
        raise ValueError(
            f"a call of {len(call.legs)} legs is too large to publish: does the adapter send one RequestID for all calls?"
        )


def read_outbox(outbox: bytes) -> list[Message]:
    """Read it back as messages, the call event first."""
    return [
        Message(exchange, routing_key, body.encode(), message_id, content_type)
        for exchange, routing_key, message_id, content_type, body in orjson.loads(outbox)
    ]
