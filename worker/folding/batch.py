"""Turns raw events into facts by call. An event that cannot be understood is dead-lettered and delays no other."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field

from shared import metrics
from shared.amqp.dead_letters import DETAIL, DeadLetterReason, dead_letter_headers
from shared.amqp.publisher import Message
from shared.amqp.topology import CALLBACKS_DEAD
from shared.config.sources import Sources
from shared.domain.facts import NONSENSE, Fact, facts_of
from shared.domain.ids import CallKey
from shared.domain.raw_event import RawEvent, Undecodable, encode, join
from shared.errors import InvalidCallbackError
from shared.log import get_logger

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Batch:
    """Raw events as facts and events by call, and the dead letters among them."""

    facts: dict[CallKey, list[Fact]] = field(default_factory=dict)
    events: dict[CallKey, list[RawEvent]] = field(default_factory=dict)
    dead_letters: list[Message] = field(default_factory=list)

    def add(self, event: RawEvent, key: CallKey, facts: list[Fact]) -> None:
        self.facts.setdefault(key, []).extend(facts)
        self.events.setdefault(key, []).append(event)
        metrics.EVENTS_FOLDED.labels(event.kind).inc()
        if nonsense := sum(NONSENSE in name for name, _ in facts):
            metrics.NONSENSE_TIMESTAMPS.labels(key.source).inc(nonsense)


def read_batch(events: Iterable[RawEvent | Undecodable], sources: Sources) -> Batch:
    """Sort events by call and read their facts."""
    batch = Batch()
    for event in events:
        if isinstance(event, Undecodable):
            batch.dead_letters.append(_dead_letter(event.body, DeadLetterReason.UNDECODABLE, event.problem, ""))
            continue
        source = sources.get(event.source)
        if source is None:
            detail = f"no source {event.source} is configured"
            batch.dead_letters.append(dead_letter(event, DeadLetterReason.UNKNOWN_SOURCE, detail))
            continue
        try:
            key, facts = facts_of(event, source.adapter)
        except InvalidCallbackError as error:
            batch.dead_letters.append(dead_letter(event, DeadLetterReason.INVALID_CALLBACK, str(error)))
        except Exception as error:  # noqa: BLE001 - a bug that one event triggers must not stop the others
            batch.dead_letters.append(dead_letter(event, DeadLetterReason.FOLD_FAILED, f"{type(error).__name__}: {error}"))
        else:
            batch.add(event, key, facts)
    return batch


def dead_letter(event: RawEvent, reason: DeadLetterReason, detail: str) -> Message:
    """Build the dead letter of one event; counts and logs it."""
    return _dead_letter(join([encode(event)]), reason, detail, event.received_at)


def _dead_letter(body: bytes, reason: DeadLetterReason, detail: str, first_seen: str) -> Message:
    metrics.DEAD_LETTERS.labels(CALLBACKS_DEAD, reason).inc()
    headers = dead_letter_headers(reason, detail, first_seen)
    log.warning("message_dead_lettered", queue=CALLBACKS_DEAD, reason=reason, detail=headers[DETAIL])
    return Message("", CALLBACKS_DEAD, body, uuid.uuid4().hex, headers=headers)
