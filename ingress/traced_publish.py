"""The span of a publish of callbacks, linked to the creation of each that is traced."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from ingress.outgoing_message import OutgoingMessage
from shared.domain.raw_event import receipt_times
from shared.tracing.contexts import CREATION_CONTEXTS, unpack
from shared.tracing.conventions import Operation, messaging, published_to
from shared.tracing.spans import active_batch, is_on


def publishing(message: OutgoingMessage) -> AbstractContextManager[object]:
    """Record the body as the publish of a message, if it has traced callbacks."""
    links = list(unpack(message.headers.get(CREATION_CONTEXTS)).values()) if is_on() else []
    if not links:
        return nullcontext()
    destination = published_to(message.exchange, message.routing_key)
    return active_batch(messaging(Operation.SEND, destination, is_batch=True, count=len(receipt_times(message.body))), links)
