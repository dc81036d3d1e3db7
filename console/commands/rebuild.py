"""`callfold rebuild`: replay the callback journal into Redis without publishing anything twice."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import orjson

from console.commands.common import select_sources
from console.counts import counted
from console.durations import ago
from shared.amqp.queue_reader import QueueReader
from shared.amqp.topology import CALLBACKS_FOLD
from shared.config.settings import Settings
from shared.errors import CallfoldError
from shared.rebuild.call_search import CallSearch
from shared.rebuild.journal_facts import count_events
from shared.rebuild.replay import Replay
from shared.rebuild.scope import Scope
from shared.runtime.broker import broker_address
from shared.runtime.process import background
from shared.runtime.store import open_store
from shared.streams.connections import wait_until_connected


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
    total = await count_events(settings, start, source, sources, _show_progress)
    text = f"{counted(total.events, 'event')} of {counted(len(total.calls), 'call')}"
    sys.stderr.write(f"{text} since {start:%Y-%m-%d %H:%M:%S} UTC\n")
    if mode.is_dry_run:
        if mode.as_json:
            _print({"events": total.events, "not_understood": total.invalid, "calls": len(total.calls)})
        return 0

    async def is_to_publish() -> bool:
        # A worker will fold the callbacks still queued, so their calls must not be marked as published.
        return not await _is_empty(settings, CALLBACKS_FOLD)

    async with open_store(settings) as store:
        if not mode.is_forced:
            await _refuse_while_workers_run(settings)
        with ExitStack() as resources:
            scope = Scope(source=source)
            candidates = await CallSearch(settings, store, sources, scope, resources).find(start, is_extended=False)
            replay = Replay(settings, store, sources, scope, candidates)
            done = await replay.run(None if mode.is_publishing else is_to_publish)
    if mode.as_json:
        by_decision = {str(decision): count for decision, count in sorted(done.done.items())}
        _print({"events": done.events, "not_understood": done.invalid, "calls": len(done.calls)} | by_decision)
        return 0
    calls = ", ".join(f"{count} {decision.text}" for decision, count in sorted(done.done.items())) or "none"
    sys.stdout.write(f"{counted(done.events, 'event')} replayed, {done.invalid} invalid. Calls: {calls}\n")
    return 0


def _show_progress(events: int) -> None:
    sys.stderr.write(f"{events} events read\n")


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
        # Not how many: while a worker renews its consumer, RabbitMQ counts both of them.
        raise CallfoldError(
            "At least one worker is running and would publish calls that are only half replayed. "
            "Stop all workers first, or use --force to start anyway."
        )


def _print(counts: Mapping[str, int]) -> None:
    sys.stdout.write(orjson.dumps(counts).decode() + "\n")


async def _is_empty(settings: Settings, queue: str) -> bool:
    """Return whether a queue is empty. It gets one message, later requeued, because a count can be some seconds old."""
    reader = QueueReader(broker_address(settings, "rebuild"), queue)
    async with background(reader.run()):
        await wait_until_connected(reader)
        return await reader.get() is None
