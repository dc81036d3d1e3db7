"""Which dead letters would come back from a redrive: those that cannot be understood with the present configuration either."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from console.counts import either
from console.dead_letters.queue import DeadLetterQueue, Filter, QueuedDeadLetter
from console.dead_letters.redrive_or_drop import Settled, SettleRequest
from console.dead_letters.turns import reader_of
from shared.amqp.dead_letters import DeadLetterReason
from shared.config.settings import Settings
from shared.config.sources import Sources
from shared.domain.facts import facts_of
from shared.domain.raw_event import RawEvent, Undecodable, decode
from shared.domain.recording import RecordingJob
from shared.errors import InvalidCallbackError
from shared.masking import mask_credentials

_BEYOND_BOUNDS = frozenset({DeadLetterReason.TOO_MANY_LEGS, DeadLetterReason.TOO_MANY_ANNOTATIONS})


@dataclass(frozen=True, slots=True)
class Prospects:
    """The expected result of a redrive or drop.

    Attributes:
        settled: the counts of the action.
        coming_back: of those to redrive, the ones that would come back, by reason and detail.
    """

    settled: Settled
    coming_back: Counter[str] = field(default_factory=Counter)


async def foresee(
    settings: Settings, queue: DeadLetterQueue, query: Filter, request: SettleRequest, sources: Sources
) -> Prospects:
    """Count what an action would do, in a bounded read that changes nothing.

    Raises:
        CallfoldError: others held the queue for too long, or RabbitMQ cannot be reached.
    """
    async with reader_of(settings, queue) as reader:
        matches = query.matcher()

        async def look() -> Prospects:
            done, skipped, coming_back = 0, 0, Counter[str]()
            async with reader.look() as turn, aclosing(turn.bounded_batches()) as batches:
                async for batch in batches:
                    matching = list(filter(matches, batch))
                    allowed = list(filter(request.allows, matching))
                    done, skipped = done + len(allowed), skipped + len(matching) - len(allowed)
                    coming_back.update(filter(None, (why_it_comes_back(queue, each, sources) for each in allowed)))
            return Prospects(Settled(done, skipped, turn.read >= turn.total and not turn.is_partial), coming_back)

        return await reader.retried(look)


def why_it_comes_back(queue: DeadLetterQueue, dead_letter: QueuedDeadLetter, sources: Sources) -> str:
    """Return why a redriven dead letter would come back, or "" if it may be understood.

    A callback is parsed with the adapter of its source as it is configured here; workers can have another configuration.
    """
    body = dead_letter.delivery.body
    if queue is DeadLetterQueue.FORWARD:
        return ""  # the receiver decides
    if queue is DeadLetterQueue.RECORDINGS:
        try:
            RecordingJob.decode(body)
        except ValueError as error:
            return f"{DeadLetterReason.UNDECODABLE}: {error}"
        return ""
    return next(filter(None, (_why_event_comes_back(dead_letter, event, sources) for event in decode(body))), "")


def _why_event_comes_back(dead_letter: QueuedDeadLetter, event: RawEvent | Undecodable, sources: Sources) -> str:
    if isinstance(event, Undecodable):
        return f"{DeadLetterReason.UNDECODABLE}: {mask_credentials(event.problem)}"
    if event.source not in sources:
        return f"{DeadLetterReason.UNKNOWN_SOURCE}: no source {event.source} is configured"
    try:
        key, _ = facts_of(event, sources[event.source].adapter)
    except InvalidCallbackError as error:
        return f"{DeadLetterReason.INVALID_CALLBACK}: {mask_credentials(str(error))}"
    except Exception as error:  # noqa: BLE001 - whatever the error is, the fold dead-letters this event
        return f"{DeadLetterReason.FOLD_FAILED}: {type(error).__name__}"
    if dead_letter.reason in _BEYOND_BOUNDS and dead_letter.detail.startswith(f"{key} "):
        return f"{dead_letter.reason}: it is still of call {key}"
    return ""


def in_words(reasons: Counter[str], at_most: int = 3) -> Sequence[str]:
    """Return the most frequent reasons with their counts, and how many others there are."""
    lines = [f"{count} {reason}" for reason, count in reasons.most_common(at_most)]
    others = reasons.total() - sum(count for _, count in reasons.most_common(at_most))
    return [*lines, f"{others} for {either(others, 'another reason', 'other reasons')}"] if others else lines
