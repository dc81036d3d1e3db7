"""RabbitMQ topology as data: the only place with arguments and limits of queues. `declare.py` declares it.

RabbitMQ never changes the arguments of a queue. Sizes and ages are limits: policies, so that they can change on a running system
(`definitions.py`, ADR 17).

It works unchanged on RabbitMQ 3.10 to 4.x: every option whose default changed between them is set.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

CALLBACKS = "callbacks"
CALLBACKS_FOLD = "callbacks.fold"
CALLBACKS_JOURNAL = "callbacks.journal"
CALLBACKS_DEAD = "callbacks.dead"
CALLBACKS_QUARANTINE = "callbacks.quarantine"
CALLS = "calls"
CALLS_JOURNAL = "calls.journal"
AUDIT_JOURNAL = "audit.journal"
DIALS_JOURNAL = "dials.journal"
STATE_JOURNAL = "state.journal"
OPS = "ops"
OPS_JOURNAL = "ops.journal"
RECORDINGS = "recordings"
RECORDINGS_DEAD = "recordings.dead"
# Webhooks: the changes of endpoints by API, the attempts, the events that wait for an earlier one of their call, dead letters.
ENDPOINTS_JOURNAL = "endpoints.journal"
FORWARD_JOURNAL = "forward.journal"
FORWARD_ORDER_JOURNAL = "forward.order.journal"
FORWARD_DEAD = "forward.dead"
FORWARD_PREFIX = "forward."

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
# Of each endpoint: some 300,000 events. An endpoint that is never repaired must not fill the disk on which callbacks are stored.
FORWARD_QUEUE_BYTES = _GIB

Values = Mapping[str, str | int]


@dataclass(frozen=True, slots=True)
class Exchange:
    name: str
    type: str


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue or stream.

    Attributes:
        arguments: fixed when it is declared.
        limits: sizes and ages, as the definition of a policy.
        earlier_arguments: what releases before the policies declared besides. Such a queue is used as it is.
    """

    name: str
    arguments: Values
    limits: Values = field(default_factory=dict)
    earlier_arguments: Values = field(default_factory=dict)


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


_WORK: Values = {
    "x-queue-type": "quorum",  # confirmed means fsynced by a majority
    "x-delivery-limit": DELIVERY_LIMIT,  # removes poison messages; set because 4.x has a default and 3.x has none
    "x-overflow": "reject-publish",  # a full queue rejects publishes and drops nothing; at-least-once requires it
    "x-dead-letter-strategy": "at-least-once",  # at-most-once can lose a message between the two queues
    "x-dead-letter-exchange": "",  # the default exchange routes by queue name, so no binding can be missing
}

_DEAD: Values = {
    "x-queue-type": "quorum",
    "x-delivery-limit": 1_000_000_000,  # 4.x would drop a dead letter that was read 20 times
    # Unbounded on purpose: a dead letter may be the only copy of a callback. Set an alarm on the depth of the queue.
    "x-overflow": "reject-publish",
}


def _journal(name: str, segment_bytes: int, max_bytes: int) -> Queue:
    limits: Values = {
        "max-age": "7D",
        "stream-max-segment-size-bytes": segment_bytes,  # retention drops whole segments
        "max-length-bytes": max_bytes,  # limits disk use, far above a week of a large contact centre
    }
    return Queue(name, {"x-queue-type": "stream"}, limits, _as_arguments(limits))


def _small_journal(name: str, segment_bytes: int, max_bytes: int) -> Queue:
    """Return a stream that forgets nothing for its age."""
    limits: Values = {"stream-max-segment-size-bytes": segment_bytes, "max-length-bytes": max_bytes}
    return Queue(name, {"x-queue-type": "stream"}, limits)


def _bounded(name: str, dead_letters: str, max_bytes: int, *, earlier_bytes: int = 2 * _GIB) -> Queue:
    arguments = {**_WORK, "x-dead-letter-routing-key": dead_letters}
    return Queue(name, arguments, {"max-length-bytes": max_bytes}, {"x-max-length-bytes": earlier_bytes})


def _as_arguments(limits: Values) -> Values:
    return {f"x-{name}": value for name, value in limits.items()}


def retry_queue(delay_s: float) -> str:
    """Return the name of the queue that delays a recording job by `delay_s`."""
    return f"{RECORDINGS}.retry.{delay_s:g}s"


def _retry(delay_s: float) -> Queue:
    return _delayed(retry_queue(delay_s), delay_s, RECORDINGS)


def _delayed(name: str, delay_s: float, to: str) -> Queue:
    return Queue(
        name,
        {
            "x-queue-type": "quorum",
            "x-message-ttl": round(delay_s * 1000),  # RabbitMQ keeps the delay, so it survives a restart of any process
            "x-overflow": "reject-publish",
            "x-dead-letter-strategy": "at-least-once",
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": to,
        },
    )


def forward_queue(endpoint: str) -> str:
    """Return the name of the queue with the events for an endpoint."""
    return f"{FORWARD_PREFIX}{endpoint}"


def is_endpoint_queue(queue: str) -> bool:
    """Return whether this is the queue with the events for an endpoint, which is bound to `calls`."""
    return queue.startswith(FORWARD_PREFIX) and queue not in {FORWARD_DEAD, FORWARD_JOURNAL} and queue.count(".") == 1


def forward_retry_queue(endpoint: str, delay_s: float) -> str:
    """Return the name of the queue in which events for an endpoint wait `delay_s` for their next attempt."""
    return f"{forward_queue(endpoint)}.retry.{delay_s:g}s"


def endpoint_topology(endpoint: str, filters: Iterable[str], retry_s: Iterable[float]) -> Topology:
    """Return the queues of one endpoint, with a binding for each of its topic patterns.

    A full queue drops its oldest event into `forward.dead`. If it refused instead, publishing to `calls` would fail.
    One consumer at a time is active, so that the order of events survives a takeover.
    """
    events = Queue(
        forward_queue(endpoint),
        {
            "x-queue-type": "quorum",
            "x-single-active-consumer": True,
            "x-delivery-limit": 1_000_000_000,  # a killed forwarder is no fault of an event
            "x-overflow": "drop-head",
            "x-max-length-bytes": FORWARD_QUEUE_BYTES,  # a policy can only lower it, so a missing one does no harm
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": FORWARD_DEAD,
        },
    )
    delays = [_delayed(forward_retry_queue(endpoint, delay_s), delay_s, events.name) for delay_s in sorted(set(retry_s))]
    return Topology(
        queues=(events, *delays),
        bindings=tuple(Binding(events.name, CALLS, pattern) for pattern in filters),
    )


def topology(recording_retry_s: Iterable[float], *, fold_bytes: int = CALLBACKS_FOLD_BYTES) -> Topology:
    """Return the whole topology of Callfold, with a retry queue for each distinct delay; `fold_bytes` limits `callbacks.fold`."""
    return Topology(
        exchanges=(
            # A fanout: the fold queue and the journal both get every raw message, and its confirm waits for both.
            Exchange(CALLBACKS, "fanout"),
            Exchange(CALLS, "topic"),
            Exchange(RECORDINGS, "direct"),
            # Operator events. Nothing but their publication depends on it.
            Exchange(OPS, "topic"),
        ),
        queues=(
            Queue(CALLBACKS_DEAD, _DEAD),
            Queue(RECORDINGS_DEAD, _DEAD),
            # Bounded: an endpoint that is never repaired fills it, and the journal has each of its events for a week.
            Queue(FORWARD_DEAD, {**_DEAD, "x-overflow": "drop-head", "x-max-length-bytes": _GIB}),
            _bounded(CALLBACKS_FOLD, CALLBACKS_DEAD, fold_bytes),
            _journal(CALLBACKS_JOURNAL, 100 * _MIB, 50 * _GIB),
            # Strangers can fill it. Its oldest messages make room, and its size limits what they take of the disk.
            _journal(CALLBACKS_QUARANTINE, 4 * _MIB, 64 * _MIB),
            _journal(CALLS_JOURNAL, 100 * _MIB, 50 * _GIB),
            # No exchange: only the history reads audit records. There are few of them, so the segments are small.
            _journal(AUDIT_JOURNAL, 20 * _MIB, 1 * _GIB),
            # No exchange: consoles publish and read the Idempotency-Keys of dial requests. A day is enough.
            _journal(DIALS_JOURNAL, 4 * _MIB, 256 * _MIB),
            # No exchange: workers publish and read their writes to Redis. The last seconds are enough.
            _journal(STATE_JOURNAL, 4 * _MIB, 64 * _MIB),
            # Few events of a week, for operators who look only after the trouble.
            _journal(OPS_JOURNAL, 4 * _MIB, 64 * _MIB),
            # No exchange: the console publishes changes of endpoints, and forwarders which one is disabled.
            _small_journal(ENDPOINTS_JOURNAL, 4 * _MIB, 64 * _MIB),
            # No exchange: forwarders publish attempts, and the history reads them.
            _journal(FORWARD_JOURNAL, 20 * _MIB, 2 * _GIB),
            # No exchange: forwarders publish and read which event of a call waits for another attempt.
            _journal(FORWARD_ORDER_JOURNAL, 20 * _MIB, 1 * _GIB),
            _bounded(RECORDINGS, RECORDINGS_DEAD, 2 * _GIB),
            *(_retry(delay_s) for delay_s in sorted(set(recording_retry_s))),
        ),
        bindings=(
            Binding(CALLBACKS_FOLD, CALLBACKS, ""),
            Binding(CALLBACKS_JOURNAL, CALLBACKS, ""),
            Binding(CALLS_JOURNAL, CALLS, "#"),
            Binding(OPS_JOURNAL, OPS, "#"),
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
