"""`callfold rebuild`: the journal of callbacks replayed into Redis, publishing nothing that was published."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import orjson

from console.commands.common import wanted_sources
from console.commands.output import counted
from console.durations import ago
from console.repair.decisions import conclude
from console.repair.published_calls import Revisions, read_published
from console.streams.connections import wait_until_connected
from console.streams.journal import journal_until_now
from shared.amqp.queue_reader import QueueReader
from shared.amqp.topology import CALLBACKS_FOLD, CALLBACKS_JOURNAL
from shared.clock import utc_now
from shared.config.settings import Settings
from shared.config.sources import Sources
from shared.domain.facts import Fact, facts_of, rfc3339
from shared.domain.ids import CallKey
from shared.domain.raw_event import Undecodable, decode, is_future_timer
from shared.errors import CallfoldError
from shared.runtime.broker import broker_address
from shared.runtime.process import background
from shared.runtime.store import open_store
from shared.state.store import Store
from shared.state.stored_call import RestoredPublication, WakeUp

_BATCH_EVENTS = 1000
_PROGRESS_EVENTS = 10_000
# Clocks of the machines of a system differ; the journal is sought by the broker's.
_BEFORE = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Window:
    """What is replayed: from when on, of which source; of what came before `asked_for`, only what these calls need."""

    begins: datetime
    source: str | None
    calls: Collection[CallKey] = ()
    asked_for: str = ""

    def has(self, key: CallKey, received_at: str) -> bool:
        return received_at >= self.asked_for or key in self.calls


@dataclass(slots=True)
class _Tally:
    """What was found and done."""

    events: int = 0
    not_understood: int = 0
    calls: set[CallKey] = field(default_factory=set)
    done: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Mode:
    """How to replay: only count; let workers publish what is complete and never was; although workers run; print JSON."""

    is_dry_run: bool
    is_publishing: bool
    is_forced: bool
    as_json: bool


async def rebuild(settings: Settings, since: str, source: str | None, mode: Mode) -> int:
    """Replay, first counting."""
    wanted_sources(settings, source)
    sources, start = settings.load_sources(), ago(since)
    total = _Tally()
    async for _ in _batches(settings, Window(start, source), sources, total):
        pass
    told = f"{counted(total.events, 'event')} of {counted(len(total.calls), 'call')}"
    sys.stderr.write(f"{told} since {start:%Y-%m-%d %H:%M:%S} UTC\n")
    if mode.is_dry_run:
        if mode.as_json:
            _print({"events": total.events, "not_understood": total.not_understood, "calls": len(total.calls)})
        return 0
    tally = _Tally()
    async with open_store(settings) as store:
        if not mode.is_forced:
            await _refuse_while_workers_run(settings)
        await _replay(
            settings, store, sources, Window(start, source, total.calls, rfc3339(start)), tally, publish=mode.is_publishing
        )
    if mode.as_json:
        done = {what.replace(",", "").replace(" ", "_"): count for what, count in sorted(tally.done.items())}
        _print({"events": tally.events, "not_understood": tally.not_understood, "calls": len(tally.calls)} | done)
        return 0
    told = ", ".join(f"{count} {what}" for what, count in sorted(tally.done.items())) or "nothing to do"
    sys.stdout.write(f"{counted(tally.events, 'event')} merged, {tally.not_understood} not understood; calls: {told}\n")
    return 0


async def _refuse_while_workers_run(settings: Settings) -> None:
    """Refuse while workers fold: they would publish calls of which they see a half.

    Raises:
        CallfoldError: the queue of raw messages has a consumer.
    """
    getter = QueueReader(broker_address(settings, "rebuild"), CALLBACKS_FOLD)
    async with background(getter.run()):
        await wait_until_connected(getter)
        # RabbitMQ answers 0 as well when the queue does not answer it in time.
        running = max([await getter.count_consumers() for _ in range(3)])
    if running:
        raise CallfoldError(
            f"{counted(running, 'worker')} {'runs' if running == 1 else 'run'}. Stop all workers first: they publish calls that "
            "are half replayed. With --force the rebuild starts anyway."
        )


def _print(counts: Mapping[str, int]) -> None:
    sys.stdout.write(orjson.dumps(counts).decode() + "\n")


async def _replay(settings: Settings, store: Store, sources: Sources, window: Window, tally: _Tally, *, publish: bool) -> None:
    async def restore_others(revisions: Revisions) -> None:
        # Nobody will replay these: what comes for them late is known by their publication to be late.
        await store.restore_publications(
            {key: RestoredPublication(revision, "", WakeUp(None, "")) for key, revision in revisions.items()}
        )

    published = await read_published(settings, window.calls, window.source, restore_others)
    for known in published.values():
        begun = datetime.fromisoformat(known.record["started_at"]) - _BEFORE
        window = replace(window, begins=min(window.begins, begun))
    async for facts in _batches(settings, window, sources, tally):
        await store.merge(facts)
    # What still waits will be folded by a worker, which must not find it noted as published.
    is_queued = not publish and not await _is_empty(settings, CALLBACKS_FOLD)
    calls = sorted(tally.calls)
    for first in range(0, len(calls), _BATCH_EVENTS):
        folded = await store.merge({key: [] for key in calls[first : first + _BATCH_EVENTS]})
        found = conclude(settings.policy, sources, folded, published, publish=publish or is_queued)
        tally.done += found.counts
        await store.restore_publications(found.restored)
        await store.schedule(found.wake_ups)


async def _is_empty(settings: Settings, queue: str) -> bool:
    """Tell whether a queue is empty, by asking for a message: counts can be some seconds old. It goes back."""
    getter = QueueReader(broker_address(settings, "rebuild"), queue)
    async with background(getter.run()):
        await wait_until_connected(getter)
        return await getter.get() is None


async def _batches(
    settings: Settings, window: Window, sources: Sources, tally: _Tally
) -> AsyncIterator[dict[CallKey, list[Fact]]]:
    """Read the journal of callbacks as facts, some events at a time."""
    facts: dict[CallKey, list[Fact]] = {}
    size, now = 0, utc_now()
    async with journal_until_now(settings, window.begins, stream=CALLBACKS_JOURNAL) as deliveries:
        async for delivery in deliveries:
            for event in decode(delivery.body):
                # What is dead cannot be understood now either, unless the sources file was corrected.
                if isinstance(event, Undecodable) or event.source not in sources or is_future_timer(event, now):
                    tally.not_understood += 1
                    continue
                if window.source not in (None, event.source):
                    continue
                try:
                    key, told = facts_of(event, sources[event.source].adapter)
                except Exception:  # noqa: BLE001 - whatever it is, the fold has made a dead letter of it
                    tally.not_understood += 1
                    continue
                if not window.has(key, event.received_at):
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
