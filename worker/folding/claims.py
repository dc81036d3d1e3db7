"""Publishes revisions of calls: each is claimed, published and marked as published.

A claim is made again before each retry, and when its lease has ended. Another worker may have published the revision since, or
the state that it was made from may be lost.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain

from shared import metrics
from shared.amqp.publisher import Message, Publisher
from shared.crash_points import crash_point
from shared.domain.call_event import is_login
from shared.domain.ids import CallKey
from shared.domain.revision_proof import RevisionProof
from shared.domain.times import milliseconds
from shared.log import get_logger
from shared.state.replies import until_redis_answers
from shared.state.store import Store
from shared.state.stored_call import Claim, Publication
from shared.tracing.spans import now_ns
from worker.folding.outbox import read_outbox
from worker.folding.state_journal import StateJournal
from worker.folding.traces import record_publication, trace_id_of, with_trace_headers
from worker.watching.observations import Observations

log = get_logger(__name__)

_HELD_POLL_S = 0.05
_RETRY_S = 0.3


class Claims:
    """The claims of one holder."""

    def __init__(
        self,
        publisher: Publisher,
        store: Store,
        journal: StateJournal | None,
        *,
        holder: str,
        observations: Observations | None = None,
    ) -> None:
        """Take what `Fold` takes."""
        self._observations = observations
        self._publisher = publisher
        self._store = store
        self._journal = journal
        self._holder = holder

    async def publish(self, due: Mapping[CallKey, Publication], received: Mapping[CallKey, str]) -> list[CallKey]:
        """Claim, publish and mark revisions; returns the calls whose claims were lost.

        `received`: when the last callback was received that a revision follows from, if one was.

        A revision that another worker has claimed is claimed again until it is published or its lease expires.
        """
        lost: list[CallKey] = []
        done: set[str] = set()
        while due:
            claiming, claimed_at, began_ns = due, time.monotonic(), now_ns()
            claims = await until_redis_answers(lambda: self._store.claim(claiming, holder=self._holder))  # noqa: B023 - awaited before the loop goes on
            ours = {key: _messages(due[key], outbox) for key, (claim, outbox) in claims.items() if claim is Claim.YOURS}
            crash_point("fold.claimed")
            await self._publish_claimed(ours, done, claimed_at)
            crash_point("fold.published")
            published = {key: messages for key, messages in ours.items() if all(each.message_id in done for each in messages)}
            if published:
                self._observe_delays({key: messages[0] for key, messages in published.items() if key in received}, received)
                revisions = {key: due[key].revision for key in published}
                await until_redis_answers(lambda: self._store.mark(revisions))  # noqa: B023 - as above
            crash_point("fold.marked")
            _report_published(published)
            for key, messages in published.items():
                record_publication(due[key], messages, began_ns)
            if self._observations is not None:
                self._observations.ended({key: losses for key in published if (losses := due[key].losses) is not None})
            lost += [key for key, (claim, _) in claims.items() if claim is Claim.LOST]
            # If its holder dies, the stored outbox is taken over and published, so this one is not needed.
            held = {key: replace(due[key], outbox=b"", losses=None) for key, (claim, _) in claims.items() if claim is Claim.HELD}
            due = held | {key: due[key] for key in ours if key not in published}
            if due:
                await asyncio.sleep(_RETRY_S if len(published) < len(ours) else _HELD_POLL_S)
        return lost

    def _observe_delays(self, events: Mapping[CallKey, Message], received: Mapping[CallKey, str]) -> None:
        """Measure from the receipt of the last callback of each call to now, when RabbitMQ has confirmed the event."""
        now_s = self._store.clock.now().timestamp() if events else 0.0
        for key, event in events.items():
            delay_s = max(0.0, now_s - milliseconds(received[key]) / 1000)
            metrics.observe(metrics.EVENT_DELAY, delay_s, trace_id_of(event).get("trace_id"))

    async def _publish_claimed(self, outboxes: Mapping[CallKey, Sequence[Message]], done: set[str], claimed_at: float) -> None:
        """Publish claimed outboxes once, without messages that are `done`; adds those that RabbitMQ has confirmed.

        What this process has written to Redis is published ahead of them.
        """
        owed = self._journal.unpublished() if self._journal is not None and outboxes else None
        messages = [message for message in chain.from_iterable(outboxes.values()) if message.message_id not in done]
        unconfirmed = await self._publisher.publish_once(
            [owed[0], *messages] if owed else messages,
            task=self,
            may_send=lambda: time.monotonic() - claimed_at < self._store.claim_lease_s,
        )
        missing = {message.message_id for message in unconfirmed}
        if owed and owed[0].message_id not in missing:
            self._store.positions.recorded(owed[1])
        done |= {message.message_id for message in messages} - missing


def _messages(publication: Publication, outbox: bytes) -> list[Message]:
    """Return the messages of a claimed outbox. One that was taken over was made from facts that this worker may not know."""
    event, *jobs = read_outbox(outbox)
    if outbox == publication.outbox:
        event = replace(event, headers=RevisionProof(publication.digest, publication.summary).headers())
    return with_trace_headers([event, *jobs])


def _report_published(published: Mapping[CallKey, Sequence[Message]]) -> None:
    """Count and log published revisions; the call event is the first message of each. A login counts as no other outcome."""
    for key, messages in published.items():
        _, kind, _, outcome = messages[0].routing_key.split(".")
        counter = metrics.CALLS_COMPLETED if kind == "completed" else metrics.CALLS_AMENDED
        counter.labels(key.source, metrics.LOGIN if is_login(messages[0].body) else outcome).inc()
        named = {"source": key.source, "call": key.call, "id": messages[0].message_id}
        log.info("call_published", **named, outcome=outcome, **trace_id_of(messages[0]))
