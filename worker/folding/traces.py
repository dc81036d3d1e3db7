"""The spans of the fold: one for a batch, linked to each traced callback, and one for each message that it publishes.

The trace of a call goes on from the callback that led to a revision, which is the parent of the publication. The spans of
publications have ids that follow from those of their messages. They are recorded once RabbitMQ has confirmed the messages.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace

import orjson

from shared.amqp.delivery import Delivery
from shared.amqp.publisher import Message
from shared.amqp.topology import CALLBACKS, CALLBACKS_FOLD, CALLS, RECORDINGS
from shared.domain.call_event import event_id_of, traceparent_of
from shared.domain.ids import CallKey, first_use
from shared.domain.raw_event import CallbackEvent, RawEvent, Undecodable, receipt_times
from shared.domain.times import microseconds
from shared.log import get_logger
from shared.state.stored_call import Publication
from shared.tracing import conventions
from shared.tracing.contexts import (
    CREATION_CONTEXTS,
    TRACEPARENT,
    TraceContext,
    parse_context,
    root_of,
    span_of,
    unpack,
)
from shared.tracing.conventions import Attributes, Kind, Operation, consumed_from, messaging, published_to
from shared.tracing.spans import Position, active, active_batch, current, is_on, record, root_context

log = get_logger(__name__)
_QUEUE = consumed_from(CALLBACKS, "", CALLBACKS_FOLD)


def processing(deliveries: Iterable[Delivery]) -> AbstractContextManager[object]:
    """Record the body as the processing of a batch, if it has traced callbacks."""
    if not is_on():
        return nullcontext()
    traced = [delivery for delivery in deliveries if CREATION_CONTEXTS in delivery.headers]
    links = [context for delivery in traced for context in unpack(delivery.headers[CREATION_CONTEXTS]).values()]
    if not links:
        return nullcontext()
    count = sum(len(receipt_times(delivery.body)) for delivery in deliveries)
    return active_batch(messaging(Operation.PROCESS, _QUEUE, is_batch=True, count=count), links)


@contextmanager
def settling(deliveries: Sequence[Delivery]) -> Iterator[None]:
    """Record the body as the ack of a batch, if it is traced."""
    with active(messaging(Operation.SETTLE, _QUEUE, is_batch=True, count=len(deliveries))) if current() else nullcontext():
        yield


def with_contexts(events: Sequence[RawEvent | Undecodable], header: object) -> Sequence[RawEvent | Undecodable]:
    """Return the events of a message, each callback with its context from the header of the message."""
    contexts = unpack(header) if header else {}
    if not contexts:
        return events
    return [
        replace(event, traceparent=str(contexts[position]))
        if position in contexts and isinstance(event, CallbackEvent)
        else event
        for position, event in enumerate(events)
    ]


def trace_of_publication(key: CallKey, revision: int, events: Iterable[RawEvent]) -> tuple[str, tuple[str, ...]]:
    """Return the context of the event of a revision, and those of the callbacks that led to it; ('', ()) if it is not sampled."""
    if not is_on():
        return "", ()
    traced = [event for event in events if isinstance(event, CallbackEvent) and event.traceparent]
    traced.sort(key=lambda event: event.received_at, reverse=True)
    causes = tuple(event.traceparent for event in traced)
    root = (parse_context(causes[0]) if causes else None) or root_context(_whole(key))
    if root is None:
        return "", ()
    return str(root._replace(span_id=span_of(event_id_of(key, revision)))), causes


def with_trace_headers(messages: Sequence[Message]) -> list[Message]:
    """Return the messages of a revision, each with its context in a header if the event has one."""
    event, *jobs = messages
    context = parse_context(traceparent_of(event.body))
    if context is None:
        return [*messages]
    contexts = [context, *(_context_of(job, context, event) for job in jobs)]
    pairs = zip(messages, contexts, strict=True)
    return [replace(message, headers={**message.headers, TRACEPARENT: str(each)}) for message, each in pairs]


def trace_id_of(event: Message) -> dict[str, str]:
    """Return the trace of an event, for a log line."""
    context = parse_context(event.headers.get(TRACEPARENT))
    return {} if context is None else {"trace_id": f"{context.trace_id:032x}"}


def record_publication(publication: Publication, messages: Sequence[Message], began_ns: int) -> None:
    """Record the publication of a revision, given its messages. The first revision is the end of the call's own span."""
    context = parse_context(messages[0].headers.get(TRACEPARENT)) if is_on() else None
    if context is None:
        return
    try:
        _record_publication(publication, messages, context, began_ns)
    except Exception:  # a bug here must not stop the fold: the revision is published and marked
        log.exception("publication_not_traced", id=messages[0].message_id)


def _record_publication(publication: Publication, messages: Sequence[Message], context: TraceContext, began_ns: int) -> None:
    event, *jobs = messages
    key = publication.key
    about: Attributes = {conventions.SOURCE: key.source, conventions.CALL: key.call}
    causes = [each for cause in publication.causes if (each := parse_context(cause))]
    batch = current()
    links = [*causes[1:], *([batch.context] if batch else [])]
    described = messaging(Operation.SEND, published_to(CALLS, event.routing_key), message_id=event.message_id)
    described = described.about({**about, conventions.REVISION: publication.revision})
    parent = causes[0] if causes else root_of(_whole(key))
    record(described, Position(parent, links, span_id=context.span_id, start_ns=began_ns))
    for job in jobs:
        described = messaging(Operation.SEND, published_to(RECORDINGS, RECORDINGS), message_id=job.message_id).about(about)
        record(described, Position(context, span_id=_context_of(job, context, event).span_id, start_ns=began_ns))
    if publication.revision == 1:
        _record_call(key, event, about)


def _record_call(key: CallKey, event: Message, about: Attributes) -> None:
    """Record the call itself, which has its callbacks as children. A later use of a RequestID is a child of the first one."""
    body = orjson.loads(event.body)
    data = body["data"]
    start_us, end_us = (microseconds(data[name] or body["time"]) for name in ("started_at", "ended_at"))
    is_first = key.call == first_use(key.call)
    root = root_of(_whole(key))
    where = Position(
        None if is_first else root,
        trace_id=root.trace_id,
        span_id=root.span_id if is_first else span_of(str(key)),
        start_ns=start_us * 1000,
    )
    described = conventions.Described("call", Kind.INTERNAL, {**about, conventions.OUTCOME: data["outcome"]})
    record(described, where, end_ns=max(start_us, end_us) * 1000)


def _context_of(job: Message, context: TraceContext, event: Message) -> TraceContext:
    """Return the context of a recording job. Another revision may have a job with the same id."""
    return context._replace(span_id=span_of(f"{event.message_id} {job.message_id}"))


def _whole(key: CallKey) -> str:
    """Return the name of the call in which ingress sees all uses of a RequestID."""
    return f"{key.source}/{first_use(key.call)}"
