"""One source floods: the calls of another are on time, and everything that was answered 200 is folded in the end."""

from __future__ import annotations

import asyncio
import itertools
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aio_pika
import aiohttp
import orjson

from console.local.ports import free_port
from console.local.processes import Fleet, ServiceProcess
from tests.helpers.attacks import ATTACK_S, IS_LONG, Timings, assert_unharmed, within_bounds
from tests.helpers.flood import Flooded, flood
from tests.helpers.servers import Servers, connected, eventually, exit_code, lines_of, metric, taken_from

LIMIT_S = 1.0
SETTLE_S = 1.0
# A settling call takes 2 to 3 s by itself, so that the long form needs some time for more than one.
_SETTLING_FOR_S = 8 if IS_LONG else 0


class GoodSource:
    """Calls of a source that sends few, and how long after its last callback each is published."""

    def __init__(self, port: int, events: aio_pika.abc.AbstractQueue) -> None:
        self._port = port
        self._events = events
        self._numbers = itertools.count(513)
        self._arrived: dict[str, asyncio.Event] = {}

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        self._session = aiohttp.ClientSession()

        async def arrived(message: aio_pika.abc.AbstractIncomingMessage) -> None:
            self._arrived.setdefault(orjson.loads(message.body)["subject"], asyncio.Event()).set()

        tag = await self._events.consume(arrived, no_ack=True)
        async with self._session:
            yield
        await self._events.cancel(tag)

    async def _send(self, *lines: str) -> None:
        for line in lines:
            async with self._session.get(f"http://127.0.0.1:{self._port}/callbacks/good?{line}") as response:
                assert response.status == 200, response.status

    async def published(self, number: int) -> None:
        await self._arrived.setdefault(str(number), asyncio.Event()).wait()

    async def answered_call(self) -> int:
        """Send a call and return its number, once every callback is answered."""
        number = next(self._numbers)
        await self._send(*lines_of(number))
        return number

    async def whole_call(self) -> None:
        await self.published(await self.answered_call())

    async def settling_call(self) -> None:
        """A call that only a timer ends."""
        number = next(self._numbers)
        lines = lines_of(number)
        await self._send(lines[0], lines[3])
        await self.published(number)


@asynccontextmanager
async def _running(servers: Servers, **more: str) -> AsyncIterator[tuple[int, Fleet]]:
    port, sources = free_port(), Path(servers.directory / "sources.toml")
    sources.write_text("[sources.good]\nrecord_legs = []\n[sources.flooder]\nrecord_legs = []\n")
    settings = {
        "CALLFOLD_SOURCES": str(sources),
        "CALLFOLD_SETTLE_SECONDS": str(SETTLE_S),
        "CALLFOLD_TIMER_HOLD_OFF_SECONDS": "0",
        "CALLFOLD_LOG_LEVEL": "warning",
        **more,
    }
    async with servers.fleet(**settings) as fleet:
        ingress = fleet.add("ingress", "ingress", {"CALLFOLD_INGRESS_PORT": str(port), "CALLFOLD_LOG_LEVEL": "info"})
        fleet.add("worker", "worker", {"CALLFOLD_LOG_LEVEL": "info"})
        await fleet.start_all()
        await connected(ingress)
        yield port, fleet


async def test_a_flood_delays_no_call_of_another_source_and_is_folded_itself(servers: Servers) -> None:
    async with (
        servers.subscribed("call.completed.good.#") as good_events,
        servers.subscribed("call.completed.flooder.#") as flood_events,
        _running(servers) as (port, fleet),
    ):
        good = GoodSource(port, good_events)
        async with good.listening():
            before = await _timed(good.whole_call, 1.5), await _timed(good.settling_call, _SETTLING_FOR_S)
            async with within_bounds(*fleet.processes):
                flooded, whole, settling = await asyncio.gather(
                    flood(port, "flooder", ATTACK_S), _timed(good.whole_call, ATTACK_S), _timed(good.settling_call, ATTACK_S)
                )
        sys.stderr.write(f"whole calls: {before[0]}; during the flood: {whole}\n")
        sys.stderr.write(f"settling calls: {before[1]}; during the flood: {settling}; flood: {dict(flooded.statuses)}\n")
        assert flooded.calls, "the flood did nothing"
        assert_unharmed(whole, before[0], limit_s=before[0].p99 + LIMIT_S)
        assert_unharmed(settling, before[1], limit_s=before[1].p99 + LIMIT_S)
        await _published(flood_events, flooded.calls)


async def test_what_waits_is_held_for_its_source_and_survives_kill_9_of_ingress(servers: Servers) -> None:
    """The worker stands still, so the flooder waits and the other source does not; then ingress is killed."""
    async with (
        servers.subscribed("call.completed.good.#") as good_events,
        servers.subscribed("call.completed.flooder.#") as flood_events,
        _running(servers) as (port, fleet),
    ):
        ingress, worker = fleet.processes
        good = GoodSource(port, good_events)
        async with good.listening():
            await good.whole_call()
            flooded, call = await _flood_until_it_waits(port, ingress, worker, good)
            assert await metric(ingress, 'callfold_callbacks_waited_total{source="good"}') == 0
            ingress.send_signal(signal.SIGKILL)
            await exit_code(ingress)
            worker.send_signal(signal.SIGCONT)
            await good.published(call)
            await ingress.start()
            await _published(flood_events, flooded.calls)


async def _flood_until_it_waits(
    port: int, ingress: ServiceProcess, worker: ServiceProcess, good: GoodSource
) -> tuple[Flooded, int]:
    """Stop the worker and flood, with the same calls each time. Returns the flood, and a call of the other source that is answered.

    The first attempts may be in vain: a slow machine sends no more than the guaranteed rate, and an ingress that had no echo from
    the worker yet does not know that the fold is behind.
    """
    for _ in range(30):
        worker.send_signal(signal.SIGSTOP)
        flooded, call = await asyncio.gather(flood(port, "flooder", 2), good.answered_call())
        if await _says_that_it_waits(ingress) and await metric(ingress, 'callfold_callbacks_waited_total{source="flooder"}'):
            return flooded, call
        worker.send_signal(signal.SIGCONT)
        await good.published(call)
    raise AssertionError("the flooder never waited")


async def _says_that_it_waits(ingress: ServiceProcess) -> bool:
    async with aiohttp.ClientSession() as session, session.get(ingress.metrics_url.replace("metrics", "readyz")) as ready:
        assert ready.status == 200
        return "flooder wait" in str((await ready.json())["problems"])


async def _timed(call: Callable[[], Awaitable[None]], for_s: float) -> Timings:
    """Repeat a call for some time, and once at least: one that only a timer ends can take longer than a flood."""
    timings, until = Timings(), time.monotonic() + for_s
    while not timings.seconds or time.monotonic() < until:
        began = time.monotonic()
        await call()
        timings.seconds.append(time.monotonic() - began)
    return timings


async def _published(events: aio_pika.abc.AbstractQueue, calls: Sequence[int]) -> None:
    """Wait until each of these calls was published: everything that was answered 200 is folded."""
    missing = {str(call) for call in calls}

    async def are_none_missing() -> bool:
        while message := await taken_from(events):
            missing.discard(orjson.loads(message.body)["subject"])
        return not missing

    await eventually(are_none_missing)
