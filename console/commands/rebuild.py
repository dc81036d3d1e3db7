"""`callfold rebuild`: replay the callback journal into Redis without publishing anything twice."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import orjson

from console.commands.common import select_sources
from console.counts import counted
from console.durations import ago
from console.repair.decisions import Decision, decide
from console.repair.later_uses import merge_later_uses, redirect
from console.repair.published_calls import Revisions, read_published
from console.streams.connections import wait_until_connected
from console.streams.journal import journal_until_now
from shared.amqp.queue_reader import QueueReader
from shared.amqp.topology import CALLBACKS_FOLD, CALLBACKS_JOURNAL
from shared.config.settings import Settings
from shared.config.sources import Sources
from shared.domain.facts import Fact, facts_of
from shared.domain.ids import CallKey
from shared.domain.raw_event import RawEvent, Undecodable, decode
from shared.domain.sender_clock import is_future_timer, latest_time, moved_back
from shared.domain.times import rfc3339
from shared.errors import CallfoldError
from shared.runtime.broker import broker_address
from shared.runtime.process import background
from shared.runtime.store import open_store
from shared.state.store import Store
from shared.state.stored_call import RestoredPublication, WakeUp

_BATCH_EVENTS = 1000
_PROGRESS_EVENTS = 10_000
# Machines' clocks differ, and the start of a replay is found by the clock of RabbitMQ.
_CLOCK_MARGIN = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Window:
    """The part of the journal to replay.

    Attributes:
        begins: where reading starts, which can be before `requested` to complete the facts of `calls`.
        calls: the calls that have an event since `requested`; earlier events of other calls are skipped.
    """

    begins: datetime
    source: str | None
    calls: Collection[CallKey] = ()
    requested: str = ""

    def has(self, key: CallKey, received_at: str) -> bool:
        return received_at >= self.requested or key in self.calls


@dataclass(slots=True)
class _Tally:
    events: int = 0
    invalid: int = 0
    calls: set[CallKey] = field(default_factory=set)
    done: Counter[Decision] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Mode:
    """The options of a rebuild.

    Attributes:
        is_publishing: workers publish complete calls that were never published.
        is_forced: start even if workers are running.
    """

    is_dry_run: bool
    is_publishing: bool
    is_forced: bool
    as_json: bool


async def rebuild(settings: Settings, since: str, source: str | None, mode: Mode) -> int:
    """Count the events to replay, then replay them unless it is a dry run."""
    select_sources(settings, source)
    sources, start = settings.load_sources(), ago(since)
    total = _Tally()
    async for _ in _batches(settings, Window(start, source), sources, total):
        pass
    text = f"{counted(total.events, 'event')} of {counted(len(total.calls), 'call')}"
    sys.stderr.write(f"{text} since {start:%Y-%m-%d %H:%M:%S} UTC\n")
    if mode.is_dry_run:
        if mode.as_json:
            _print({"events": total.events, "not_understood": total.invalid, "calls": len(total.calls)})
        return 0
    tally = _Tally()
    async with open_store(settings) as store:
        if not mode.is_forced:
            await _refuse_while_workers_run(settings)
        await _replay(
            settings, store, sources, Window(start, source, total.calls, rfc3339(start)), tally, publish=mode.is_publishing
        )
    if mode.as_json:
        done = {str(decision): count for decision, count in sorted(tally.done.items())}
        _print({"events": tally.events, "not_understood": tally.invalid, "calls": len(tally.calls)} | done)
        return 0
    calls = ", ".join(f"{count} {decision.text}" for decision, count in sorted(tally.done.items())) or "none"
    sys.stdout.write(f"{counted(tally.events, 'event')} replayed, {tally.invalid} invalid. Calls: {calls}\n")
    return 0


async def _refuse_while_workers_run(settings: Settings) -> None:
    """Refuse to start while workers fold: they would publish calls that are only half replayed.

    Raises:
        CallfoldError: the queue `callbacks.fold` has a consumer.
    """
    reader = QueueReader(broker_address(settings, "rebuild"), CALLBACKS_FOLD)
    async with background(reader.run()):
        await wait_until_connected(reader)
        # RabbitMQ also returns 0 if the queue does not answer it in time.
        running = max([await reader.count_consumers() for _ in range(3)])
    if running:
        raise CallfoldError(
            f"{counted(running, 'worker')} {'is' if running == 1 else 'are'} running and would publish calls that are only half "
            "replayed. Stop all workers first, or use --force to start anyway."
        )


def _print(counts: Mapping[str, int]) -> None:
    sys.stdout.write(orjson.dumps(counts).decode() + "\n")


async def _replay(settings: Settings, store: Store, sources: Sources, window: Window, tally: _Tally, *, publish: bool) -> None:
    async def restore_others(revisions: Revisions) -> None:
        # These calls are not replayed. A late callback for one of them is recognized by its publication.
        await store.restore_publications(
            {key: RestoredPublication(revision, "", WakeUp(None, "")) for key, revision in revisions.items()}
        )

    published = await read_published(settings, window.calls, window.source, restore_others)
    for known in published.values():
        begun = datetime.fromisoformat(known.record["started_at"]) - _CLOCK_MARGIN
        window = replace(window, begins=min(window.begins, begun))
    async for facts in _batches(settings, window, sources, tally):
        tally.calls |= set(await redirect(store, facts, settings.policy.max_call_s))
    # A worker will fold the callbacks still queued, so their calls must not be marked as published.
    has_backlog = not publish and not await _is_empty(settings, CALLBACKS_FOLD)
    calls = sorted(tally.calls)
    for first in range(0, len(calls), _BATCH_EVENTS):
        folded = await store.merge({key: [] for key in calls[first : first + _BATCH_EVENTS]})
        later = await merge_later_uses(store, folded.calls, published, settings.policy.max_call_s)
        folded_calls = {key: call for key, call in folded.calls.items() if key not in later.moved} | later.calls
        decisions = decide(settings.policy, sources, folded_calls, published, publish=publish or has_backlog)
        tally.done += decisions.counts
        await store.restore_publications(later.moved)
        await store.restore_publications(decisions.publications)
        await store.schedule(decisions.wake_ups)


async def _is_empty(settings: Settings, queue: str) -> bool:
    """Return whether a queue is empty. It gets one message, later requeued, because a count can be some seconds old."""
    reader = QueueReader(broker_address(settings, "rebuild"), queue)
    async with background(reader.run()):
        await wait_until_connected(reader)
        return await reader.get() is None


def _received(body: bytes, now: datetime) -> Sequence[RawEvent | Undecodable]:
    """Decode a message as the fold does: an ingress whose clock is ahead receives nothing in the future."""
    events = decode(body)
    latest = latest_time(events, "")
    return events if latest <= rfc3339(now) else moved_back(events, latest, now)


async def _batches(
    settings: Settings, window: Window, sources: Sources, tally: _Tally
) -> AsyncIterator[dict[CallKey, list[list[Fact]]]]:
    """Read the callback journal as batches of facts by call and event."""
    facts: dict[CallKey, list[list[Fact]]] = {}
    size, now = 0, datetime.now(UTC)
    async with journal_until_now(settings, window.begins, stream=CALLBACKS_JOURNAL) as deliveries:
        async for delivery in deliveries:
            for event in _received(delivery.body, now):
                # Events that were dead-lettered are invalid now too, unless the sources file was corrected.
                if isinstance(event, Undecodable) or event.source not in sources or is_future_timer(event, rfc3339(now)):
                    tally.invalid += 1
                    continue
                if window.source not in (None, event.source):
                    continue
                try:
                    key, event_facts = facts_of(event, sources[event.source].adapter)
                except Exception:  # noqa: BLE001 - whatever the error is, the fold dead-lettered this event
                    tally.invalid += 1
                    continue
                if not window.has(key, event.received_at):
                    continue
                facts.setdefault(key, []).append(event_facts)
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
