"""The fold: raw events in, call state merged, what follows published, then acked - in this order, batch by batch.

While one batch is folded the next deliveries gather, so batches grow with the load by themselves.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import NoReturn

from shared import metrics
from shared.broker import Consumer, Message, Publisher
from shared.call import Policy, derive
from shared.crash import crash_point
from shared.errors import InvalidCallbackError
from shared.events import RawEvent, Undecodable, decode, encode, join
from shared.facts import Fact, facts_of
from shared.ids import CallKey
from shared.log import get_logger
from shared.sources import Sources
from shared.store import Claim, Folded, Publication, Store, patiently
from shared.topology import CALLBACKS_DEAD
from worker.outbox import read_outbox, write_outbox

log = get_logger(__name__)

# About a thousand callbacks: large enough to share every round trip, small enough to publish within a claim's lease.
_BATCH_BYTES = 256 * 1024
_HELD_POLL_S = 0.05


class Fold:
    """Folds deliveries of the queue `callbacks.fold`. Stateless: any number of workers can fold the same calls."""

    def __init__(
        self, publisher: Publisher, store: Store, sources: Sources, policy: Policy, *, retain_s: int, holder: str
    ) -> None:
        """Take the doors and rules; `holder` names this fold in claims and must be its alone."""
        self._publisher = publisher
        self._store = store
        self._sources = sources
        self._policy = policy
        self._retain_s = retain_s
        self._holder = holder
        self._busy = asyncio.Lock()

    async def run(self, consumer: Consumer) -> NoReturn:
        """Fold for as long as the process lives. Run it as a task."""
        while True:
            deliveries = [await consumer.get()]
            async with self._busy:
                deliveries += consumer.get_waiting(_BATCH_BYTES)
                with metrics.FOLD_SECONDS.time():
                    await self.fold(delivery.body for delivery in deliveries)
                crash_point("fold.before_ack")
                for delivery in deliveries:
                    await delivery.ack()

    async def finish(self) -> None:
        """Wait until the batch in hand is acked."""
        async with self._busy:
            return

    async def fold(self, bodies: Iterable[bytes]) -> None:
        """Do everything that follows from some raw messages; on return it is durable and they may be acked."""
        facts, dead = self._understand(bodies)
        await self._publisher.publish_patiently(dead)
        if not facts:
            return
        folded = await patiently(lambda: self._store.merge(facts))
        crash_point("fold.merged")
        await self._publish(self._due(folded))

    def _understand(self, bodies: Iterable[bytes]) -> tuple[dict[CallKey, list[Fact]], list[Message]]:
        """Turn messages into facts by call; what cannot be understood becomes a dead letter and holds up nothing else."""
        facts: dict[CallKey, list[Fact]] = {}
        dead: list[Message] = []
        for body in bodies:
            for event in decode(body):
                if isinstance(event, Undecodable):
                    dead.append(_dead_letter(event.body, "undecodable", event.problem, ""))
                    continue
                source = self._sources.get(event.source)
                if source is None:
                    dead.append(_refused(event, "unknown_source", f"no source {event.source} is configured"))
                    continue
                try:
                    key, told = facts_of(event, source.adapter)
                except (InvalidCallbackError, ValueError) as error:
                    dead.append(_refused(event, "invalid_callback", str(error)))
                    continue
                facts.setdefault(key, []).extend(told)
                metrics.EVENTS_FOLDED.labels(type(event).__name__).inc()
        return facts, dead

    def _due(self, folded: Mapping[CallKey, Folded]) -> dict[CallKey, Publication]:
        """Pick the calls whose next revision is to be published, or was claimed by someone who may have died."""
        due: dict[CallKey, Publication] = {}
        for key, state in folded.items():
            if state.is_published:
                continue
            if state.revision:
                due[key] = Publication(key, state.revision, b"")  # the claim keeps its own outbox
                continue
            call = derive(key, state.facts, self._policy)
            if call.closing:
                outbox = write_outbox(call, 1, self._sources[key.source].record_legs)
                due[key] = Publication(key, 1, outbox)
        return due

    async def _publish(self, due: Mapping[CallKey, Publication]) -> None:
        """Claim, publish, mark. What another worker holds is asked for again until it is published or its lease is over."""
        while due:
            wanted = due
            claims = await patiently(lambda: self._store.claim(wanted, holder=self._holder))  # noqa: B023 - awaited before the loop goes on
            ours = {key: read_outbox(outbox) for key, (claim, outbox) in claims.items() if claim is Claim.YOURS}
            crash_point("fold.claimed")
            await self._publisher.publish_patiently(chain.from_iterable(ours.values()))
            crash_point("fold.published")
            if ours:
                published = {key: due[key].revision for key in ours}
                await patiently(lambda: self._store.mark(published, retain_s=self._retain_s))  # noqa: B023 - as above
            crash_point("fold.marked")
            _tell(ours)
            due = {key: due[key] for key, (claim, _) in claims.items() if claim is Claim.HELD}
            if due:
                await asyncio.sleep(_HELD_POLL_S)


def _refused(event: RawEvent, reason: str, detail: str) -> Message:
    return _dead_letter(join([encode(event)]), reason, detail, event.received_at)


def _dead_letter(body: bytes, reason: str, detail: str, first_seen: str) -> Message:
    metrics.DEAD_LETTERS.labels(CALLBACKS_DEAD, reason).inc()
    log.warning("dead_letter", queue=CALLBACKS_DEAD, reason=reason, detail=detail)
    headers = {"reason": reason, "detail": detail, "first_seen": first_seen}
    return Message("", CALLBACKS_DEAD, body, uuid.uuid4().hex, headers=headers)


def _tell(published: Mapping[CallKey, list[Message]]) -> None:
    for key, messages in published.items():
        outcome = messages[0].routing_key.rpartition(".")[2]
        metrics.CALLS_COMPLETED.labels(key.source, outcome).inc()
        log.info("call_published", id=messages[0].message_id, outcome=outcome)
