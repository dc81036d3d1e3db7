"""The prefetch of the fold follows the number of callbacks in a message."""

from __future__ import annotations

from typing import cast

import pytest

from shared.amqp.consumer import Consumer
from worker.folding.prefetch import FEWEST_MESSAGES, MOST_MESSAGES, FoldPrefetch


class _Consumer:
    def __init__(self) -> None:
        self.prefetch = FEWEST_MESSAGES
        self.changes: list[int] = []

    def set_prefetch(self, prefetch: int) -> None:
        self.prefetch = prefetch
        self.changes.append(prefetch)


@pytest.fixture
def consumer() -> _Consumer:
    return _Consumer()


@pytest.fixture
def prefetch(consumer: _Consumer) -> FoldPrefetch:
    return FoldPrefetch(cast("Consumer", consumer))


def test_with_messages_of_one_callback_it_grows_within_a_few_batches_to_its_most(
    consumer: _Consumer, prefetch: FoldPrefetch
) -> None:
    for _ in range(5):
        prefetch.observe(consumer.prefetch, consumer.prefetch)
    assert consumer.prefetch == MOST_MESSAGES
    assert len(consumer.changes) <= 3
    for _ in range(100):
        prefetch.observe(100, 100)
    assert len(consumer.changes) <= 3


@pytest.mark.parametrize("callbacks", [1, 20, 50, 100, 200, 500])
def test_no_more_than_some_thousand_callbacks_are_in_flight(consumer: _Consumer, prefetch: FoldPrefetch, callbacks: int) -> None:
    prefetch.observe(1000, 1000)
    for _ in range(20):
        prefetch.observe(2, 2 * callbacks)
    assert consumer.prefetch * callbacks <= 6000
    assert consumer.prefetch * callbacks >= min(2000, MOST_MESSAGES * callbacks)


def test_small_differences_and_markers_change_nothing(consumer: _Consumer, prefetch: FoldPrefetch) -> None:
    for _ in range(20):
        prefetch.observe(10, 1000)
    changes = len(consumer.changes)
    for number in range(100):
        prefetch.observe(10, 800 + 40 * (number % 10))
        prefetch.observe(0, 0)
    assert len(consumer.changes) == changes
