"""RabbitMQ topology as data. `link.py` declares it; nothing else names an argument of a queue.

Works unchanged on RabbitMQ 3.10 to 4.x: every option that changed its default between them is written out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

CALLBACKS = "callbacks"
CALLBACKS_FOLD = "callbacks.fold"
CALLBACKS_JOURNAL = "callbacks.journal"
CALLBACKS_DEAD = "callbacks.dead"
CALLS = "calls"
CALLS_JOURNAL = "calls.journal"
AUDIT_JOURNAL = "audit.journal"
RECORDINGS = "recordings"
RECORDINGS_DEAD = "recordings.dead"

# Headers of raw messages that come out of a spool: its name, when the oldest callback left in it was received ('' where none
# is), and when that was seen.
SPOOL, SPOOL_OLDEST, SPOOL_SEEN = "spool", "spool_oldest", "spool_seen"
# A marker of a round (see barrier.py): a message of the queue `callbacks.fold` alone, without events; the header has the number.
MARKER, MARKER_BODY = "marker", b"[]"

# How often a message is given out again before the broker gives it up.
DELIVERY_LIMIT = 20

_MIB = 1 << 20
_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Exchange:
    name: str
    type: str


@dataclass(frozen=True, slots=True)
class Queue:
    name: str
    arguments: Mapping[str, str | int]


@dataclass(frozen=True, slots=True)
class Binding:
    queue: str
    exchange: str
    routing_key: str


@dataclass(frozen=True, slots=True)
class Topology:
    """Exchanges, queues and bindings; all durable, declared in this order by whoever starts first."""

    exchanges: tuple[Exchange, ...] = ()
    queues: tuple[Queue, ...] = ()
    bindings: tuple[Binding, ...] = ()


_WORK: Mapping[str, str | int] = {
    "x-queue-type": "quorum",  # confirmed means fsynced by a majority
    "x-delivery-limit": DELIVERY_LIMIT,  # 4.x has a default, 3.x none: the same on both, and a poison message leaves the queue
    "x-overflow": "reject-publish",  # full means a refused publish, never a dropped message; at-least-once asks for it
    "x-dead-letter-strategy": "at-least-once",  # at-most-once could lose the message between the two queues
    "x-dead-letter-exchange": "",  # the default exchange routes by queue name: no binding that could be missing
}

_DEAD: Mapping[str, str | int] = {
    "x-queue-type": "quorum",
    "x-delivery-limit": 1_000_000_000,  # 4.x would drop a letter that was looked at 20 times
    # Unbounded on purpose: a dead letter is a callback that exists nowhere else. Depth is a metric to alarm on.
    "x-overflow": "reject-publish",
}


def _journal(segment_bytes: int, max_bytes: int) -> Mapping[str, str | int]:
    return {
        "x-queue-type": "stream",
        "x-max-age": "7D",
        "x-stream-max-segment-size-bytes": segment_bytes,  # retention drops whole segments
        "x-max-length-bytes": max_bytes,  # a bound on the disk, far above a week of a large contact centre
    }


def retry_queue(delay_s: float) -> str:
    """Name the queue in which a recording job waits for so many seconds."""
    return f"{RECORDINGS}.retry.{delay_s:g}s"


def _retry(delay_s: float) -> Queue:
    return Queue(
        retry_queue(delay_s),
        {
            "x-queue-type": "quorum",
            "x-message-ttl": round(delay_s * 1000),  # the wait is kept by the broker: no process has to live through it
            "x-overflow": "reject-publish",
            "x-dead-letter-strategy": "at-least-once",
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": RECORDINGS,
        },
    )


def topology(recording_retry_s: Iterable[float]) -> Topology:
    """Describe everything Callfold needs in RabbitMQ, with one retry queue for each distinct delay."""
    return Topology(
        exchanges=(
            # Fan-out: the fold queue and the journal get every raw message, and its confirm waits for both.
            Exchange(CALLBACKS, "fanout"),
            Exchange(CALLS, "topic"),
            Exchange(RECORDINGS, "direct"),
        ),
        queues=(
            Queue(CALLBACKS_DEAD, _DEAD),
            Queue(RECORDINGS_DEAD, _DEAD),
            Queue(
                CALLBACKS_FOLD,
                {
                    **_WORK,
                    "x-dead-letter-routing-key": CALLBACKS_DEAD,
                    # Well below the memory alarm: a blocked broker could not take the publishes that would drain it.
                    "x-max-length-bytes": 2 * _GIB,
                },
            ),
            Queue(CALLBACKS_JOURNAL, _journal(100 * _MIB, 50 * _GIB)),
            Queue(CALLS_JOURNAL, _journal(100 * _MIB, 50 * _GIB)),
            # No exchange: what people did concerns the history alone. There is little of it, so its segments are small.
            Queue(AUDIT_JOURNAL, _journal(20 * _MIB, 1 * _GIB)),
            Queue(RECORDINGS, {**_WORK, "x-dead-letter-routing-key": RECORDINGS_DEAD, "x-max-length-bytes": 2 * _GIB}),
            *(_retry(delay_s) for delay_s in sorted(set(recording_retry_s))),
        ),
        bindings=(
            Binding(CALLBACKS_FOLD, CALLBACKS, ""),
            Binding(CALLBACKS_JOURNAL, CALLBACKS, ""),
            Binding(CALLS_JOURNAL, CALLS, "#"),
            Binding(RECORDINGS, RECORDINGS, RECORDINGS),
        ),
    )
