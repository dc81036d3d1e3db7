"""What is going on right now, once a second, for the live page: open calls, rates, outcomes, queues."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shared.domain.call import Call


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One moment.

    Attributes:
        at: when, RFC 3339 UTC.
        open_calls: the newest first, at most `OPEN_SHOWN`; `open_count` counts all.
        oldest_open_at: when the oldest open call started.
        callbacks: callbacks per second, one number for each of the last `SECONDS_SHOWN` seconds, the latest last.
        completions: calls completed by outcome since `since`.
        per_second_completed: calls completed, like `callbacks`.
        depths: messages that wait, by queue; None where RabbitMQ did not tell.
        problems: sentences about servers that are away.
    """

    at: str
    since: str
    open_calls: Sequence[Call]
    open_count: int
    oldest_open_at: str | None
    callbacks: Sequence[int]
    per_second_completed: Sequence[int]
    completions: Mapping[str, int]
    depths: Mapping[str, int | None]
    problems: Sequence[str] = ()


OPEN_SHOWN = 50
SECONDS_SHOWN = 120
