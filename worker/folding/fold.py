"""The fold: raw events in, call state merged, what follows published, then acked - in this order, batch by batch.

While one batch is folded the next deliveries gather, so batches grow with the load by themselves.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import NoReturn

from shared import metrics
from shared.amqp.consumer import Consumer, Delivery
from shared.amqp.dead_letters import DETAIL, DeadLetterReason, dead_letter_headers
from shared.amqp.publisher import Message, Publisher
from shared.amqp.topology import CALLBACKS_DEAD, SPOOL
from shared.clock import utc_now
from shared.config.sources import Sources
from shared.crash_points import crash_point
from shared.domain.amendment import amends, summary
from shared.domain.call import Policy, derive
from shared.domain.facts import NONSENSE, Fact, facts_of, milliseconds, rfc3339
from shared.domain.ids import CallKey
from shared.domain.raw_event import RawEvent, TimerEvent, Undecodable, decode, encode, is_ahead, join
from shared.errors import InvalidCallbackError
from shared.log import get_logger
from shared.state.keys import Folded, State
from shared.state.store import Claim, Publication, Store, WakeUp, until_redis_answers
from worker.folding.backlog import spool_news
from worker.folding.outbox import read_outbox, write_outbox

log = get_logger(__name__)

# About a thousand callbacks: large enough to share every round trip, small enough to publish within a claim's lease.
_BATCH_BYTES = 256 * 1024
_HELD_POLL_S = 0.05
# A look at most this much later than wanted is not moved; this saves most calls a command.
_SLACK_MS = 1000
# A fault of ours is not gone in seconds, and each look at it fails and logs again; after a new release it heals within the hour.
_FAILED_LOOK_MS = 3_600_000


class Fold:
    """Folds deliveries of the queue `callbacks.fold`. Stateless: any number of workers can fold the same calls."""

    def __init__(self, publisher: Publisher, store: Store, sources: Sources, policy: Policy, *, holder: str) -> None:
        """Take the doors and rules; `holder` names this fold in claims and must be its alone."""
        self._publisher = publisher
        self._store = store
        self._sources = sources
        self._policy = policy
        self._holder = holder
        self._busy = asyncio.Lock()

    async def run(self, consumer: Consumer) -> NoReturn:
        """Fold for as long as the process lives. Run it as a task."""
        while True:
            deliveries = [await consumer.get()]
            async with self._busy:
                deliveries += consumer.get_waiting(_BATCH_BYTES)
                bodies = [delivery.body for delivery in deliveries if not delivery.is_marker]
                if bodies:
                    with metrics.FOLD_SECONDS.time():
                        await self.fold(bodies)
                    await self._note_spools(deliveries)
                    crash_point("fold.before_ack")
                for delivery in deliveries:
                    await delivery.ack()
                if bodies:
                    crash_point("fold.acked")

    async def _note_spools(self, deliveries: Iterable[Delivery]) -> None:
        """Note what comes with the messages out of a spool: what is still in it."""
        news = spool_news(delivery.headers for delivery in deliveries if SPOOL in delivery.headers)
        if news:
            await until_redis_answers(lambda: self._store.watermarks.note_spools(news))

    async def finish(self) -> None:
        """Wait until the batch in hand is acked."""
        async with self._busy:
            return

    async def fold(self, bodies: Iterable[bytes]) -> None:
        """Do everything that follows from some raw messages; on return it is durable and they may be acked."""
        batch = self._understand(await self._without_ahead([event for body in bodies for event in decode(body)]))
        await self._publisher.publish_until_confirmed(batch.dead)
        facts = batch.facts
        while facts:
            lost = await self._fold(batch, facts)
            facts = {key: batch.facts[key] for key in lost}

    async def _without_ahead(self, events: Sequence[RawEvent | Undecodable]) -> Sequence[RawEvent | Undecodable]:
        """Leave out timers that tell a time which has not come: the clock of a call never goes back, so they would end it early.

        Nothing is lost by that: a call that is due stays due until it was looked at.
        """
        now = utc_now()
        if not any(is_ahead(event, now) for event in events):
            return events
        now = rfc3339(await until_redis_answers(self._store.now))  # the clock that timers go by; ours may be slow
        ahead = sum(is_ahead(event, now) for event in events)
        if ahead:
            metrics.TIMERS_AHEAD.inc(ahead)
            log.warning("timers_ahead", timers=ahead, now=now)
        return [event for event in events if not is_ahead(event, now)]

    async def _fold(self, batch: _Batch, facts: Mapping[CallKey, list[Fact]]) -> list[CallKey]:
        """Merge, and do what follows; returns the calls to fold again, since Redis lost what it had told of them."""
        crash_point("fold.taken")
        folded = await until_redis_answers(lambda: self._store.merge(facts))
        crash_point("fold.merged")
        consequences = self._consequences(batch, folded)
        await self._publisher.publish_until_confirmed(consequences.dead)
        if consequences.looks:
            await until_redis_answers(lambda: self._store.schedule(consequences.looks))
            crash_point("fold.scheduled")
        return await self._publish(consequences.due)

    def _understand(self, events: Iterable[RawEvent | Undecodable]) -> _Batch:
        """Turn events into facts by call; what cannot be understood becomes a dead letter and holds up nothing else."""
        batch = _Batch()
        for event in events:
            if isinstance(event, Undecodable):
                batch.dead.append(_dead_letter(event.body, DeadLetterReason.UNDECODABLE, event.problem, ""))
                continue
            source = self._sources.get(event.source)
            if source is None:
                batch.dead.append(_refused(event, DeadLetterReason.UNKNOWN_SOURCE, f"no source {event.source} is configured"))
                continue
            try:
                key, told = facts_of(event, source.adapter)
            except InvalidCallbackError as error:
                batch.dead.append(_refused(event, DeadLetterReason.INVALID_CALLBACK, str(error)))
                continue
            except Exception as error:  # noqa: BLE001 - a fault of ours in one event must not hold up the others
                batch.dead.append(_refused(event, DeadLetterReason.FOLD_FAILED, f"{type(error).__name__}: {error}"))
                continue
            batch.facts.setdefault(key, []).extend(told)
            batch.events.setdefault(key, []).append(event)
            metrics.EVENTS_FOLDED.labels(event.kind).inc()
            if nonsense := sum(NONSENSE in name for name, _ in told):
                metrics.NONSENSE_TIMESTAMPS.labels(key.source).inc(nonsense)
        return batch

    def _consequences(self, batch: _Batch, folded: Mapping[CallKey, Folded]) -> _Consequences:
        """Decide for each call whether a revision is to be published, or when to look at it again."""
        found = _Consequences()
        for key, state in folded.items():
            if state.state is State.TOMBSTONED:
                told = [event for event in batch.events[key] if not isinstance(event, TimerEvent)]
                metrics.CALLBACKS_OF_TOMBSTONES.labels(key.source).inc(len(told))
                found.dead.extend(
                    _refused(event, DeadLetterReason.EXPIRED_CALL, f"{key} was published and has left Redis") for event in told
                )
                found.looks[key] = WakeUp(None, state.version)
            elif state.state is State.CLAIMED:
                # By someone who may have died; the claim keeps its own outbox.
                found.due[key] = Publication(key, state.revision, b"", "", state.version)
            else:
                try:
                    self._decide(key, state, batch.events[key], found)
                except Exception as error:  # noqa: BLE001 - a fault of ours in one call must not hold up the others
                    detail = f"{type(error).__name__}: {error}"
                    callbacks = (event for event in batch.events[key] if not isinstance(event, TimerEvent))
                    found.dead.extend(_refused(event, DeadLetterReason.FOLD_FAILED, detail) for event in callbacks)
                    found.looks[key] = WakeUp(milliseconds(utc_now()) + _FAILED_LOOK_MS, state.version)
        return found

    def _decide(self, key: CallKey, state: Folded, events: Sequence[RawEvent], found: _Consequences) -> None:
        call = derive(key, state.facts, self._policy)
        if call.wake_at is not None:
            at_ms = milliseconds(call.wake_at) + 1  # a timer that tells a part of this millisecond would come too early
            looked = any(isinstance(event, TimerEvent) for event in events)
            if looked or state.wake_at_ms is None or at_ms < state.wake_at_ms - _SLACK_MS:
                found.looks[key] = WakeUp(at_ms, state.version)
            return
        if call.closing is None:  # nothing is known of it but the time
            found.looks[key] = WakeUp(None, state.version)
            return
        record_legs = self._sources[key.source].record_legs
        told = summary(call, state.summary, record_legs)
        if not state.revision or amends(state.summary, told):
            if not state.revision:
                metrics.NONSENSE_TIMESTAMPS.labels(key.source).inc(sum(len(leg.ignored) for leg in call.legs))
            outbox = write_outbox(call, state.revision + 1, record_legs, before=state.summary)
            found.due[key] = Publication(key, state.revision + 1, outbox, told, state.version)
        elif state.wake_at_ms is not None:
            found.looks[key] = WakeUp(None, state.version)

    async def _publish(self, due: Mapping[CallKey, Publication]) -> list[CallKey]:
        """Claim, publish, mark. What another worker holds is asked for again until it is published or its lease is over.

        Returns calls whose claims were lost.
        """
        lost: list[CallKey] = []
        while due:
            wanted = due
            claims = await until_redis_answers(lambda: self._store.claim(wanted, holder=self._holder))  # noqa: B023 - awaited before the loop goes on
            ours = {key: read_outbox(outbox) for key, (claim, outbox) in claims.items() if claim is Claim.YOURS}
            crash_point("fold.claimed")
            await self._publisher.publish_until_confirmed(chain.from_iterable(ours.values()))
            crash_point("fold.published")
            if ours:
                published = {key: due[key].revision for key in ours}
                await until_redis_answers(lambda: self._store.mark(published))  # noqa: B023 - as above
            crash_point("fold.marked")
            _tell(ours)
            lost += [key for key, (claim, _) in claims.items() if claim is Claim.LOST]
            # What is held is only waited for: should its holder die, the outbox it stored is taken over.
            due = {key: replace(due[key], outbox=b"") for key, (claim, _) in claims.items() if claim is Claim.HELD}
            if due:
                await asyncio.sleep(_HELD_POLL_S)
        return lost


@dataclass(frozen=True, slots=True)
class _Batch:
    """Raw messages, understood."""

    facts: dict[CallKey, list[Fact]] = field(default_factory=dict)
    events: dict[CallKey, list[RawEvent]] = field(default_factory=dict)
    dead: list[Message] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Consequences:
    """What follows from a batch."""

    due: dict[CallKey, Publication] = field(default_factory=dict)
    looks: dict[CallKey, WakeUp] = field(default_factory=dict)
    dead: list[Message] = field(default_factory=list)


def _refused(event: RawEvent, reason: DeadLetterReason, detail: str) -> Message:
    return _dead_letter(join([encode(event)]), reason, detail, event.received_at)


def _dead_letter(body: bytes, reason: DeadLetterReason, detail: str, first_seen: str) -> Message:
    metrics.DEAD_LETTERS.labels(CALLBACKS_DEAD, reason).inc()
    headers = dead_letter_headers(reason, detail, first_seen)
    log.warning("dead_letter", queue=CALLBACKS_DEAD, reason=reason, detail=headers[DETAIL])
    return Message("", CALLBACKS_DEAD, body, uuid.uuid4().hex, headers=headers)


def _tell(published: Mapping[CallKey, list[Message]]) -> None:
    for key, messages in published.items():
        _, kind, _, outcome = messages[0].routing_key.split(".")
        counter = metrics.CALLS_COMPLETED if kind == "completed" else metrics.CALLS_AMENDED
        counter.labels(key.source, outcome).inc()
        log.info("call_published", id=messages[0].message_id, outcome=outcome)
