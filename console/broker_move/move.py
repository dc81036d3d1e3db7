"""The move of a running installation from one RabbitMQ to another.

The order is what keeps it safe:

1. The topology is declared on the new broker, and the streams are copied until their ends are reached.
2. The timers are held. From then on, processes may switch in any order: no timer can close a call whose callbacks wait elsewhere.
3. What arrives at the old broker is moved. The queues of workers are left to the workers that still consume them there.
4. To finish, the old broker is fenced: an ingress that was forgotten spools, and publishes once it has the new address.
5. Everything else is moved. The timers go on when the workers have folded what is in the new broker.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import NoReturn

from yarl import URL

from console.broker_move.hold import TimerHold
from console.broker_move.queues import QueueMove
from console.broker_move.streams import StreamCopy
from shared.amqp.broker_admin import BrokerAdmin
from shared.amqp.connection import BrokerAddress
from shared.amqp.queue_reader import QueueReader
from shared.amqp.topology import CALLBACKS_FOLD, RECORDINGS, Topology, move_exchange, topology, with_move_exchanges
from shared.config.settings import Settings
from shared.errors import BrokerUnavailableError, ConfigError
from shared.runtime.broker import broker_address
from shared.runtime.process import background
from shared.state.broker_move import MoveProgress
from shared.state.replies import until_redis_answers
from shared.state.store import Store
from shared.streams.connections import wait_until_connected
from worker.folding.echoes import Echoes

_LOCK = "move"
_LOOK_S = 1.0
# Workers consume these. Nothing else may take their messages while a worker of the old broker can.
_OF_WORKERS = frozenset({CALLBACKS_FOLD, RECORDINGS})

Report = Callable[[str, Mapping[str, object]], None]


class BrokerMove:
    """One run of a move. A later run with the same brokers continues where this one ended."""

    def __init__(self, settings: Settings, store: Store, to: Sequence[str], report: Report) -> None:
        """Take the settings of the old broker, and the URLs of the new one."""
        declared = topology(settings.recording_retry_seconds)
        address = broker_address(settings, "broker-move")
        self._route = f"{_locations(settings.amqp_urls)} {_locations(to)}"
        self._queues = declared.queues
        self._store = store
        self._report = report
        # Nothing is declared at the old broker: it is left as it is.
        self._old = BrokerAdmin(replace(address, topology=Topology()), timeout_s=settings.publish_timeout_seconds)
        self._address = BrokerAddress(tuple(to), with_move_exchanges(declared), address.name)
        self._new = BrokerAdmin(self._address, timeout_s=settings.publish_timeout_seconds)
        self._echoes = Echoes(self._old)
        self._hold = TimerHold(store)
        self._streams: list[StreamCopy] = []
        self._moves: list[QueueMove] = []

    async def run(self, *, is_finishing: bool) -> None:
        """Move. Without `is_finishing` it goes on until it is cancelled; else until everything is on the new broker.

        Raises:
            BrokerUnavailableError: a broker cannot be reached at the start.
            ConfigError: both are the same broker, or the new one has queues with other arguments.
        """
        async with self._connected():
            progress = await self._progress()
            await self._plan(progress)
            async with background(*(each.run() for each in self._streams)):
                await self._copy_streams(progress)
                await self._hold.begin()
                await until_redis_answers(self._store.broker_move.begin_switch)
                async with background(*(each.run() for each in self._moves), self._hold.keep(), self._echoes.run()):
                    self._report("switch", {})
                    if not is_finishing:
                        await self._follow()
                    await self._finish()

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[None]:
        lock = QueueReader(self._address, CALLBACKS_FOLD)
        async with background(self._old.run(), self._new.run(), lock.run()):
            await wait_until_connected(self._old, self._new, lock)
            if not await lock.try_lock(_LOCK):
                raise ConfigError("Another `callfold broker move` to this broker is running. Stop it first.")
            if await self._old.has_queue(f"{CALLBACKS_FOLD}.{_LOCK}"):
                raise ConfigError("--to names the broker of CALLFOLD_AMQP_URL. Name the new one.")
            yield

    async def _progress(self) -> MoveProgress:
        progress = await until_redis_answers(lambda: self._store.broker_move.read(self._route))
        if not progress.offsets and not progress.is_switching:
            await until_redis_answers(lambda: self._store.broker_move.begin(self._route))
        return progress

    async def _plan(self, progress: MoveProgress) -> None:
        """Find the queues that the old broker has: an older release has fewer."""
        for queue in self._queues:
            if not await self._old.has_queue(queue.name):
                continue
            if queue.arguments["x-queue-type"] == "stream":
                notes, offset = self._store.broker_move, progress.offsets.get(queue.name, 0)
                self._streams.append(StreamCopy(queue.name, self._old, self._new, notes, offset))
            else:
                waits = queue.name in _OF_WORKERS
                self._moves.append(QueueMove(queue.name, self._old, self._new, self._echoes, waits_for_workers=waits))
        self._report("declared", {"queues": len(self._moves), "streams": len(self._streams)})

    async def _copy_streams(self, progress: MoveProgress) -> None:
        """Copy the streams up to their ends. A move that had come further holds the timers already."""
        if progress.is_switching:
            await self._hold.begin()
        await self._catch_up()

    async def _catch_up(self) -> None:
        copying = asyncio.gather(*(each.catch_up() for each in self._streams))
        try:
            while not copying.done():
                await asyncio.wait([copying], timeout=_LOOK_S)
                self._report("copying", {each.stream: {"copied": each.next_offset, "of": each.end} for each in self._streams})
            await copying
        finally:
            copying.cancel()

    async def _follow(self) -> NoReturn:
        while True:
            self._report("moving", await self._state())
            await asyncio.sleep(_LOOK_S)

    async def _state(self) -> dict[str, object]:
        workers = {
            each.queue: count for each in self._moves if each.queue in _OF_WORKERS and (count := await each.other_consumers())
        }
        return {"moved": {each.queue: each.moved for each in self._moves if each.moved}, "workers": workers}

    async def _finish(self) -> None:
        while (state := await self._state())["workers"]:
            self._report("waiting", state)
            await asyncio.sleep(_LOOK_S)
        await self._retry(self._old.fence)
        self._report("fenced", {})
        # What expires or is given up in a queue goes to one further down this list.
        for move in sorted(self._moves, key=lambda each: (each.queue.endswith(".dead"), each.queue in _OF_WORKERS)):
            await move.drain()
        await self._catch_up()
        self._report("moved", await self._state())
        await self._hold.end()
        await self._retry(lambda: self._new.delete_exchanges(move_exchange(queue.name) for queue in self._queues))
        await until_redis_answers(self._store.broker_move.clear)
        self._report("finished", await self._state())

    async def _retry(self, request: Callable[[], Awaitable[None]]) -> None:
        """Repeat a request until its broker answers."""
        while True:
            try:
                return await request()
            except BrokerUnavailableError as error:
                self._report("retrying", {"problem": str(error)})
                await asyncio.sleep(_LOOK_S)


def _locations(urls: Sequence[str]) -> str:
    """Return hosts, ports and virtual host, without credentials."""
    return ",".join(f"{url.host}:{url.port}{url.path}" for url in map(URL, urls))
