"""The spans of a recording job: its processing, which continues the trace of its call, and what it does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from shared.amqp.delivery import Delivery
from shared.amqp.topology import CALLS, RECORDINGS
from shared.domain.recording import RecordingJob
from shared.tracing import conventions
from shared.tracing.contexts import TRACEPARENT, parse_context
from shared.tracing.conventions import Described, Kind, Operation, consumed_from, messaging, published_to
from shared.tracing.spans import Span, active, current

_QUEUE = consumed_from(RECORDINGS, RECORDINGS, RECORDINGS)


@contextmanager
def processing(delivery: Delivery) -> Iterator[None]:
    """Record the body as the processing of a job, if it is traced. The job's message is its parent, and the only link."""
    context = parse_context(delivery.headers.get(TRACEPARENT))
    with active(messaging(Operation.PROCESS, _QUEUE), parent=context, links=[context] if context else []):
        yield


def describe_job(job: RecordingJob) -> None:
    """Name the call that the active span is about."""
    if span := current():
        span.set(conventions.SOURCE, job.source)
        span.set(conventions.CALL, job.call)


def describe_failure(reason: str) -> None:
    """Mark the active span as failed, for the reason of the attempt."""
    if span := current():
        span.fail(reason)


def settling() -> AbstractContextManager[object]:
    """Record the body as the ack of a job."""
    return active(messaging(Operation.SETTLE, _QUEUE))


def storing() -> AbstractContextManager[Span | None]:
    """Record the body as the storage of a recording."""
    return active(Described("store recording", Kind.INTERNAL, {}))


def publishing(routing_key: str, event_id: str) -> AbstractContextManager[Span | None]:
    """Record the body as the publication of an event."""
    return active(messaging(Operation.SEND, published_to(CALLS, routing_key), message_id=event_id))


def headers_of(span: Span | None) -> dict[str, str]:
    """Return the header of a message that a span publishes."""
    return {} if span is None else {TRACEPARENT: str(span.context)}
