"""The published events of a journal: validation, age, and topic patterns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import orjson

from shared.amqp.delivery import Delivery
from shared.domain.raw_event import is_time
from shared.log import get_logger

log = get_logger(__name__)

Event = Mapping[str, Any]  # JSON


def read_event(delivery: Delivery) -> Event | None:
    """Read a published event. Log any other message and return None: every client of the broker may publish to the exchange."""
    try:
        event = orjson.loads(delivery.body)
    except orjson.JSONDecodeError:
        event = None
    match event:
        case {
            "id": str(),
            "subject": str(),
            "time": str(),
            "type": str(kind),
            "data": {"source": str(), "request_id": _} as data,
        }:
            is_call = kind.startswith("callfold.call.")
            if kind.startswith("callfold.recording.") or (is_call and _is_record(data)):
                return cast("Event", event)
    log.warning("unexpected_message", offset=delivery.offset, routing_key=delivery.routing_key)
    return None


def read_ops_event(delivery: Delivery) -> Event | None:
    """Read an operator event. Log any other message and return None, as `read_event` does."""
    try:
        event = orjson.loads(delivery.body)
    except orjson.JSONDecodeError:
        event = None
    match event:
        case {"id": str(), "subject": str(), "time": str(), "type": str(kind), "data": dict()} if kind.startswith(
            "callfold.ops."
        ):
            return cast("Event", event)
    log.warning("unexpected_message", offset=delivery.offset, routing_key=delivery.routing_key)
    return None


def one_line(delivery: Delivery) -> bytes:
    """Return the JSON of a published event on one line. Line ends occur only between its tokens."""
    return delivery.body.replace(b"\r", b" ").replace(b"\n", b" ")


def _is_record(data: Mapping[str, object]) -> bool:
    match data:
        case {
            "revision": int(revision),
            "started_at": str(started_at),
            "outcome": str(),
            "close_reason": str(),
            "complete": bool(),
            "talk_seconds": float() | int() | None,
            "agent": agent,
            "dialed": dialed,
            "other_legs": list(others),
        }:
            legs = [leg for leg in (agent, dialed, *others) if leg is not None]
            return revision > 0 and is_time(started_at) and all(map(_is_leg, legs))
    return False


def _is_leg(leg: object) -> bool:
    match leg:
        case {
            "call_id": str(),
            "guid": str() | None,
            "state": str(),
            "recorded": bool(),
            "picked_up_at": str() | None,
            "missed_at": str() | None,
            "hung_up_at": str() | None,
        }:
            return True
    return False


def topic_matcher(pattern: str) -> Callable[[str], bool]:
    """Return a function that matches routing keys with a topic pattern of RabbitMQ: `*` is one word, `#` any number of words.

    A regular expression would backtrack without end, for a pattern with many `#` and a key with many words.
    """
    parts = pattern.split(".")

    def matches(routing_key: str) -> bool:
        key = routing_key.split(".")
        at = part = begin = 0
        after_hash: int | None = None
        while at < len(key):
            if part < len(parts) and parts[part] == "#":
                begin, part = at, part + 1
                after_hash = part
            elif part < len(parts) and parts[part] in {"*", key[at]}:
                at, part = at + 1, part + 1
            elif after_hash is not None:  # the last `#` takes one word more; those before it need no more
                begin, part = begin + 1, after_hash
                at = begin
            else:
                return False
        return all(rest == "#" for rest in parts[part:])

    return matches
