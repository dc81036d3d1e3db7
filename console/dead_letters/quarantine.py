"""Refused callbacks in the quarantine: reading them, and publishing those that belong to a configured source now."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from console.counts import either
from console.dead_letters.queue import ID_CHARACTERS
from console.durations import ago
from shared.amqp.publisher import Message
from shared.amqp.topology import CALLBACKS, CALLBACKS_QUARANTINE
from shared.config.settings import Settings
from shared.config.sources import Sources
from shared.domain.callback import parse_callback
from shared.domain.ids import SourceName
from shared.domain.quarantined import QuarantinedCallback, decode_quarantined
from shared.domain.raw_event import CallbackEvent, encode, join
from shared.domain.times import rfc3339
from shared.errors import BrokerUnavailableError, CallfoldError, InvalidCallbackError
from shared.masking import mask_credentials
from shared.runtime.audit import Action, Audit
from shared.runtime.broker import create_publisher
from shared.runtime.process import background
from shared.runtime.store import open_store
from shared.state.flags import Flags
from shared.state.store import TOMBSTONE_BEYOND_FACTS_S
from shared.streams.connections import wait_until_connected
from shared.streams.journal import journal_until_now

_BATCH = 50
# Longer than a callback is redriven at all.
_REMEMBERED_BEYOND_S = 24 * 3600


def describe(callback: QuarantinedCallback) -> dict[str, object]:
    """Return the fields that commands print, with credentials masked."""
    fields: dict[str, object] = {
        "id": callback.id[:ID_CHARACTERS],
        "reason": callback.reason,
        "source": callback.source,
        "secret_of": callback.secret_of or None,
        "received_at": callback.received_at,
        "peer": callback.peer,
        "query": mask_credentials(callback.query),
    }
    return fields | ({"body": mask_credentials(callback.body.decode("utf-8", "backslashreplace"))} if callback.body else {})


@dataclass(frozen=True, slots=True)
class QuarantineFilter:
    """Selects the callbacks that match every given field. `source` is the name in their path."""

    ids: tuple[str, ...] = ()
    reason: str | None = None
    source: str | None = None
    since: str | None = None

    def matches(self, callback: QuarantinedCallback) -> bool:
        return (
            (not self.ids or any(callback.id.startswith(prefix) for prefix in self.ids))
            and self.reason in {None, callback.reason}
            and self.source in {None, callback.source}
        )


@dataclass(frozen=True, slots=True)
class QuarantineRedrive:
    """A redrive and who requested it.

    Attributes:
        as_source: the source that the callbacks are of, by default that of their path.
        is_unverified: include callbacks that did not have the secret of that source, so that anybody may have sent them.
        oldest: those received earlier are skipped.
    """

    who: str
    as_source: SourceName | None = None
    is_unverified: bool = False
    is_dry_run: bool = False
    oldest: str = ""


class WhyNot(NamedTuple):
    """Why callbacks are not redriven: the predicates of one and of several."""

    one: str
    several: str


_REDRIVEN = WhyNot("was redriven before", "were redriven before")
_NO_SOURCE = WhyNot("is of no configured source (`--as` names it)", "are of no configured source (`--as` names it)")
_TOO_OLD = WhyNot("is so old that Redis may no longer have its call", "are so old that Redis may no longer have their calls")
_NOT_UNDERSTOOD = WhyNot("cannot be understood as it is", "cannot be understood as they are")


@dataclass(slots=True)
class QuarantineResult:
    """Counts of a redrive; in a dry run, `redriven` would be."""

    redriven: int = 0
    skipped: dict[WhyNot, int] = field(default_factory=dict)


@asynccontextmanager
async def read_quarantine(settings: Settings, query: QuarantineFilter) -> AsyncIterator[AsyncIterator[QuarantinedCallback]]:
    """Read the matching callbacks, the oldest first.

    Raises:
        CallfoldError: RabbitMQ cannot be reached, or the connection is lost while reading.
    """
    since = ago(query.since) if query.since else None
    async with journal_until_now(settings, since or "first", stream=CALLBACKS_QUARANTINE) as deliveries:

        async def matching() -> AsyncIterator[QuarantinedCallback]:
            async for delivery in deliveries:
                callback = decode_quarantined(delivery.body)
                # A stream starts at a chunk boundary, so the first ones can be older.
                is_recent = since is None or (callback is not None and callback.received_at >= rfc3339(since))
                if is_recent and isinstance(callback, QuarantinedCallback) and query.matches(callback):
                    yield callback

        yield matching()


async def redriven_ids(settings: Settings, ids: Sequence[str]) -> frozenset[str]:
    """Return which callbacks were redriven before.

    Raises:
        StoreUnavailableError: Redis does not answer.
    """
    async with open_store(settings) as store:
        return frozenset([each for each in ids if await store.flags.is_set(_flag(each))])


async def redrive_quarantined(
    settings: Settings,
    query: QuarantineFilter,
    request: QuarantineRedrive,
    *,
    progress: Callable[[int], None] = lambda _: None,
) -> QuarantineResult:
    """Publish the matching callbacks that can be folded, each once.

    Raises:
        BrokerUnavailableError: the audit line could not be published, so nothing was redriven.
        CallfoldError: RabbitMQ was lost; the message says how many were redriven. The same command continues.
        StoreUnavailableError: Redis does not answer, so it is unknown what was redriven before.
    """
    result = QuarantineResult()
    redrivable = await _redrivable(settings, query, request, result)
    if request.is_dry_run or not redrivable:
        result.redriven = len(redrivable)
        return result
    publisher = create_publisher(settings, "quarantine")
    detail = {"queue": "quarantine", "ids": list(query.ids), "reason": query.reason, "since": query.since}
    async with open_store(settings) as store, background(publisher.run()):
        await wait_until_connected(publisher)
        async with Audit(publisher).record_run(
            Action.REDRIVE,
            request.who,
            lambda: {"letters": result.redriven},
            source=request.as_source or query.source,
            found=len(redrivable),
            wanted=detail,
            unverified=request.is_unverified,
        ):
            for first in range(0, len(redrivable), _BATCH):
                batch = redrivable[first : first + _BATCH]
                try:
                    await publisher.publish(*(message for _, message in batch))
                except BrokerUnavailableError as error:
                    raise CallfoldError(
                        f"{result.redriven} of {len(redrivable)} {either(result.redriven, 'was', 'were')} redriven, then: {error}"
                    ) from error
                await _remember(store.flags, [each for each, _ in batch], settings)
                result.redriven += len(batch)
                progress(result.redriven)
    return result


async def _redrivable(
    settings: Settings, query: QuarantineFilter, request: QuarantineRedrive, result: QuarantineResult
) -> list[tuple[str, Message]]:
    """Return id and message of each callback to publish. The others are counted as skipped."""
    sources = settings.load_sources()
    redrivable: list[tuple[str, Message]] = []
    async with open_store(settings) as store, read_quarantine(settings, query) as matching:
        async for callback in matching:
            why = _why_not(callback, request, sources)
            if why is None and await store.flags.is_set(_flag(callback.id)):
                why = _REDRIVEN
            if why is None:
                redrivable.append((callback.id, _message(callback, request)))
            else:
                result.skipped[why] = result.skipped.get(why, 0) + 1
    return redrivable


def _why_not(callback: QuarantinedCallback, request: QuarantineRedrive, sources: Sources) -> WhyNot | None:
    """Return why a callback is not redriven; None if it is."""
    source = sources.get(_target(callback, request))
    if source is None:
        return _NO_SOURCE
    if callback.received_at < request.oldest:
        return _TOO_OLD
    if source.secret is not None and callback.secret_of != source.name and not request.is_unverified:
        why = f"did not have the secret of {source.name}, so anybody may have sent"
        return WhyNot(f"{why} it (`--unverified` includes it)", f"{why} them (`--unverified` includes them)")
    try:
        parse_callback(source.adapter, callback.query)
    except InvalidCallbackError:
        return _NOT_UNDERSTOOD
    return None


def _target(callback: QuarantinedCallback, request: QuarantineRedrive) -> SourceName:
    return request.as_source or SourceName(callback.source)


def _message(callback: QuarantinedCallback, request: QuarantineRedrive) -> Message:
    event = CallbackEvent(_target(callback, request), callback.received_at, callback.query)
    return Message(CALLBACKS, "", join([encode(event)]), uuid.uuid4().hex)


async def _remember(flags: Flags, ids: Sequence[str], settings: Settings) -> None:
    kept_s = settings.retain_seconds + TOMBSTONE_BEYOND_FACTS_S + _REMEMBERED_BEYOND_S
    for each in ids:
        await flags.set(_flag(each), expires_in_s=kept_s)


def _flag(callback_id: str) -> str:
    return f"redriven:{callback_id}"
