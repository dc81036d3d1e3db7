"""Evaluates merged calls: which revisions to publish, and when to evaluate each call again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from shared import metrics
from shared.amqp.dead_letters import DeadLetterReason
from shared.amqp.publisher import Message
from shared.clock import utc_now
from shared.config.source_options import BOTH_LEGS
from shared.config.sources import Sources
from shared.domain.call import Call, derive
from shared.domain.closing import Policy
from shared.domain.facts import CLOCK
from shared.domain.ids import CallKey
from shared.domain.ignored import Reason
from shared.domain.lost_callbacks import count_losses
from shared.domain.raw_event import AnnotationEvent, CallbackEvent, DialEvent, RawEvent, TimerEvent
from shared.domain.revision_proof import digest_of
from shared.domain.revision_summary import amends, summary
from shared.domain.times import milliseconds
from shared.state.stored_call import Publication, PublicationState, StoredCall, WakeUp
from worker.folding.batch import count_ignored, dead_letter
from worker.folding.outbox import write_outbox
from worker.folding.traces import trace_of_publication

# A wake-up that is at most this much too late is not moved, which saves most calls a command.
_SLACK_MS = 1000
# A bug is not fixed within seconds, and each evaluation fails and logs again. After an upgrade the call recovers within the hour.
_FAILED_WAKE_UP_MS = 3_600_000


Bodies = Mapping[str, str]
"""The texts of the bodies of a call's annotations, by their digests."""


@dataclass(frozen=True, slots=True)
class Consequences:
    """Actions that a merge requires of the fold."""

    publications: dict[CallKey, Publication] = field(default_factory=dict)
    wake_ups: dict[CallKey, WakeUp] = field(default_factory=dict)
    dead_letters: list[Message] = field(default_factory=list)


def _latest_ms(call: StoredCall) -> int:
    """Return the latest time of Redis that the call knows (ms since 1970); the clock of this process may be wrong."""
    clock = call.facts.get(CLOCK)
    return max(call.merged_at_ms or milliseconds(utc_now()), milliseconds(clock) if clock else 0)


def _count_contradicted(call: Call) -> None:
    """Count the timestamps that other callbacks contradict. What one callback shows to be wrong is counted with the callback."""
    for leg in call.legs:
        for ignored in leg.ignored_values:
            if ignored.event is None and ignored.reason == Reason.CONTRADICTS:
                count_ignored(call.key.source, ignored.placeholder, ignored.reason)


class Evaluator:
    """Derives calls from their facts and decides what follows. It does no I/O."""

    def __init__(self, sources: Sources, policy: Policy) -> None:
        self._sources = sources
        self._policy = policy

    def evaluate(
        self,
        events: Mapping[CallKey, Sequence[RawEvent]],
        merged: Mapping[CallKey, StoredCall],
        bodies: Mapping[CallKey, Bodies] | None = None,
    ) -> Consequences:
        """Evaluate each merged call; `events` are those that were just merged, `bodies` those of its annotations by digest."""
        consequences = Consequences()
        for key, call in merged.items():
            callbacks = [event for event in events[key] if not isinstance(event, TimerEvent)]
            if call.state is PublicationState.TOMBSTONED:
                metrics.CALLBACKS_OF_TOMBSTONES.labels(key.source).inc(len(callbacks))
                detail = f"{key} was published and has expired from Redis"
                consequences.dead_letters.extend(dead_letter(event, DeadLetterReason.EXPIRED_CALL, detail) for event in callbacks)
                consequences.wake_ups[key] = WakeUp(None, call.version)
            elif call.state is PublicationState.CLAIMED:
                # The worker that claimed it may have died. Taking over the claim publishes the outbox stored with it.
                consequences.publications[key] = Publication(key, call.revision, b"", "", call.version)
            else:
                try:
                    self._evaluate_call(key, call, events[key], consequences, (bodies or {}).get(key, {}))
                except Exception as error:  # noqa: BLE001 - a bug that one call triggers must not stop the others
                    detail = f"{type(error).__name__}: {error}"
                    consequences.dead_letters.extend(
                        dead_letter(event, DeadLetterReason.FOLD_FAILED, detail) for event in callbacks
                    )
                    consequences.wake_ups[key] = WakeUp(_latest_ms(call) + _FAILED_WAKE_UP_MS, call.version)
        return consequences

    def _derive(self, key: CallKey, merged: StoredCall, events: Sequence[RawEvent]) -> Call:
        """Derive a call. An annotation opens no call again whose facts a rebuild has merged since it was closed by silence."""
        call = derive(key, merged.facts, self._policy, merged_at_ms=merged.merged_at_ms)
        if call.closing or not merged.revision or not any(isinstance(event, AnnotationEvent) for event in events):
            return call
        if any(isinstance(event, CallbackEvent | DialEvent) for event in events):
            return call
        as_published = derive(key, merged.facts, self._policy)
        return as_published if as_published.closing else call

    def _evaluate_call(
        self, key: CallKey, merged: StoredCall, events: Sequence[RawEvent], consequences: Consequences, bodies: Bodies
    ) -> None:
        call = self._derive(key, merged, events)
        if call.wake_at is not None:
            at_ms = milliseconds(call.wake_at) + 1  # `wake_at` has microseconds: rounded down, the timer would come too early
            has_timer = any(isinstance(event, TimerEvent) for event in events)
            if has_timer or merged.wake_at_ms is None or at_ms < merged.wake_at_ms - _SLACK_MS:
                consequences.wake_ups[key] = WakeUp(at_ms, merged.version)
            return
        if call.closing is None:  # the facts hold nothing but the clock
            consequences.wake_ups[key] = WakeUp(None, merged.version)
            return
        source = self._sources.get(key.source)
        # Of a source that was removed before this process started. Its jobs fail visibly, and can be redriven once it is back.
        record_legs, country = (source.record_legs, source.country) if source else (BOTH_LEGS, None)
        new_summary = summary(call, merged.summary, record_legs)
        if not merged.revision or amends(merged.summary, new_summary):
            if not merged.revision:
                _count_contradicted(call)
            revision = merged.revision + 1
            traceparent, causes = trace_of_publication(key, revision, events)
            outbox = write_outbox(
                call, revision, record_legs, before=merged.summary, country=country, bodies=bodies, traceparent=traceparent
            )
            digest = "" if call.is_of_several else digest_of(merged.facts)
            losses = count_losses(call) if revision == 1 else None
            consequences.publications[key] = Publication(
                key, revision, outbox, new_summary, merged.version, digest, causes, losses
            )
        elif merged.wake_at_ms is not None:
            consequences.wake_ups[key] = WakeUp(None, merged.version)
