"""`callfold rebuild`: the journal of callbacks replayed into Redis, publishing nothing that was published."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime

import orjson

from console.journal import ago, journal_until_now
from shared.call import derive
from shared.errors import ConfigError, InvalidCallbackError
from shared.events import Undecodable, decode
from shared.facts import Fact, facts_of, milliseconds
from shared.ids import CallKey, CallRef, SourceName
from shared.records import summary
from shared.settings import Settings
from shared.sources import Sources
from shared.store import Folded, Look, Store
from shared.topology import CALLBACKS_JOURNAL, CALLS_JOURNAL

_BATCH_EVENTS = 1000
_PROGRESS_EVENTS = 10_000


@dataclass(slots=True)
class _Tally:
    """What was found and done."""

    events: int = 0
    not_understood: int = 0
    calls: set[CallKey] = field(default_factory=set)
    done: Counter[str] = field(default_factory=Counter)


async def rebuild(settings: Settings, since: str, source: str | None, *, dry_run: bool, publish: bool) -> int:
    """Replay, first counting. With `publish`, workers publish what is complete and was never published."""
    sources, start = settings.load_sources(), ago(since)
    if source is not None and source not in sources:
        raise ConfigError(f"There is no source {source}; configured: {', '.join(sources)}.")
    counted = _Tally()
    async for _ in _batches(settings, start, sources, source, counted):
        pass
    sys.stderr.write(f"{counted.events} events of {len(counted.calls)} calls since {start:%Y-%m-%d %H:%M:%S} UTC\n")
    if dry_run:
        return 0
    revisions = await _revisions(settings, start)
    opened = Store(
        settings.redis_url.get_secret_value(), first_look_s=settings.max_call_seconds, retain_s=settings.retain_seconds
    )
    tally = _Tally()
    async with aclosing(opened) as store:
        async for facts in _batches(settings, start, sources, source, tally):
            await store.merge(facts)
        calls = sorted(tally.calls)
        for first in range(0, len(calls), _BATCH_EVENTS):
            folded = await store.merge({key: [] for key in calls[first : first + _BATCH_EVENTS]})
            await _conclude(settings, store, folded, revisions, tally, publish=publish)
    told = ", ".join(f"{count} {what}" for what, count in sorted(tally.done.items())) or "nothing to do"
    sys.stdout.write(f"{tally.events} events merged, {tally.not_understood} not understood; calls: {told}\n")
    return 0


async def _batches(
    settings: Settings, start: datetime, sources: Sources, only: str | None, tally: _Tally
) -> AsyncIterator[dict[CallKey, list[Fact]]]:
    """Read the journal of callbacks as facts, some events at a time."""
    facts: dict[CallKey, list[Fact]] = {}
    size = 0
    async with journal_until_now(settings, start, stream=CALLBACKS_JOURNAL) as deliveries:
        async for delivery in deliveries:
            for event in decode(delivery.body):
                # What is dead cannot be understood now either, unless the sources file was corrected.
                if isinstance(event, Undecodable) or event.source not in sources:
                    tally.not_understood += 1
                    continue
                if only not in (None, event.source):
                    continue
                try:
                    key, told = facts_of(event, sources[event.source].adapter)
                except (InvalidCallbackError, ValueError, OverflowError):
                    tally.not_understood += 1
                    continue
                facts.setdefault(key, []).extend(told)
                tally.calls.add(key)
                tally.events += 1
                size += 1
                if tally.events % _PROGRESS_EVENTS == 0:
                    sys.stderr.write(f"{tally.events} events read\n")
            if size >= _BATCH_EVENTS:
                yield facts
                facts, size = {}, 0
    if facts:
        yield facts


async def _revisions(settings: Settings, start: datetime) -> dict[CallKey, int]:
    """Read from the journal of call events which revision of each call was published last."""
    revisions: dict[CallKey, int] = {}
    async with journal_until_now(settings, start, stream=CALLS_JOURNAL) as deliveries:
        async for delivery in deliveries:
            if delivery.routing_key.startswith("call."):
                event = orjson.loads(delivery.body)
                data = event["data"]
                key = CallKey(SourceName(data["source"]), CallRef(event["subject"]))
                revisions[key] = max(revisions.get(key, 0), data["revision"])
    return revisions


async def _conclude(
    settings: Settings,
    store: Store,
    folded: Mapping[CallKey, Folded],
    revisions: Mapping[CallKey, int],
    tally: _Tally,
    *,
    publish: bool,
) -> None:
    """Note complete calls as published, and say when to look at the others."""
    sealed: dict[CallKey, tuple[int, str]] = {}
    looks: dict[CallKey, Look] = {}
    for key, state in folded.items():
        if not state.facts or state.revision:
            tally.done["known already"] += 1
            continue
        call = derive(key, state.facts, settings.policy)
        if call.look_at is not None:
            looks[key] = Look(milliseconds(call.look_at), state.version)
            tally.done["open"] += 1
        elif publish and key not in revisions:
            looks[key] = Look(0, state.version)
            tally.done["to be published"] += 1
        else:
            sealed[key] = (revisions.get(key, 1), summary(call))
            tally.done["noted as published" if key in revisions else "noted as published, but never were"] += 1
    await store.seal(sealed)
    await store.schedule(looks)
