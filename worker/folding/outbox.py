"""The outbox: the messages of one revision as bytes, stored in Redis until RabbitMQ has confirmed them."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import orjson

from shared.amqp.publisher import Message
from shared.amqp.topology import CALLS, RECORDINGS
from shared.domain.call import Call
from shared.domain.call_event import call_event, call_record, without_annotations, without_fields
from shared.domain.cloud_event import CLOUDEVENT, JSON
from shared.domain.recording_plan import recording_jobs

# Every job contains the record of its call, so the outbox of a call with many legs could be too large for Redis or RabbitMQ.
_MAX_BYTES = 16 << 20


def write_outbox(
    call: Call,
    revision: int,
    record_legs: Collection[str],
    *,
    before: str = "",
    country: str | None = None,
    bodies: Mapping[str, str] | None = None,
    traceparent: str = "",
) -> bytes:
    """Encode the call event and the recording jobs of one revision; `before` is the summary of the last one.

    `bodies` are those of the call's annotations, by digest.

    Every job contains the record, for its sidecar. If that is too much, the jobs have it without adapter values.

    Raises:
        ValueError: the call has too many legs to be published.
    """
    record = call_record(call, revision, country, bodies or {})
    routing_key, event_id, body = call_event(call, record, traceparent)
    job_record = without_annotations(record)
    job_bytes = len(orjson.dumps(job_record)) if call.annotations else len(body)
    if len(body) + job_bytes * len(call.legs) > _MAX_BYTES:
        job_record = without_fields(job_record)
        # Checked before the jobs are built, which could exhaust the memory.
        _check_size(call, len(body) + len(orjson.dumps(job_record)) * len(call.legs))
    rows = [(CALLS, routing_key, event_id, CLOUDEVENT, body.decode())]
    jobs = recording_jobs(call, job_record, record_legs, before)
    rows += [(RECORDINGS, RECORDINGS, job.id, JSON, job.encode().decode()) for job in jobs]
    outbox = orjson.dumps(rows)
    _check_size(call, len(outbox))
    return outbox


def _check_size(call: Call, size: int) -> None:
    if size > _MAX_BYTES:
        raise ValueError(
            f"a call of {len(call.legs)} legs is too large to publish. Does the adapter send one RequestID for all calls?"
        )


def read_outbox(outbox: bytes) -> list[Message]:
    """Decode an outbox into messages, the call event first."""
    return [
        Message(exchange, routing_key, body.encode(), message_id, content_type)
        for exchange, routing_key, message_id, content_type, body in orjson.loads(outbox)
    ]
