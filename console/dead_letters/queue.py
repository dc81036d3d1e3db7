"""Dead letters as they are in their queues, and filters on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import orjson

from console.dead_letters.names import DeadLetterQueue
from console.durations import ago
from shared.amqp.dead_letters import DETAIL, FIRST_SEEN, REASON
from shared.amqp.delivery import Delivery
from shared.amqp.topology import FORWARD_PREFIX
from shared.domain.times import rfc3339
from shared.domain.unread_body import readable
from shared.masking import mask_credentials

__all__ = ["ID_CHARACTERS", "ROUTING_KEY", "DeadLetterQueue", "Filter", "QueuedDeadLetter", "decode"]

ID_CHARACTERS = 12
ENDPOINT, ROUTING_KEY = "endpoint", "routing_key"
_EVENT_SOURCE = "/callfold/"


@dataclass(frozen=True, slots=True)
class Filter:
    """Selects the dead letters that match every given field."""

    ids: tuple[str, ...] = ()
    reason: str | None = None
    source: str | None = None
    since: str | None = None
    endpoint: str | None = None

    @property
    def is_everything(self) -> bool:
        return self == Filter()

    @property
    def has_whole_ids(self) -> bool:
        """True if ids are given and none is a mere prefix, so that each stands for one message."""
        return bool(self.ids) and all(len(prefix) >= ID_CHARACTERS for prefix in self.ids)

    def matcher(self) -> Callable[[QueuedDeadLetter], bool]:
        earliest = rfc3339(ago(self.since)) if self.since else None

        def matches(dead_letter: QueuedDeadLetter) -> bool:
            return (
                (not self.ids or any(dead_letter.id.startswith(prefix) for prefix in self.ids))
                and self.reason in (None, dead_letter.reason)
                and self.endpoint in (None, dead_letter.endpoint)
                and (self.source is None or self.source in dead_letter.sources)
                and (earliest is None or dead_letter.first_seen >= earliest)
            )

        return matches


@dataclass(frozen=True, slots=True)
class QueuedDeadLetter:
    """One dead letter: the original message and why it was dead-lettered."""

    id: str
    reason: str
    detail: str
    first_seen: str
    delivery: Delivery

    @property
    def endpoint(self) -> str | None:
        """The webhook to which an event could not be delivered. RabbitMQ names only its queue, if that was full."""
        name = self.delivery.headers.get(ENDPOINT)
        if isinstance(name, str):
            return name
        queue = str(_death(self.delivery.headers).get("queue", ""))
        return queue.removeprefix(FORWARD_PREFIX).partition(".")[0] if queue.startswith(FORWARD_PREFIX) else None

    @property
    def routing_key(self) -> str:
        """The routing key with which an event was published."""
        key = self.delivery.headers.get(ROUTING_KEY)
        if isinstance(key, str):
            return key
        keys = _death(self.delivery.headers).get("routing-keys")
        return str(keys[0]) if isinstance(keys, list) and keys else ""

    @property
    def sources(self) -> set[str]:
        """The sources that the message body names."""
        try:
            body = orjson.loads(self.delivery.body)
        except orjson.JSONDecodeError:
            return set()
        elements = body if isinstance(body, list) else [body]
        named = (element.get("source") for element in elements if isinstance(element, dict))
        # That of an event is a path.
        return {source.removeprefix(_EVENT_SOURCE) for source in named if isinstance(source, str)}

    def describe(self, *, with_body: bool = False) -> dict[str, object]:
        """Return the fields that commands print and the HTTP API returns, with credentials masked."""
        fields: dict[str, object] = {
            "id": self.id,
            "reason": self.reason,
            "detail": mask_credentials(self.detail),
            "first_seen": self.first_seen,
            "sources": sorted(self.sources),
            "endpoint": self.endpoint,
        }
        return (
            fields | {"body": mask_credentials(readable(self.delivery.body).decode("utf-8", "replace"))} if with_body else fields
        )


def _death(headers: Mapping[str, object]) -> Mapping[str, object]:
    """Return what RabbitMQ recorded when it dead-lettered a message last."""
    deaths = headers.get("x-death")
    first = deaths[0] if isinstance(deaths, list) and deaths else None
    return first if isinstance(first, dict) else {}


def decode(delivery: Delivery) -> QueuedDeadLetter:
    """Read a message that Callfold dead-lettered, or one that RabbitMQ dead-lettered at its delivery limit."""
    headers = delivery.headers
    died = _death(headers)
    at = died.get("time")
    return QueuedDeadLetter(
        id=str(headers["message_id"])[:ID_CHARACTERS] or "?",
        reason=str(headers.get(REASON) or died.get("reason") or "unknown"),
        detail=str(headers.get(DETAIL) or f"dead-lettered by RabbitMQ: {died.get('reason', 'no reason given')}"),
        first_seen=str(headers.get(FIRST_SEEN) or (rfc3339(at.astimezone(UTC)) if isinstance(at, datetime) else "")),
        delivery=delivery,
    )
