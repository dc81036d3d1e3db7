"""RabbitMQ topology as data: the only place with arguments of queues. `declare.py` declares it.

It works unchanged on RabbitMQ 3.10 to 4.x: every option whose default changed between them is set.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

CALLBACKS = "callbacks"
CALLBACKS_FOLD = "callbacks.fold"
CALLBACKS_JOURNAL = "callbacks.journal"
CALLBACKS_DEAD = "callbacks.dead"
CALLBACKS_QUARANTINE = "callbacks.quarantine"
CALLS = "calls"
CALLS_JOURNAL = "calls.journal"
AUDIT_JOURNAL = "audit.journal"
RECORDINGS = "recordings"
RECORDINGS_DEAD = "recordings.dead"

# Headers of drained messages: the spool's name, the receipt time of its oldest remaining callback, and when ingress read that.
# The receipt time is '' if no callback remains.
SPOOL, SPOOL_OLDEST, SPOOL_SEEN = "spool", "spool_oldest", "spool_seen"
# Headers of messages in `callbacks`: when their sender published them, and its machine, so that workers can compare the clocks.
SENT_AT, SENT_BY = "sent_at", "sent_by"
# A spool that holds callbacks of one source only is reported as `<name>/<source>`: other sources' timers do not wait for it.
SPOOL_OF_SOURCE = "/"
# Headers of a probe: the queue of the ingress that waits for an echo, and the number that the echo repeats.
ECHO_TO, ECHO_ID, ECHO_QUEUE_PREFIX = "echo_to", "echo_id", "callbacks.echo."
# Marks a round (see shared/domain/barrier.py): a message in `callbacks.fold` without events. The header is the round's number.
MARKER, MARKER_BODY = "marker", b"[]"

# Redeliveries of a message before RabbitMQ dead-letters it.
DELIVERY_LIMIT = 20

_MIB = 1 << 20
_GIB = 1 << 30
# Well below the memory alarm. An alarm blocks publishes, and the fold must publish to drain this queue.
CALLBACKS_FOLD_BYTES = 2 * _GIB


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
    """Exchanges, queues and bindings; all durable. The first process to start declares them, in this order."""

    exchanges: tuple[Exchange, ...] = ()
    queues: tuple[Queue, ...] = ()
    bindings: tuple[Binding, ...] = ()


_WORK: Mapping[str, str | int] = {
    "x-queue-type": "quorum",  # confirmed means fsynced by a majority
    "x-delivery-limit": DELIVERY_LIMIT,  # removes poison messages; set because 4.x has a default and 3.x has none
    "x-overflow": "reject-publish",  # a full queue rejects publishes and drops nothing; at-least-once requires it
    "x-dead-letter-strategy": "at-least-once",  # at-most-once can lose a message between the two queues
    "x-dead-letter-exchange": "",  # the default exchange routes by queue name, so no binding can be missing
}

_DEAD: Mapping[str, str | int] = {
    "x-queue-type": "quorum",
    "x-delivery-limit": 1_000_000_000,  # 4.x would drop a dead letter that was read 20 times
    # Unbounded on purpose: a dead letter may be the only copy of a callback. Set an alarm on the depth of the queue.
    "x-overflow": "reject-publish",
}


def _journal(segment_bytes: int, max_bytes: int) -> Mapping[str, str | int]:
    return {
        "x-queue-type": "stream",
        "x-max-age": "7D",
        "x-stream-max-segment-size-bytes": segment_bytes,  # retention drops whole segments
        "x-max-length-bytes": max_bytes,  # limits disk use, far above a week of a large contact centre
    }


def retry_queue(delay_s: float) -> str:
    """Return the name of the queue that delays a recording job by `delay_s`."""
    return f"{RECORDINGS}.retry.{delay_s:g}s"


def _retry(delay_s: float) -> Queue:
    return Queue(
        retry_queue(delay_s),
        {
            "x-queue-type": "quorum",
            "x-message-ttl": round(delay_s * 1000),  # RabbitMQ keeps the delay, so it survives a restart of any process
            "x-overflow": "reject-publish",
            "x-dead-letter-strategy": "at-least-once",
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": RECORDINGS,
        },
    )


def topology(recording_retry_s: Iterable[float]) -> Topology:
    """Return the whole topology of Callfold, with one retry queue for each distinct delay."""
    return Topology(
        exchanges=(
            # A fanout: the fold queue and the journal both get every raw message, and its confirm waits for both.
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
                    "x-max-length-bytes": CALLBACKS_FOLD_BYTES,
                },
            ),
            Queue(CALLBACKS_JOURNAL, _journal(100 * _MIB, 50 * _GIB)),
            # Strangers can fill it. Its oldest messages make room, and its size limits what they take of the disk.
            Queue(CALLBACKS_QUARANTINE, _journal(4 * _MIB, 64 * _MIB)),
            Queue(CALLS_JOURNAL, _journal(100 * _MIB, 50 * _GIB)),
            # No exchange: only the history reads audit records. There are few of them, so the segments are small.
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


def move_exchange(queue: str) -> str:
    """Return the exchange of a move through which messages of another broker reach a queue with their routing keys."""
    return f"move.{queue}"


def with_move_exchanges(to: Topology) -> Topology:
    """Add an exchange to a topology for each queue. They are deleted when the move has finished."""
    queues = [queue.name for queue in to.queues]
    return Topology(
        exchanges=(*to.exchanges, *(Exchange(move_exchange(name), "fanout") for name in queues)),
        queues=to.queues,
        bindings=(*to.bindings, *(Binding(name, move_exchange(name), "") for name in queues)),
    )
