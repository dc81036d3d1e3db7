"""Which events an endpoint takes. RabbitMQ has selected them by its bindings; these may be older than the endpoint's filters."""

from __future__ import annotations

from callfold_client.topics import topic_matcher
from callfold_client.where import Where
from shared.config.endpoints import Endpoint
from worker.forwarding.outgoing_event import OutgoingEvent


class Selection:
    """The topic patterns and the condition of an endpoint."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._matchers = [topic_matcher(pattern) for pattern in endpoint.filters]
        self._where = None if endpoint.where is None else Where(endpoint.where)

    def takes(self, event: OutgoingEvent) -> bool:
        """Return whether the endpoint takes an event."""
        if not any(matches(event.routing_key) for matches in self._matchers):
            return False
        return self._where is None or self._where.matches(event.content)
