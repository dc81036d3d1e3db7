"""Callbacks that wait for the fold: a spool for each source that sends more than its share, and their drain.

The spools are drained in turn, one message after the other. Each message is a probe, and few are unanswered at a time. Sources
that keep to their share are therefore delayed by about one message, whatever waits.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn, Self

from ingress.fair_shares import LAG_S
from ingress.fold_depth import FoldDepth
from ingress.group_commit import GroupCommit
from ingress.message_size import SMALLEST, MessageSize
from ingress.outgoing_message import OutgoingMessage
from ingress.probes import Probes
from ingress.spool import Spool
from ingress.spool_drain import joined
from ingress.spool_reports import SpoolReports
from ingress.traced_publish import publishing
from shared.amqp.publisher import Publisher
from shared.amqp.topology import CALLBACKS
from shared.domain.ids import SOURCE_NAME, SourceName
from shared.errors import BrokerUnavailableError, SpoolUnavailableError
from shared.log import get_logger
from shared.outage import Outage

log = get_logger(__name__)
_DRAIN = Outage(log, "waiting_drain_interrupted", "waiting_drain_resumed")

_TURNS = 2  # one message is folded while the next is on its way
_TURN_S = 5.0  # without an echo for this time the next message is published: a worker may have gone with it
_TURN_POLLS = 100
_RETRY_S = 1.0
_SCAN_S = 2.0
_READ_ROWS = 40
_READ_BYTES = 256 * 1024
_PREFIX, _SUFFIX = "waiting-", ".sqlite"


def source_of(file_name: str) -> SourceName | None:
    """Return the source whose callbacks wait in a file, or None for another file."""
    name = file_name.removeprefix(_PREFIX).removesuffix(_SUFFIX)
    is_lane = file_name == f"{_PREFIX}{name}{_SUFFIX}" and SOURCE_NAME.fullmatch(name)
    return SourceName(name) if is_lane else None


@dataclass(slots=True)
class _Lane:
    """The callbacks of one source that wait."""

    source: SourceName
    spool: Spool
    commit: GroupCommit
    reports: SpoolReports
    waiting_bytes: int = 0


class Waiting:
    """A lane for each source whose callbacks wait. All ingress processes of a machine share the files; one drains each."""

    def __init__(self, directory: Path, publisher: Publisher, depth: FoldDepth, probes: Probes, *, max_bytes: int) -> None:
        """Prepare; the files are in the directory of the spool, and `max_bytes` limits each of them."""
        self._directory = directory
        self._publisher = publisher
        self._depth = depth
        self._probes = probes
        self._max_bytes = max_bytes
        self._lanes: dict[SourceName, _Lane] = {}
        self._opening = asyncio.Lock()
        self._opened = AsyncExitStack()
        self._turns = asyncio.Semaphore(_TURNS)
        self._size = MessageSize()
        self._tasks: asyncio.TaskGroup | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._opened.aclose()

    @property
    def waiting_bytes(self) -> dict[SourceName, int]:
        """Bytes of waiting callbacks by source, as of a moment ago. A source without any is not listed."""
        return {lane.source: lane.waiting_bytes for lane in self._lanes.values() if lane.waiting_bytes}

    async def add(self, source: SourceName, encoded: bytes) -> None:
        """Write an encoded event to the lane of its source and fsync it.

        Raises:
            SpoolUnavailableError: the lane cannot be written.
        """
        lane = self._lanes.get(source) or await self._open(source)
        lane.waiting_bytes = lane.waiting_bytes or len(encoded)  # from now on the source goes on to wait until nothing does
        await lane.commit.submit(encoded)

    async def run(self) -> NoReturn:
        """Write and drain the lanes until cancelled, those of earlier processes too. Run it as a task."""
        async with asyncio.TaskGroup() as self._tasks:
            for lane in self._lanes.values():
                self._start(lane)
            while True:
                await self.open_left()
                await self._measure()
                await asyncio.sleep(_SCAN_S)
        raise AssertionError("the loop does not end")

    async def spool_of(self, source: SourceName) -> Spool:
        """Return the file of a source, opened if necessary."""
        return (self._lanes.get(source) or await self._open(source)).spool

    @property
    def spools(self) -> list[Spool]:
        """The files that are open, one for each source."""
        return [lane.spool for lane in self._lanes.values()]

    async def open_left(self) -> None:
        """Open lanes that another process has created: it may die and leave its callbacks."""
        with suppress(OSError):
            for path in await asyncio.to_thread(lambda: [*self._directory.glob(f"{_PREFIX}*{_SUFFIX}")]):
                source = source_of(path.name)
                if source is not None and source not in self._lanes:
                    await self._open(source)

    async def _measure(self) -> None:
        """Measure the lanes. While RabbitMQ accepts nothing, no drain does."""
        for lane in [*self._lanes.values()]:
            with suppress(SpoolUnavailableError):  # the lane logs that itself
                lane.waiting_bytes = await lane.spool.size() or lane.waiting_bytes  # only a drain ends the waiting

    async def _open(self, source: SourceName) -> _Lane:
        async with self._opening:
            if lane := self._lanes.get(source):
                return lane
            file_name = f"{_PREFIX}{source}{_SUFFIX}"
            spool = await self._opened.enter_async_context(Spool(self._directory, max_bytes=self._max_bytes, file_name=file_name))

            async def write(events: Sequence[bytes]) -> None:
                parts = (events[at : at + SMALLEST] for at in range(0, len(events), SMALLEST))
                await spool.add([OutgoingMessage.of_callbacks(part) for part in parts])

            lane = self._lanes[source] = _Lane(source, spool, GroupCommit(write), SpoolReports(spool, source))
            self._start(lane)
            return lane

    def _start(self, lane: _Lane) -> None:
        if self._tasks is not None:
            self._tasks.create_task(lane.commit.run())
            self._tasks.create_task(self._drain(lane))

    async def _drain(self, lane: _Lane) -> NoReturn:
        while True:
            await self._publisher.wait_until_up()
            try:
                async with lane.spool.drain_lock() as is_ours:
                    if is_ours:
                        await self._drain_all(lane)
                lane.spool.added.clear()
                lane.waiting_bytes = await lane.spool.size()
                _DRAIN.succeeded(task=lane.source)
            except (BrokerUnavailableError, SpoolUnavailableError) as error:
                _DRAIN.failed(str(error), task=lane.source, source=lane.source)
                await asyncio.sleep(_RETRY_S)
                continue
            with suppress(TimeoutError):  # look after a while in any case: another process may have written, or died
                async with asyncio.timeout(_RETRY_S):
                    await lane.spool.added.wait()

    async def _drain_all(self, lane: _Lane) -> None:
        while True:
            while rows := await lane.spool.oldest(_READ_ROWS, max_bytes=_READ_BYTES):
                await lane.reports.check_gate(self._publisher)
                for ids, message in joined(rows, max_events=self._size.events):
                    await self._drain_message(lane, ids[-1], message)
                    await lane.spool.remove(ids)
                    lane.waiting_bytes = await lane.spool.size()
            await lane.reports.end(self._publisher)
            if not lane.spool.has_undeleted:
                return
            await asyncio.sleep(_RETRY_S)  # keep the lock: another process would publish them again
            await lane.spool.remove([])

    async def _drain_message(self, lane: _Lane, last_id: int, message: OutgoingMessage) -> None:
        if message.exchange != CALLBACKS:  # a damaged row becomes a dead letter
            await self._publisher.publish(message.with_fresh_id())
            return
        # The first message goes out of turn: with its report the timers of the source begin to wait.
        turn = await self._next_turn() if lane.reports.is_waiting else _Turn(None, self._size)
        probe = self._probes.create(turn.end)
        try:
            report = await lane.reports.after(last_id)
            headers = {**message.headers, **report, **(probe.headers if probe else {})}
            with publishing(message):
                await self._publisher.publish(replace(message, headers=headers).with_fresh_id())
        except BaseException:
            if probe:
                self._probes.give_up(probe)
            turn.end()
            raise
        self._depth.published(len(message.body), is_drained=True)
        asyncio.get_running_loop().call_later(_TURN_S, turn.end)
        lane.reports.confirmed(report)

    async def _next_turn(self) -> _Turn:
        """Wait until few messages are unanswered and the fold is not behind. Lanes get their turns in order of arrival."""
        await self._turns.acquire()
        try:
            for _ in range(_TURN_POLLS):
                if self._probes.lag_s() <= LAG_S:
                    break
                await asyncio.sleep(_TURN_S / _TURN_POLLS)
        except BaseException:
            self._turns.release()
            raise
        return _Turn(self._turns, self._size)


class _Turn:
    """A place among the unanswered messages; it ends once, with the echo or after a while."""

    def __init__(self, turns: asyncio.Semaphore | None, size: MessageSize) -> None:
        self._turns = turns
        self._size = size
        self._began = time.monotonic()

    def end(self) -> None:
        turns, self._turns = self._turns, None
        if turns is not None:
            turns.release()
            self._size.echoed(time.monotonic() - self._began)
