"""The dead letters that hold callbacks of one call, as far as their values name it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from console.counts import counted
from console.dead_letters.queue import DeadLetterQueue, QueuedDeadLetter
from console.dead_letters.turns import reader_of
from shared.config.settings import Settings
from shared.domain.adapter_link import SAMPLE_LINK, Placeholder, parse_link
from shared.domain.ids import CallKey, first_use
from shared.domain.raw_event import AnnotationEvent, CallbackEvent, DialEvent, decode
from shared.masking import mask_credentials

_SAMPLE = parse_link(SAMPLE_LINK).folded_meanings
_CALL_ID = "call-"
_MAX_FIELDS = 200
_MAX_IDS = 5


@dataclass(frozen=True, slots=True)
class OfCall:
    """Dead letters with callbacks of a call; more may be behind those that were read if the search was not complete."""

    dead_letters: Sequence[QueuedDeadLetter] = field(default_factory=list)

    def in_words(self) -> str:
        """Return what they say, and the command that redrives them."""
        details = sorted({f"{each.reason}: {mask_credentials(each.detail)}" for each in self.dead_letters})
        more = "" if len(details) == 1 else f", and {counted(len(details) - 1, 'other reason')}"
        ids = " ".join(each.id for each in self.dead_letters[:_MAX_IDS])
        rest = " and further ids" if len(self.dead_letters) > _MAX_IDS else ""
        return (
            f"{details[0]}{more}. Correct the cause, then run `callfold dead-letters redrive {ids}`{rest}. "
            "`callfold dead-letters show` prints a dead letter."
        )


async def find_of_call(settings: Settings, key: CallKey) -> OfCall:
    """Find the dead letters of a call in a bounded read, which changes nothing.

    Raises:
        CallfoldError: others held the queue for too long, or RabbitMQ cannot be reached.
    """
    source = settings.load_sources().get(key.source)
    meanings = {**_SAMPLE, **(source.adapter.folded_meanings if source else {})}
    async with reader_of(settings, DeadLetterQueue.CALLBACKS) as reader:

        async def look() -> OfCall:
            matching: list[QueuedDeadLetter] = []
            async with reader.look() as turn, aclosing(turn.bounded_batches()) as batches:
                async for batch in batches:
                    matching += [each for each in batch if is_of_call(each.delivery.body, key, meanings)]
            return OfCall(matching)

        return await reader.retried(look)


def is_of_call(body: bytes, key: CallKey, meanings: Mapping[str, str] = _SAMPLE) -> bool:
    """Return whether a message has an event that names the call. An invalid callback can still have its RequestID or CallID."""
    digits = first_use(key.call).removeprefix(_CALL_ID)
    if digits.encode() not in body:
        return False
    for event in decode(body):
        match event:
            case DialEvent() if event.source == key.source and str(event.request_id) == first_use(key.call):
                return True
            case AnnotationEvent() if (event.source, event.call) == key:
                return True
            case CallbackEvent() if event.source == key.source and _names(event.query, key, meanings):
                return True
    return False


def _names(query: str, key: CallKey, meanings: Mapping[str, str]) -> bool:
    placeholder = Placeholder.CALL_ID if key.call.startswith(_CALL_ID) else Placeholder.REQUEST_ID
    digits = first_use(key.call).removeprefix(_CALL_ID).lstrip("0")
    return any(meaning == placeholder and value.strip().lstrip("0") == digits for meaning, value in _values(query, meanings))


def _values(query: str, meanings: Mapping[str, str]) -> Iterator[tuple[str | None, str]]:
    try:
        pairs = parse_qsl(query, errors="replace", max_num_fields=_MAX_FIELDS)
    except ValueError:  # too many parameters: they are no callback's
        return
    for name, value in pairs:
        yield meanings.get(name.strip().casefold()), value
