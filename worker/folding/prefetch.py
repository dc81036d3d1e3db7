"""How many messages a worker has in flight, so that they have a limited number of callbacks.

A message of ingress has 1 to 500 callbacks. With a fixed prefetch, the first workers could take a whole backlog of large
messages, and one that starts later would have nothing to do.
"""

from __future__ import annotations

from shared import metrics
from shared.amqp.consumer import Consumer

# In flight at one worker, going by their mean size.
_CALLBACKS = 4000
# Enough to fill a batch while the previous one is folded.
MOST_MESSAGES = 128
# With messages of 500 callbacks. A worker begins with it, because it does not know the messages yet.
FEWEST_MESSAGES = 8
# What a message counts in the mean, if all that follow it are folded in one batch.
_OLDER = 0.8
# A change needs a new consumer, so small ones are not worth it.
_TOO_MANY, _TOO_FEW = 1.5, 2


class FoldPrefetch:
    """Adapts the prefetch of the consumer of `callbacks.fold` to the mean number of callbacks in a message."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self._mean: float | None = None

    def observe(self, messages: int, callbacks: int) -> None:
        """Count the messages of a batch, markers left out, and their callbacks."""
        if not messages:
            return
        older = 0 if self._mean is None else _OLDER**messages
        self._mean = older * (self._mean or 0) + (1 - older) * callbacks / messages
        prefetch = min(MOST_MESSAGES, max(FEWEST_MESSAGES, round(_CALLBACKS / max(1, self._mean))))
        current = self._consumer.prefetch
        if current > prefetch * _TOO_MANY or prefetch >= current * _TOO_FEW or (prefetch == MOST_MESSAGES and current < prefetch):
            self._consumer.set_prefetch(prefetch)
            metrics.FOLD_PREFETCH.set(prefetch)
