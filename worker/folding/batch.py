"""Turns raw events into facts by call. An event that cannot be understood is dead-lettered and delays no other."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from shared import metrics
from shared.amqp.dead_letters import DETAIL, DeadLetterReason, dead_letter_headers
from shared.amqp.publisher import Message
from shared.amqp.topology import CALLBACKS_DEAD
from shared.config.sources import Sources
from shared.domain.adapter_link import TIMESTAMPS, Adapter
from shared.domain.facts import IGNORED, Fact, facts_of
from shared.domain.ids import CallKey, CallRef, SourceName, first_use
from shared.domain.ignored import Reason, split_fact
from shared.domain.raw_event import (
    MAX_EVENTS_PER_MESSAGE,
    AnnotationEvent,
    CallbackEvent,
    RawEvent,
    TimerEvent,
    Undecodable,
    encode,
    join,
)
from shared.errors import InvalidCallbackError
from shared.log import get_logger
from shared.outage import Outage
from shared.state.bounds import MAX_ANNOTATION_BYTES, MAX_ANNOTATIONS, MAX_LEGS
from shared.state.keys import partition

log = get_logger(__name__)
_DEAD_LETTERED = Outage(log, "message_dead_lettered")

NAMED = (TimerEvent, AnnotationEvent)
"""The events that name a call, which can be a later use of a RequestID. All others arrive at its first use."""
_MESSAGE_BYTES = 1 << 20
_NO_ADAPTER = Adapter({})


@dataclass(frozen=True, slots=True)
class Batch:
    """Raw events by call, each with its facts at the same position of another list, and the dead letters among them.

    Attributes:
        sources: the sources by which it is read and evaluated.
        unreplaced: of each source the placeholders that arrived unreplaced: in which call last, and when it was received.
        previous_secrets: when a callback with a previous secret of a source was last received.
    """

    sources: Sources = field(default_factory=dict)
    facts: dict[CallKey, list[list[Fact]]] = field(default_factory=dict)
    events: dict[CallKey, list[RawEvent]] = field(default_factory=dict)
    dead_letters: list[Message] = field(default_factory=list)
    unreplaced: dict[SourceName, dict[str, tuple[CallRef, str]]] = field(default_factory=dict)
    previous_secrets: dict[SourceName, str] = field(default_factory=dict)

    def add(self, event: RawEvent, key: CallKey, facts: list[Fact]) -> None:
        self.facts.setdefault(key, []).append(facts)
        self.events.setdefault(key, []).append(event)
        if IGNORED in facts[-1][0]:
            self._count_ignored(event, key, facts)

    def _count_ignored(self, event: RawEvent, key: CallKey, facts: list[Fact]) -> None:
        for name, _ in facts:
            if IGNORED in name:
                _, placeholder, reason = split_fact(name.partition(IGNORED)[2])
                count_ignored(key.source, placeholder, reason)
                if reason == Reason.PLACEHOLDER:
                    metrics.PLACEHOLDERS_UNREPLACED.labels(key.source, placeholder).inc()
                    self.unreplaced.setdefault(key.source, {})[placeholder] = (key.call, event.received_at)

    def take(self, key: CallKey, positions: Collection[int]) -> list[tuple[RawEvent, list[Fact]]]:
        """Remove events of a call; returns them with their facts."""
        pairs, taken = list(zip(self.events[key], self.facts[key], strict=True)), frozenset(positions)
        self.events[key] = [event for number, (event, _) in enumerate(pairs) if number not in taken]
        self.facts[key] = [facts for number, (_, facts) in enumerate(pairs) if number not in taken]
        if not self.events[key]:
            del self.events[key], self.facts[key]
        return [pairs[number] for number in positions]

    def of_the_pbx(self) -> list[CallKey]:
        """Return the calls of which there is more than an annotation. That can be about a call of last week."""
        return [key for key, events in self.events.items() if not all(isinstance(event, AnnotationEvent) for event in events)]

    def named(self, key: CallKey) -> list[RawEvent]:
        """Return the events that name this very call, and not only its RequestID or CallID."""
        return [event for event in self.events.get(key, ()) if isinstance(event, NAMED)]

    def pieces(self, at_most: int) -> list[list[CallKey]]:
        """Split the calls into pieces of about `at_most` events, so that no step sends Redis too much at once."""
        pieces: list[list[CallKey]] = [[]]
        events = 0
        for key, of_call in self.events.items():
            if events and events + len(of_call) > at_most:
                pieces.append([])
                events = 0
            pieces[-1].append(key)
            events += len(of_call)
        return pieces

    def refuse(self, key: CallKey, positions: Collection[int]) -> list[RawEvent]:
        """Remove events that are beyond the bounds of their call; returns them without timers, which are due again."""
        events, facts, refused = self.events.pop(key), self.facts.pop(key), frozenset(positions)
        kept = [number for number in range(len(events)) if number not in refused]
        if kept:
            self.events[key] = [events[number] for number in kept]
            self.facts[key] = [facts[number] for number in kept]
        return [event for number in positions if not isinstance(event := events[number], TimerEvent)]


def take_waiting(batch: Batch, waits_for: Mapping[CallKey, int], can_write: Callable[[int], bool]) -> dict[int, list[bytes]]:
    """Remove the events that wait for a partition, and return them by partition, in the order of arrival.

    An event waits for the partition of its call, and that of the first use of its RequestID, which shows what the call is.
    `waits_for` has the partitions of later uses that calls need. Timers are dropped, because their calls stay due.
    """
    waiting: dict[int, list[bytes]] = {}
    for key in list(batch.events):
        numbers = [partition(key), partition(CallKey(key.source, first_use(key.call)))]
        numbers += [waits_for[key]] if key in waits_for else []
        for number in numbers:
            if not can_write(number):
                events = batch.events.pop(key)
                del batch.facts[key]
                rows = [encode(event) for event in events if not isinstance(event, TimerEvent)]
                if rows:
                    waiting.setdefault(number, []).extend(rows)
                break
    return waiting


def read_batch(events: Iterable[RawEvent | Undecodable], sources: Sources) -> Batch:
    """Sort events by call and read their facts."""
    batch = Batch(sources)
    for event in events:
        if isinstance(event, Undecodable):
            batch.dead_letters.append(_dead_letter(event.body, DeadLetterReason.UNDECODABLE, event.problem, ""))
            continue
        source = sources.get(event.source)
        if source is None and not isinstance(event, TimerEvent):  # timers close the open calls of a source that was removed
            detail = f"no source {event.source} is configured"
            batch.dead_letters.append(dead_letter(event, DeadLetterReason.UNKNOWN_SOURCE, detail))
            continue
        if isinstance(event, CallbackEvent) and event.has_previous_secret:
            batch.previous_secrets[event.source] = max(event.received_at, batch.previous_secrets.get(event.source, ""))
        try:
            key, facts = facts_of(event, source.adapter if source else _NO_ADAPTER)
        except InvalidCallbackError as error:
            batch.dead_letters.append(dead_letter(event, DeadLetterReason.INVALID_CALLBACK, str(error)))
        except Exception as error:  # noqa: BLE001 - a bug that one event triggers must not stop the others
            batch.dead_letters.append(dead_letter(event, DeadLetterReason.FOLD_FAILED, f"{type(error).__name__}: {error}"))
        else:
            batch.add(event, key, facts)
    for kind, count in Counter(event.kind for of_call in batch.events.values() for event in of_call).items():
        metrics.EVENTS_FOLDED.labels(kind).inc(count)
    return batch


def count_ignored(source: SourceName, placeholder: str, reason: str) -> None:
    """Count a value that was not used as it was sent. Its placeholder is one of the source's adapter, so few are possible."""
    metrics.IGNORED_VALUES.labels(source, placeholder, reason).inc()
    if placeholder in TIMESTAMPS and reason in {Reason.NOT_A_TIME, Reason.CONTRADICTS}:
        metrics.NONSENSE_TIMESTAMPS.labels(source).inc()


def dead_letter(event: RawEvent, reason: DeadLetterReason, detail: str) -> Message:
    """Build the dead letter of one event; counts and logs it."""
    return _dead_letter(join([encode(event)]), reason, detail, event.received_at, event.source)


def dead_letters_of_refused(key: CallKey, refused: Sequence[RawEvent]) -> list[Message]:
    """Build the dead letters of events beyond the bounds of a call. There can be very many, so a message holds up to 500."""
    annotations = [event for event in refused if isinstance(event, AnnotationEvent)]
    others = [event for event in refused if not isinstance(event, AnnotationEvent)]
    detail = (
        f"{key} has all the legs that a call can have ({MAX_LEGS}, or fewer with long values). "
        "Does the adapter link send one RequestID for many calls?"
    )
    full = f"{key} has all the annotations that a call can have ({MAX_ANNOTATIONS}, or {MAX_ANNOTATION_BYTES >> 10} KiB)."
    return [
        *_dead_letters(key, others, DeadLetterReason.TOO_MANY_LEGS, detail),
        *_dead_letters(key, annotations, DeadLetterReason.TOO_MANY_ANNOTATIONS, full),
    ]


def _dead_letters(key: CallKey, refused: Sequence[RawEvent], reason: DeadLetterReason, detail: str) -> list[Message]:
    parts: list[list[bytes]] = [[]]
    for event in map(encode, refused):
        if len(parts[-1]) == MAX_EVENTS_PER_MESSAGE or sum(map(len, parts[-1])) + len(event) > _MESSAGE_BYTES:
            parts.append([])
        parts[-1].append(event)
    first_seen = min((event.received_at for event in refused), default="")
    return [_dead_letter(join(part), reason, detail, first_seen, key.source) for part in parts if part]


def _dead_letter(
    body: bytes, reason: DeadLetterReason, detail: str, first_seen: str, source: SourceName | None = None
) -> Message:
    metrics.DEAD_LETTERS.labels(CALLBACKS_DEAD, reason).inc()
    headers = dead_letter_headers(reason, detail, first_seen)
    message_id = uuid.uuid4().hex
    _DEAD_LETTERED.failed(headers[DETAIL], queue=CALLBACKS_DEAD, reason=reason, source=source, message_id=message_id)
    return Message("", CALLBACKS_DEAD, body, message_id, headers=headers)
