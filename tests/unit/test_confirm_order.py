"""A confirm counts only if RabbitMQ has stored the message: with a model of its streams, which get new leaders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from shared.amqp.confirm_order import ConfirmOrder, Publish

STREAMS = ("calls", "state.journal")
DESTINATIONS = (*STREAMS, "recordings")


@dataclass
class Stream:
    """A stream as one channel of RabbitMQ sees it: `rabbit_stream_queue` and the deduplication of its leader."""

    next_number: int = 1
    unconfirmed: dict[int, int] = field(default_factory=dict)
    """Delivery tags by number in the stream."""
    on_the_way: list[tuple[int, int]] = field(default_factory=list)
    """Numbers and delivery tags that the leader has not stored."""
    last_stored: int = 0
    stored: set[int] = field(default_factory=set)

    def deliver(self, tag: int) -> None:
        self.unconfirmed[self.next_number] = tag
        self.on_the_way.append((self.next_number, tag))
        self.next_number += 1

    def store(self, at_most: int) -> list[int]:
        """Store some of what is on the way; returns the delivery tags that are confirmed."""
        part, self.on_the_way = self.on_the_way[:at_most], self.on_the_way[at_most:]
        confirmed = []
        for number, tag in part:
            if number > self.last_stored:  # else it is a repeated one
                self.stored.add(tag)
                self.last_stored = number
            if number in self.unconfirmed:
                confirmed.append(self.unconfirmed.pop(number))
        return confirmed

    def change_leader(self) -> None:
        """The old leader has stored nothing that was on the way. The channel sends it again, with its tags as numbers."""
        self.on_the_way = [(tag, tag) for tag in sorted(self.unconfirmed.values())]


class Channel:
    """A channel that publishes to streams and to a queue."""

    def __init__(self) -> None:
        self._order = ConfirmOrder()
        self._streams = {name: Stream() for name in STREAMS}
        self._sent: list[tuple[str, Publish]] = []
        self._in_queue: list[int] = []

    def publish(self, name: str) -> None:
        exchange, routing_key = (name, "call.completed") if name == "calls" else ("", name)
        self._sent.append((name, self._order.add(exchange, routing_key, lambda: None)))
        tag = len(self._sent)
        if name in self._streams:
            self._streams[name].deliver(tag)
        else:
            self._in_queue.append(tag)

    def change_leader(self, name: str) -> None:
        self._streams[name].change_leader()

    def store(self, name: str, at_most: int) -> None:
        """Have a destination store some of what is on the way, and confirm it."""
        if name in self._streams:
            confirmed = self._streams[name].store(at_most)
        else:
            confirmed, self._in_queue = self._in_queue[:at_most], self._in_queue[at_most:]
        for tag in confirmed:
            self._sent[tag - 1][1].answer()

    def check(self) -> None:
        for tag, (name, publish) in enumerate(self._sent, 1):
            if name in self._streams:
                assert not publish.counts or tag in self._streams[name].stored
            else:
                assert publish.counts is publish.is_answered, "a queue does not wait for a stream"


DESTINATION = st.sampled_from(DESTINATIONS)
STEPS = st.lists(
    st.tuples(st.just(Channel.publish), DESTINATION)
    | st.tuples(st.just(Channel.change_leader), st.sampled_from(STREAMS))
    | st.tuples(st.just(Channel.store), DESTINATION, st.integers(1, 5)),
    max_size=60,
)


@given(STEPS)
def test_what_counts_is_stored_although_rabbitmq_confirms_what_it_has_not_stored(
    steps: list[tuple[Callable[..., None], *tuple[Any, ...]]],
) -> None:
    channel = Channel()
    for act, *arguments in steps:
        act(channel, *arguments)
        channel.check()


@given(st.permutations(range(6)))
def test_answers_in_any_order_count_in_the_order_of_the_publishes(answers: list[int]) -> None:
    order, counted = ConfirmOrder(), list[int]()
    publishes = [order.add("calls", str(number), partial(counted.append, number)) for number in range(6)]
    for done, number in enumerate(answers, 1):
        publishes[number].answer()
        first_open = min(set(range(6)) - set(answers[:done]), default=6)
        assert counted == list(range(first_open))
        assert [publish.counts for publish in publishes] == [each < first_open for each in range(6)]
