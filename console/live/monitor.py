"""Live monitoring: open calls, rates, outcomes and queues, one snapshot a second while there are watchers."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, NoReturn

import orjson

from console.ignored_values import UnreplacedProblem, find_unreplaced
from console.live.feed import Feed, PublishedEvent
from console.live.snapshot import OPEN_SHOWN, SECONDS_SHOWN, Snapshot
from console.pbx_clocks import find_pbx_clock_problems
from console.pbx_watch import PbxFindings, RecentPbxFindings
from console.previous_secrets import find_previous_secrets
from console.rebuilds import describe_rebuild
from console.refusals import RefusalTotals
from console.request_ids import RequestIdProblem, find_request_id_problems
from shared.amqp.batch_publish import HeaderValue
from shared.amqp.consumer import Consumer
from shared.amqp.queue_reader import QueueDepths
from shared.amqp.topology import (
    CALLBACKS_DEAD,
    CALLBACKS_FOLD,
    CALLBACKS_JOURNAL,
    FORWARD_DEAD,
    RECORDINGS,
    RECORDINGS_DEAD,
    retry_queue,
)
from shared.clock import utc_now
from shared.config.live_sources import LiveSources
from shared.config.settings import Settings
from shared.domain.call import Call, derive
from shared.domain.closing import Policy
from shared.domain.times import at_microseconds, milliseconds, rfc3339
from shared.errors import BrokerUnavailableError, StoreUnavailableError
from shared.runtime.broker import broker_address
from shared.state.keys import parse_call_key
from shared.state.store import Store

_TICK_S = 1.0
_FRESH_S = 0.9
_TIMES_TAKEN, _OLDEST_S = 5, 10
_OUTCOMES_FOR = timedelta(minutes=15)
_PREFETCH = 200
_BATCH_BYTES = 1 << 20
_COMPLETED = "call.completed."
_SECOND = len("2026-11-23T07:44:00")


class Monitor:
    """Takes snapshots. Without watchers it only counts callbacks, from the callback journal."""

    def __init__(self, settings: Settings, sources: LiveSources, store: Store, feed: Feed, refused: RefusalTotals) -> None:
        self._sources = sources
        self._store = store
        self._feed = feed
        self._refused = refused
        self._policy: Policy = settings.policy
        self._pbx_findings = RecentPbxFindings(store)
        self._retry_queues = [retry_queue(delay_s) for delay_s in sorted(set(settings.recording_retry_seconds))]
        self._callbacks: Counter[str] = Counter()
        self._taken = asyncio.Condition()
        self._taking = asyncio.Lock()
        self._fresh_until = 0.0
        self._watchers = 0
        address = broker_address(settings, "monitor")
        self.callbacks_journal = Consumer(address, CALLBACKS_JOURNAL, prefetch=_PREFETCH, arguments=self._restart)
        self.depths = QueueDepths(address)
        self.latest: Snapshot | None = None

    def _restart(self) -> Mapping[str, HeaderValue]:
        """Restart the count on each connection, because the offsets of a replaced stream would mean other callbacks."""
        self._callbacks.clear()
        return {"x-stream-offset": datetime.now(UTC) - timedelta(seconds=SECONDS_SHOWN)}

    async def count(self) -> NoReturn:
        """Count callbacks by second of receipt. Run it, `callbacks_journal.run()` and `depths.run()` as tasks."""
        while True:
            deliveries = [await self.callbacks_journal.get(), *self.callbacks_journal.get_waiting(_BATCH_BYTES)]
            for delivery in deliveries:
                self._callbacks.update(_seconds_of(delivery.body))
            for delivery in deliveries:
                await delivery.ack()
            if len(self._callbacks) > 2 * SECONDS_SHOWN:
                oldest = _seconds_until(utc_now())[0]
                self._callbacks = Counter({second: count for second, count in self._callbacks.items() if second >= oldest})

    async def run(self) -> NoReturn:
        """Take a snapshot every second while there are watchers. Run it as a task."""
        while True:
            started = time.monotonic()
            if self._watchers:
                await self.current()
                async with self._taken:
                    self._taken.notify_all()
            await asyncio.sleep(max(0.05, _TICK_S - (time.monotonic() - started)))

    async def next(self) -> Snapshot:
        """Wait for the next snapshot, as a watcher."""
        self._watchers += 1
        try:
            async with self._taken:
                await self._taken.wait()
        finally:
            self._watchers -= 1
        if self.latest is None:
            raise RuntimeError("woken without a snapshot")
        return self.latest

    async def current(self) -> Snapshot:
        """Return a snapshot that is about a second old at most; all who ask at once share it.

        With very many open calls it can be older, so that snapshots take only a part of the CPU time.
        """
        async with self._taking:
            began = time.monotonic()
            if self.latest is not None and began < self._fresh_until:
                return self.latest
            snapshot = await self.take()
            lasts_s = _TIMES_TAKEN * (time.monotonic() - began)
            self._fresh_until = began + (_FRESH_S if snapshot.problems else min(_OLDEST_S, max(_FRESH_S, lasts_s)))
            return snapshot

    async def take(self) -> Snapshot:
        """Take a snapshot now; servers that cannot be reached are named in its `problems`."""
        at = utc_now()
        problems: list[str] = []
        (calls, starts_us), (request_ids, unreplaced), pbx_clocks, pbx, previous_secrets = await asyncio.gather(
            self._open_calls(problems),
            self._link_problems(),
            self._pbx_clocks(),
            self._pbx(),
            find_previous_secrets(self._store, self._sources.current),
        )
        depths = await self._depths(problems)
        since = rfc3339(datetime.now(UTC) - _OUTCOMES_FOR)
        completed = count_completions(self._feed.recent(), since)
        seconds = _seconds_until(at)
        self.latest = snapshot = Snapshot(
            at=at,
            since=since,
            open_calls=calls,
            open_count=len(starts_us),
            oldest_open_at=at_microseconds(starts_us[-1]) if starts_us else None,
            callbacks=[self._callbacks[second] for second in seconds],
            per_second_completed=[completed.by_second[second] for second in seconds],
            completions=completed.by_outcome,
            logins=completed.logins,
            depths=depths,
            problems=problems,
            request_ids=request_ids,
            pbx_clocks=pbx_clocks,
            unreplaced=unreplaced,
            previous_secrets=previous_secrets,
            sources_file=self._sources.problems(),
            refused_count=self._refused.count(),
            refusals=self._refused.sentences(),
            has_refused_callbacks=self._refused.has_callbacks(),
            pbx_conditions=[condition.sentence for condition in pbx.conditions],
            pbx_figures=pbx.sentences,
        )
        return snapshot

    async def _open_calls(self, problems: list[str]) -> tuple[Sequence[Call], Sequence[int]]:
        """Read the newest open calls, and the start of every open call (microseconds since 1970), newest first."""
        try:
            if rebuild := await describe_rebuild(self._store):
                problems.append(rebuild)
            starts = await self._store.open_starts()
            newest = [parse_call_key(name) for _, name in starts[:OPEN_SHOWN]]
            facts = await self._store.read_facts(newest)
        except StoreUnavailableError:
            problems.append("Redis cannot be reached: open calls are not shown.")
            return [], []
        calls: list[Call] = []
        for key in newest:
            if facts[key]:
                calls.append(derive(key, facts[key], self._policy))
                await asyncio.sleep(0)  # a call of many legs takes milliseconds
        return calls, [at_us for at_us, _ in starts]

    async def _link_problems(self) -> tuple[Sequence[RequestIdProblem], Sequence[UnreplacedProblem]]:
        """Find the sources to correct. `_open_calls` reports a Redis that cannot be reached."""
        sources = self._sources.current
        try:
            return await asyncio.gather(find_request_id_problems(self._store, sources), find_unreplaced(self._store, sources))
        except StoreUnavailableError:
            return (), ()

    async def _pbx_clocks(self) -> Sequence[str]:
        """Find the PBXs whose clocks are wrong. `_open_calls` reports a Redis that cannot be reached."""
        try:
            return await find_pbx_clock_problems(self._store, self._sources.current)
        except StoreUnavailableError:
            return ()

    async def _pbx(self) -> PbxFindings:
        """Read what workers have observed of the PBXs. `_open_calls` reports a Redis that cannot be reached."""
        try:
            return await self._pbx_findings.read(self._sources.current)
        except StoreUnavailableError:
            return PbxFindings()

    async def _depths(self, problems: list[str]) -> Mapping[str, int | None]:
        """Count the messages to be folded, the recordings to be fetched (retries included), and the dead letters."""
        names = [CALLBACKS_FOLD, CALLBACKS_DEAD, RECORDINGS, RECORDINGS_DEAD, FORWARD_DEAD]
        try:
            counts = await self.depths.count([*names, *self._retry_queues])
        except BrokerUnavailableError:
            problems.append("RabbitMQ cannot be reached: queue depths are not shown.")
            return dict.fromkeys(names)
        waiting = counts[RECORDINGS] + sum(counts[queue] for queue in self._retry_queues)
        return {name: counts[name] for name in names} | {RECORDINGS: waiting}


def _seconds_until(at: str) -> Sequence[str]:
    """Name the last full seconds before a time. Its own second is not over."""
    last = milliseconds(at) // 1000
    return [rfc3339(datetime.fromtimestamp(last - back, UTC))[:_SECOND] for back in range(SECONDS_SHOWN, 0, -1)]


def _seconds_of(body: bytes) -> Iterable[str]:
    """Name the second of receipt of each callback of a raw message, including those that the fold will reject."""
    try:
        events = orjson.loads(body)
    except orjson.JSONDecodeError:
        return []
    if not isinstance(events, list):
        return []
    callbacks = (event for event in events if isinstance(event, dict) and event.get("kind") == "callback")
    return [str(event.get("received_at"))[:_SECOND] for event in callbacks]


class Completions(NamedTuple):
    """Counts of completed calls: since a time by outcome, and by second. Logins since that time are counted separately."""

    by_outcome: Counter[str]
    by_second: Counter[str]
    logins: int


def count_completions(events: Iterable[PublishedEvent], since: str) -> Completions:
    """Count the completed calls among published events."""
    completed = [event for event in events if event.routing_key.startswith(_COMPLETED)]
    calls = [event for event in completed if not event.is_login]
    return Completions(
        by_outcome=Counter(event.routing_key.rpartition(".")[2] for event in calls if event.at >= since),
        by_second=Counter(event.at[:_SECOND] for event in calls),
        logins=sum(event.is_login and event.at >= since for event in completed),
    )
