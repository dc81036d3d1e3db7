"""Four workers under load, and deaths at points of the fold and its timers; in volume at every ordered pair of them.

There the deaths follow each other along a circuit that passes from each point to each once, itself included: what one death
leaves behind is found by every other kind of death.
"""

from __future__ import annotations

import asyncio
import random
import signal
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import pairwise, product

import aio_pika
import orjson
import pytest

from console.local.child_process import ProcessFailedError
from console.local.processes import Fleet
from shared.clock import utc_now
from shared.domain.ids import SourceName
from shared.domain.raw_event import CallbackEvent, encode, join
from tests.helpers.downstream import DOWNSTREAM, downstream
from tests.helpers.pace import LIMIT_S, PACE, paced
from tests.helpers.servers import UNMEASURED, Servers, eventually, exit_code, lines_of
from tests.helpers.shared_machine import NEVER_CONSUMED
from tests.helpers.volume import sizes

POINTS = (
    "fold.taken",
    "fold.merged",
    "fold.scheduled",
    "fold.claimed",
    "fold.published",
    "fold.marked",
    "fold.before_ack",
    "fold.acked",
    "timer.due",
    "timer.leased",
    "timer.published",
)
FIRST_CALL = 4_000_000
DEATHS_OF_A_SHARE = 3
GROUP = 25
# A worker that dies before its first report holds all timers for a while (ADR 7): a minute, here less, since so many die. The
# others of its chain die meanwhile, so that a worker of the other chain that is to die at a timer may have to wait for all of them.
_DEATH_S = 10 * LIMIT_S
TRICKLE = 4  # calls a second for those who are still to die, one of them lossy
QUICK = {
    "CALLFOLD_SETTLE_SECONDS": "1",
    "CALLFOLD_LEG_GRACE_SECONDS": "4",
    "CALLFOLD_MAX_CALL_SECONDS": "60",
    "CALLFOLD_TIMER_LEASE_SECONDS": "1",
    "CALLFOLD_TIMER_HOLD_OFF_SECONDS": "0",
    NEVER_CONSUMED: paced(10),
    "CALLFOLD_RECORDING_CONCURRENCY": "1",  # not what this is about
}


def _is_lossy(request_id: int) -> bool:
    return request_id % 4 == 0


def _lines(request_id: int) -> list[str]:
    lines = lines_of(request_id)[: 3 if _is_lossy(request_id) else 4]
    return [line.replace("IsCallRecorded=1", "IsCallRecorded=") for line in lines]


def _circuit(points: Sequence[str]) -> list[str]:
    """Order deaths so that each point is followed by each other one, and by itself, once (Hierholzer's way round a graph)."""
    ahead = {point: list(points) for point in points}
    way, found = [points[0]], []
    while way:
        if ahead[way[-1]]:
            way.append(ahead[way[-1]].pop())
        else:
            found.append(way.pop())
    return found


def test_the_circuit_has_every_ordered_pair_once() -> None:
    way = _circuit(POINTS)
    assert Counter(pairwise(way)) == dict.fromkeys(product(POINTS, repeat=2), 1)


class Deaths:
    """Counts them, so that the load lasts as long as they do, however slow the machine is."""

    def __init__(self, expected: int) -> None:
        self.expected = expected
        self.count = 0
        self._more = asyncio.Event()

    def add(self) -> None:
        self.count += 1
        self._more.set()

    @property
    def are_over(self) -> bool:
        return self.count == self.expected

    async def wait_for_share(self, share: float) -> None:
        """Wait until so large a share has happened, or for a moment: who is to die next may need more to do."""
        with suppress(TimeoutError):
            async with asyncio.timeout(1):
                while self.count < share * self.expected:
                    self._more.clear()
                    await self._more.wait()


async def _load(servers: Servers, deaths: Deaths, at_least: int) -> range:
    """Publish calls group by group, shuffled and doubled, and then a few at a time until all have died; returns which."""
    rng = random.Random(513)  # noqa: S311 - a seed, no secret
    first = FIRST_CALL
    async with servers.queue("callbacks.fold") as queue:
        while first < FIRST_CALL + at_least or not deaths.are_over:
            calls = range(first, first + (GROUP if first < FIRST_CALL + at_least else TRICKLE))
            lines = [line for call in calls for line in _lines(call)]
            lines += rng.sample(lines, len(lines) // 3)
            rng.shuffle(lines)
            while lines:
                size = rng.randint(1, 20)
                body = join(encode(CallbackEvent(SourceName("default"), utc_now(), line)) for line in lines[:size])
                message = aio_pika.Message(body, message_id=uuid.uuid4().hex, delivery_mode=2)
                await queue.channel.default_exchange.publish(message, queue.name)
                del lines[:size]
            first = calls.stop
            await deaths.wait_for_share(min(1.0, (first - FIRST_CALL) / at_least))
    return range(FIRST_CALL, first)


async def _die(fleet: Fleet, name: str, points: Iterable[str], deaths: Deaths) -> None:
    """Run a worker that dies at each point in turn, its heir at the next."""
    for number, point in enumerate(points):
        role = fleet.add(f"{name}-{number}", "worker", UNMEASURED | {"CALLFOLD_CRASH_AT": point})
        with suppress(ProcessFailedError):  # it may die before it was seen to be ready
            await role.start()
        assert await exit_code(role, timeout_s=_DEATH_S) == -signal.SIGKILL, f"{point}: {role.log_tail()}"
        fleet.processes.remove(role)
        deaths.add()


def _share() -> list[str]:
    """Choose a few points at random; that a death at each single one costs nothing is tested elsewhere."""
    return random.Random(513).sample(POINTS, DEATHS_OF_A_SHARE)  # noqa: S311 - repeatable on purpose


@pytest.mark.parametrize("calls_at_least", sizes(60, 5_000))
async def test_deaths_at_every_point_and_ordered_pair_leave_each_call_one_id_and_body_a_revision(
    servers: Servers, calls_at_least: int
) -> None:
    way = _circuit(POINTS) if calls_at_least >= 5_000 else _share()
    half = len(way) // 2
    ways = way[: half + 1], way[half:]  # both die at the point where one ends and the other begins
    deaths = Deaths(sum(map(len, ways)))
    bodies: dict[str, set[bytes]] = defaultdict(set)

    async def gathered() -> set[int]:
        for message in await servers.take_all(DOWNSTREAM):
            bodies[str(message.message_id)].add(message.body)
        return {int(name.split("/")[1]) for name in bodies}

    async with downstream(servers), servers.fleet(**QUICK) as fleet:
        for number in range(2):
            # Timers are left to those that are to die of them.
            fleet.add(f"steady-{number}", "worker", UNMEASURED | {"CALLFOLD_TIMER_HOLD_OFF_SECONDS": "3600"})
        await fleet.start_all()
        load = asyncio.create_task(_load(servers, deaths, calls_at_least))
        await asyncio.gather(*(_die(fleet, name, points, deaths) for name, points in zip("ab", ways, strict=True)))
        calls = await load
        await fleet.add("last", "worker", UNMEASURED).start()

        async def all_there() -> bool:
            return await gathered() == set(calls)

        await eventually(all_there, timeout_s=300 * PACE)

        async def right() -> bool:
            await gathered()
            last = {call: _last_record(bodies, call) for call in calls}
            return all((last[call]["outcome"], last[call]["complete"]) == ("answered", not _is_lossy(call)) for call in calls)

        await eventually(right)
    assert all(len(told) == 1 for told in bodies.values())
    assert await servers.take_all("callbacks.dead") == []


def _last_record(bodies: dict[str, set[bytes]], call: int) -> dict[str, object]:
    revision = max(number for number in range(1, 9) if f"default/{call}/{number}" in bodies)
    data: dict[str, object] = orjson.loads(next(iter(bodies[f"default/{call}/{revision}"])))["data"]
    return data
