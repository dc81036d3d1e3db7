"""The fold: merge raw events into calls, publish what follows, then ack the deliveries, batch by batch.

Deliveries arrive while a batch is folded, so batches grow with the load.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, zip_longest
from typing import NoReturn, cast

from shared import metrics
from shared.amqp.consumer import Consumer
from shared.amqp.delivery import Delivery
from shared.amqp.publisher import Message, Publisher
from shared.amqp.topology import SPOOL
from shared.config.live_sources import LiveSources
from shared.config.sources import Sources
from shared.crash_points import crash_point
from shared.domain.annotation import digests_of, read_annotations
from shared.domain.closing import Policy
from shared.domain.facts import Fact
from shared.domain.ids import CallKey, first_use
from shared.domain.raw_event import AnnotationEvent, CallbackEvent, DialEvent, RawEvent, Undecodable, decode
from shared.domain.sender_clock import EQUAL_CLOCKS, is_future_timer, latest_time, moved_back
from shared.domain.times import rfc3339
from shared.errors import StateLostError, StateMovedError, StateWaitsError
from shared.log import get_logger
from shared.state.replies import until_redis_answers
from shared.state.store import Store
from shared.state.stored_call import StoredCall
from shared.tracing.contexts import CREATION_CONTEXTS
from shared.tracing.spans import is_on, trace_id
from worker.folding.barrier_rounds import spool_reports
from worker.folding.batch import Batch, dead_letters_of_refused, read_batch, take_waiting
from worker.folding.claims import Claims
from worker.folding.echoes import Echoes
from worker.folding.evaluation import Evaluator
from worker.folding.ingress_clocks import IngressClocks, sent_at
from worker.folding.later_uses import LaterUses
from worker.folding.merging import Merging
from worker.folding.pbx_clocks import PbxClocks, apply_pbx_clocks
from worker.folding.prefetch import FoldPrefetch
from worker.folding.state_journal import StateJournal
from worker.folding.traces import processing, settling, with_contexts
from worker.watching.observations import Observations

log = get_logger(__name__)

Messaged = Sequence[RawEvent | Undecodable]

# About a thousand callbacks: large enough to share each round trip, small enough to publish within the lease of a claim.
_BATCH_BYTES = 256 * 1024
# More than a batch of Callfold's own messages has. Another program can publish 50,000 events in one message.
_PIECE_EVENTS = 5000
# Facts that are evaluated in one step, which takes about a microsecond for each byte if the values are long.
_PART_BYTES = 1 << 20
_BEGIN_AGAIN_S = 0.05


class Fold:
    """Folds deliveries of the queue `callbacks.fold`. It has no state: any number of workers can fold the same calls."""

    def __init__(
        self,
        publisher: Publisher,
        store: Store,
        sources: LiveSources,
        policy: Policy,
        *,
        holder: str,
        clocks: IngressClocks | None = None,
        echoes: Echoes | None = None,
        pbx_clocks: PbxClocks | None = None,
        prefetch: FoldPrefetch | None = None,
        journal: StateJournal | None = None,
        observations: Observations | None = None,
    ) -> None:
        """Take what the fold needs; `holder` names it in claims and must be unique. A guarded store needs a `journal`."""
        self._journal = journal
        self._clocks = clocks
        self._echoes = echoes
        self._pbx_clocks = pbx_clocks
        self._prefetch = prefetch
        self._publisher = publisher
        self._store = store
        self._sources = sources
        self._policy = policy
        self._observations = observations
        self._claims = Claims(publisher, store, journal, holder=holder, observations=observations)
        self._later_uses = LaterUses(store, policy)
        self._busy = asyncio.Lock()

    async def run(self, consumer: Consumer) -> NoReturn:
        """Fold until cancelled. Run it as a task."""
        while True:
            deliveries = [await consumer.get()]
            async with self._busy:
                deliveries += consumer.get_waiting(_BATCH_BYTES)
                with processing(deliveries):
                    await self._fold_and_ack(deliveries)

    async def _fold_and_ack(self, deliveries: Sequence[Delivery]) -> None:
        messages = [delivery for delivery in deliveries if not delivery.is_marker]
        if self._clocks is not None:
            self._clocks.observe(deliveries)
        if messages:
            headers = [delivery.headers for delivery in messages]
            contexts = [each.get(CREATION_CONTEXTS, "") for each in headers] if is_on() else []
            started = time.perf_counter()
            await self.fold([message.body for message in messages], map(sent_at, headers), contexts)
            metrics.observe(metrics.FOLD_SECONDS, time.perf_counter() - started, trace_id())
        await self._record_spools(deliveries)
        if self._echoes:
            self._echoes.add(delivery.headers for delivery in deliveries)
        if messages:
            crash_point("fold.before_ack")
        with settling(deliveries):
            for delivery in deliveries:
                await delivery.ack()
        if messages:
            crash_point("fold.acked")

    async def finish(self) -> None:
        """Wait until the batch in flight is acked."""
        async with self._busy:
            return

    async def fold(self, bodies: Iterable[bytes], sent: Iterable[str] = (), contexts: Iterable[object] = ()) -> None:
        """Merge raw messages and publish what follows; on return everything is durable and they may be acked.

        `sent`: for each message when its sender published it by its own clock, or '' if unknown.
        `contexts`: for each message the header with the trace contexts of its callbacks, or ''.
        """
        rows = zip_longest(bodies, sent, contexts, fillvalue="")
        messages = [(with_contexts(decode(body), header), str(at)) for body, at, header in rows if isinstance(body, bytes)]
        if self._prefetch is not None:
            self._prefetch.observe(len(messages), sum(len(events) for events, _ in messages))
        waits_for: dict[CallKey, int] = {}
        while True:
            try:
                with self._store.positions.unchanged():
                    await self._fold(messages, waits_for)
            except StateWaitsError as error:
                waits_for[cast("CallKey", error.call)] = error.partition
            except StateLostError:
                await until_redis_answers(self._store.fence)
            except StateMovedError:
                pass  # it is known by now which partitions are not ready
            else:
                break
            await asyncio.sleep(_BEGIN_AGAIN_S)
        if self._journal is not None:
            await self._journal.publish()

    async def _fold(self, messages: Sequence[tuple[Messaged, str]], waits_for: Mapping[CallKey, int]) -> None:
        """Fold messages; `waits_for` has calls whose events need another partition than that of the call.

        Raises:
            StateMovedError: a partition has lost state, or is rebuilt. Nothing is wrong if everything is folded again.
        """
        events = await self._without_future_timers(await self._without_future_receipts(messages))
        batch = read_batch(events, await self._sources_of(events))
        waiting = take_waiting(batch, waits_for, self._store.can_write)
        if waiting:
            await until_redis_answers(lambda: self._store.partitions.wait(waiting))
        if self._observations is not None:
            self._observations.folded(events, batch.of_the_pbx(), batch.sources)
        if self._pbx_clocks is not None:
            await apply_pbx_clocks(self._pbx_clocks, self._store.pbx_clocks, batch.facts)
        await self._publisher.publish_until_confirmed(batch.dead_letters)
        if batch.unreplaced:
            await until_redis_answers(lambda: self._store.unreplaced.record(batch.unreplaced))
        if batch.previous_secrets:
            await until_redis_answers(lambda: self._store.previous_secrets.record(batch.previous_secrets))
        await self._later_uses.redirect(batch)
        for piece in batch.pieces(_PIECE_EVENTS):
            keys: Iterable[CallKey] = piece
            while facts := {key: batch.facts[key] for key in keys if key in batch.facts}:
                keys = await self._merge_and_publish(batch, facts)

    async def _sources_of(self, events: Messaged) -> Sources:
        """Return the sources by which a batch is folded, those that were removed included.

        Ingress can take over a new source earlier than this worker, so the file is read again before a source counts as unknown.
        """
        known = self._sources.known
        if any(isinstance(event, CallbackEvent | DialEvent | AnnotationEvent) and event.source not in known for event in events):
            await self._sources.refresh()
        return self._sources.known

    async def _without_future_receipts(self, messages: Sequence[tuple[Messaged, str]]) -> Messaged:
        """Move events back that were received in the future, because the clock of an ingress is ahead."""
        latest = [latest_time(events, at) for events, at in messages]
        now = self._store.clock.now()
        limit = rfc3339(now + EQUAL_CLOCKS)
        if max(latest, default="") > limit:
            now = await until_redis_answers(self._store.now)
            limit = rfc3339(now + EQUAL_CLOCKS)
        return [
            event
            for (events, _), time in zip(messages, latest, strict=True)
            for event in (events if time <= limit else moved_back(events, time, now))
        ]

    async def _without_future_timers(self, events: Sequence[RawEvent | Undecodable]) -> Sequence[RawEvent | Undecodable]:
        """Drop timers with a future time: the clock of a call never goes back, so they would close it early.

        Nothing is lost: a call that is due stays due until a timer has been folded.
        """
        now = rfc3339(self._store.clock.now())
        if not any(is_future_timer(event, now) for event in events):
            return events
        now = rfc3339(await until_redis_answers(self._store.now))  # timers use this clock, and the local one may be slow
        dropped = sum(is_future_timer(event, now) for event in events)
        if dropped:
            metrics.TIMERS_AHEAD.inc(dropped)
            log.warning("future_timer_dropped", timers=dropped, now=now)
        return [event for event in events if not is_future_timer(event, now)]

    async def _merge_and_publish(self, batch: Batch, facts: Mapping[CallKey, list[list[Fact]]]) -> list[CallKey]:
        """Merge facts and publish what follows; returns the calls to merge again, because Redis lost their facts."""
        crash_point("fold.taken")
        merged = await until_redis_answers(Merging(self._store, facts).step)
        crash_point("fold.merged")
        if merged.refused:
            await self._dead_letter_refused(batch, merged.refused)
        routed = await self._later_uses.route(batch, merged.calls)
        dead = chain.from_iterable(dead_letters_of_refused(key, refused) for key, refused in routed.refused.items())
        await self._publisher.publish_until_confirmed(dead)
        crash_point("fold.routed")
        events = batch.events | {key: [*batch.named(key), *of_call] for key, of_call in routed.events.items()}
        lost: list[CallKey] = []
        for part in _parts(merged.calls | routed.calls):
            lost += await self._publish_what_follows(batch.sources, events, part)
            await asyncio.sleep(0)  # an evaluation does not give way, and a part may have no other step
        return [key for call in lost for key in {call, CallKey(call.source, first_use(call.call))}]

    async def _publish_what_follows(
        self, sources: Sources, events: Mapping[CallKey, Sequence[RawEvent]], calls: Mapping[CallKey, StoredCall]
    ) -> list[CallKey]:
        digests = {key: of_call for key, call in calls.items() if (of_call := digests_of(call.facts))}
        bodies = await until_redis_answers(lambda: self._store.read_bodies(digests)) if digests else {}
        consequences = Evaluator(sources, self._policy).evaluate(events, calls, bodies)
        await self._publisher.publish_until_confirmed(consequences.dead_letters)
        if consequences.wake_ups:
            await until_redis_answers(lambda: self._store.schedule(consequences.wake_ups))
            crash_point("fold.scheduled")
        return await self._claims.publish(consequences.publications, _received(events, consequences.publications))

    async def _dead_letter_refused(self, batch: Batch, refused: Mapping[CallKey, Sequence[int]]) -> None:
        """Take events that are beyond the bounds of their calls out of the batch. What is merged again is thus without them."""
        dead_letters: list[Message] = []
        latest: dict[CallKey, str] = {}
        for key, positions in refused.items():
            events = batch.refuse(key, positions)
            dead_letters += dead_letters_of_refused(key, events)
            of_legs = [event for event in events if not isinstance(event, AnnotationEvent)]
            if of_legs:
                metrics.CALLBACKS_BEYOND_BOUNDS.labels(key.source).inc(len(of_legs))
                latest[key] = max(event.received_at for event in of_legs)
        await self._publisher.publish_until_confirmed(dead_letters)
        if latest:
            await until_redis_answers(lambda: self._store.refused_legs.record(latest))

    async def _record_spools(self, deliveries: Iterable[Delivery]) -> None:
        """Record in Redis what drained messages say about the rest of their spool."""
        reports = spool_reports(delivery.headers for delivery in deliveries if SPOOL in delivery.headers)
        if reports:
            await until_redis_answers(lambda: self._store.watermarks.store_spool_reports(reports))


def _received(events: Mapping[CallKey, Sequence[RawEvent]], keys: Iterable[CallKey]) -> dict[CallKey, str]:
    """Return when the last callback of each call was received, without calls that only a timer or a dial is about."""
    receipts = {key: [event.received_at for event in events[key] if isinstance(event, CallbackEvent)] for key in keys}
    return {key: max(times) for key, times in receipts.items() if times}


def _parts(calls: Mapping[CallKey, StoredCall]) -> Iterator[Mapping[CallKey, StoredCall]]:
    """Split calls into parts of about `_PART_BYTES`: the outboxes of a batch of large calls would fill the memory."""
    part: dict[CallKey, StoredCall] = {}
    size = 0
    for key, call in calls.items():
        part[key] = call
        size += sum(len(name) + len(value) for name, value in call.facts.items())
        size += sum(annotation.size for annotation in read_annotations(call.facts))
        if size >= _PART_BYTES:
            yield part
            part, size = {}, 0
    if part:
        yield part
