"""Which confirms of a channel count: RabbitMQ 3.10 also confirms messages that it has not stored.

When a stream gets a new leader, RabbitMQ sends it again what is unconfirmed. It numbers these messages by delivery tag, and all
others by their count in the stream. On a channel that publishes elsewhere too, the tags are ahead. The leader then takes later
messages for repeated ones. They are confirmed and lost (seen in 3.10.8; 4.0.5 sends the right numbers).

The first message that was sent again under a number too high is never confirmed. All that are lost come after it. So a confirm
counts once every earlier message to the same destination is confirmed. The rest is published again on another channel (ADR 22).
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable


class Publish:
    """One message on its channel.

    Attributes:
        is_answered: RabbitMQ has confirmed, rejected or returned it.
        counts: so it has with every earlier message to the same destination.
        on_counts: what is called then.
    """

    __slots__ = ("_lane", "counts", "is_answered", "on_counts")

    def __init__(self, lane: deque[Publish], on_counts: Callable[[], None]) -> None:
        self._lane, self.on_counts = lane, on_counts
        self.is_answered = self.counts = False

    def answer(self) -> None:
        """Take the answer of RabbitMQ: to this publish, and perhaps to later ones that waited for it."""
        self.is_answered = True
        lane = self._lane
        while lane and lane[0].is_answered:
            first = lane.popleft()
            first.counts = True
            first.on_counts()


class ConfirmOrder:
    """The unanswered publishes of one channel by destination, in their order."""

    def __init__(self) -> None:
        self._lanes: defaultdict[str, deque[Publish]] = defaultdict(deque)

    def add(self, exchange: str, routing_key: str, on_counts: Callable[[], None]) -> Publish:
        """Add the next publish of the channel. `on_counts` is called once its answer counts."""
        lane = self._lanes[exchange or routing_key]
        publish = Publish(lane, on_counts)
        lane.append(publish)
        return publish
