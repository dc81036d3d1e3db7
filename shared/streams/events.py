"""The published events of a journal. The Python client decides what is one; any other message is logged."""

from __future__ import annotations

from collections.abc import Callable

from callfold_client.envelope import Json, one_line
from callfold_client.envelope import read_event as read_call_or_recording
from callfold_client.envelope import read_ops_event as read_operator_event
from callfold_client.errors import NotAnEventError
from callfold_client.topics import topic_matcher
from shared.amqp.delivery import Delivery
from shared.log import get_logger

__all__ = ["Event", "one_line", "read_event", "read_ops_event", "topic_matcher"]

log = get_logger(__name__)

Event = Json


def read_event(delivery: Delivery) -> Event | None:
    """Read a published event. Log any other message and return None: every client of the broker may publish to the exchange."""
    return _read(delivery, read_call_or_recording)


def read_ops_event(delivery: Delivery) -> Event | None:
    """Read an operator event. Log any other message and return None, as `read_event` does."""
    return _read(delivery, read_operator_event)


def _read(delivery: Delivery, read: Callable[[bytes], Event]) -> Event | None:
    try:
        return read(delivery.body)
    except NotAnEventError:
        log.warning("unexpected_message", offset=delivery.offset, routing_key=delivery.routing_key)
        return None
