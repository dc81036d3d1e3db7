"""Which events of a call wait for another attempt, so that later events of that call wait too (`order = "call"`).

The stream `forward.order.journal` has a record for each event that begins to wait, and one when it is over. A forwarder that
takes over reads it to its end first, so the order survives `kill -9`. See ADR 26.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import orjson

from shared.amqp.delivery import Delivery
from shared.amqp.publisher import Message
from shared.amqp.topology import FORWARD_ORDER_JOURNAL
from shared.log import get_logger

log = get_logger(__name__)

# A record of an event that waits no longer than this beyond its delay. Its copy may have been dropped from a full queue.
_GRACE_S: Final = 3600.0
# RabbitMQ keeps a message no longer than that. A record with another delay is not of Callfold.
_MAX_DELAY_S: Final = 4_294_967.0


@dataclass(frozen=True, slots=True)
class Waiting:
    """An event that waits: in the retry queue of `delay_s`, where it may be until `until`, in seconds since 1970."""

    delay_s: float
    until: float


class CallOrder:
    """The events that wait, by endpoint and call, in the order in which they began to."""

    def __init__(self, now: Callable[[], float]) -> None:
        """Take a function that returns the time, in seconds since 1970."""
        self._now = now
        self._waiting: defaultdict[tuple[str, str], dict[str, Waiting]] = defaultdict(dict)

    def blocked_for(self, endpoint: str, call: str, event_id: str) -> float | None:
        """Return the delay of the event before this one of the same call, or None if none of them waits."""
        lane = self._waiting.get((endpoint, call))
        if not lane:
            return None
        before: Waiting | None = None
        for waiting_id, waiting in lane.items():
            if waiting_id == event_id:
                break
            if waiting.until > self._now():
                before = waiting
        return None if before is None else before.delay_s

    def waits(self, endpoint: str, call: str, event_id: str, delay_s: float) -> Message:
        """Record that an event waits; returns the record for the stream."""
        waiting = Waiting(delay_s, self._now() + delay_s + _GRACE_S)
        self._add(endpoint, call, event_id, waiting)
        return _record(endpoint, call, event_id, waiting)

    def is_waiting(self, endpoint: str, call: str, event_id: str) -> bool:
        return event_id in self._waiting.get((endpoint, call), {})

    def ended(self, endpoint: str, call: str, event_id: str) -> Message:
        """Record that an event is delivered, or is a dead letter; returns the record for the stream."""
        self._remove(endpoint, call, event_id)
        return _record(endpoint, call, event_id, None)

    def apply(self, delivery: Delivery) -> None:
        """Apply a record of the stream, also of this process. Each record says what is so after it."""
        try:
            record = orjson.loads(delivery.body)
        except orjson.JSONDecodeError:
            record = None
        match record:
            case {"endpoint": str(endpoint), "call": str(call), "event_id": str(event_id), "delay_s": None}:
                self._remove(endpoint, call, event_id)
            case {
                "endpoint": str(endpoint),
                "call": str(call),
                "event_id": str(event_id),
                "delay_s": float() | int() as delay_s,
                "until": float() | int() as until,
            } if 0 < delay_s <= _MAX_DELAY_S:
                # A clock that was ahead wrote a later time.
                self._add(endpoint, call, event_id, Waiting(delay_s, min(until, self._now() + delay_s + _GRACE_S)))
            case _:
                log.warning("unexpected_message", offset=delivery.offset, routing_key=delivery.routing_key)

    def reset(self) -> None:
        """Forget everything: the stream was replaced."""
        self._waiting.clear()

    def _add(self, endpoint: str, call: str, event_id: str, waiting: Waiting) -> None:
        # An event that waits again keeps its position in the order.
        self._waiting[endpoint, call][event_id] = waiting

    def _remove(self, endpoint: str, call: str, event_id: str) -> None:
        lane = self._waiting.get((endpoint, call))
        if lane is not None:
            lane.pop(event_id, None)
            if not lane:
                del self._waiting[endpoint, call]


def _record(endpoint: str, call: str, event_id: str, waiting: Waiting | None) -> Message:
    body = orjson.dumps(
        {
            "endpoint": endpoint,
            "call": call,
            "event_id": event_id,
            "delay_s": None if waiting is None else waiting.delay_s,
            "until": None if waiting is None else waiting.until,
        }
    )
    return Message("", FORWARD_ORDER_JOURNAL, body, uuid.uuid4().hex)
