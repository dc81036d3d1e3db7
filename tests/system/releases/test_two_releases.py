"""Workers and ingress of the first release and of this one share servers through kills, freezes, restarts and outages of links.

Redis keeps its data in it: what both releases promise about lost data is in docs/redis.md. It needs the commit of the first release, and runs with `-m volume`. Every call must end with the right outcome, and each event id
have one body, whichever release claimed it and whichever published it.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import orjson
import pytest
from redis.asyncio import Redis

from console.local.processes import Fleet
from console.local.stack import LocalStack
from tests.chaos.links import Links
from tests.helpers.downstream import DOWNSTREAM, downstream
from tests.helpers.first_release import NoHistoryError, runs, unpack_first_release
from tests.helpers.pace import LIMIT_S, paced
from tests.helpers.rollout import Rollout
from tests.helpers.servers import UNMEASURED, Servers, connected, eventually, eventually_as_many

_PICKED_UP, _MISSED, _HUNG_UP = "pickup", "missed", "hangup"
_KINDS = {
    "answered": (("API", _PICKED_UP), ("Outgoing", _PICKED_UP), ("Outgoing", _HUNG_UP), ("API", _HUNG_UP)),
    "dialed_missed": (("API", _PICKED_UP), ("Outgoing", _MISSED), ("API", _HUNG_UP)),
    "agent_missed": (("API", _MISSED),),
}


def _lines(request_id: int, outcome: str) -> list[str]:
    return [
        f"CallType={kind}&Event={event}&CallID={request_id}{1 if kind == 'API' else 2}&RequestID={request_id}&IsCallRecorded=&Guid="
        for kind, event in _KINDS[outcome]
    ]


@dataclass(slots=True)
class _Load:
    """Sends the callbacks of calls in any order, some twice, until each is answered 200."""

    ports: list[int]
    random: random.Random
    expected: dict[int, str] = field(default_factory=dict)
    is_over: bool = False

    async def run(self, first: int) -> None:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=LIMIT_S)) as session:
            for request_id in itertools.count(first, 10):
                if self.is_over:
                    return
                outcome = self.random.choice(list(_KINDS))
                lines = _lines(request_id, outcome)
                lines += self.random.sample(lines, self.random.randint(0, 1))
                self.random.shuffle(lines)
                for line in lines:
                    await self._send(session, line)
                self.expected[request_id] = outcome
                await asyncio.sleep(0.05)

    async def send_parts(self, request_ids: Iterable[int], part: slice) -> None:
        """Send a part of the callbacks of answered calls."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=LIMIT_S)) as session:
            for request_id in request_ids:
                for line in _lines(request_id, "answered")[part]:
                    await self._send(session, line)
                self.expected[request_id] = "answered"

    async def _send(self, session: aiohttp.ClientSession, line: str) -> None:
        while True:
            url = f"http://127.0.0.1:{self.random.choice(self.ports)}/callbacks/default?{line}"
            with suppress(aiohttp.ClientError, TimeoutError):
                async with session.get(url) as response:
                    if response.status == 200:
                        return
            await asyncio.sleep(0.05)


def _as_awaitable(count: Callable[[], int]) -> Callable[[], Awaitable[int]]:
    async def counted() -> int:
        return count()

    return counted


@asynccontextmanager
async def _loaded(load: _Load) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(load.run(1000 + number)) for number in range(3)]
    try:
        yield
    finally:
        load.is_over = True
        await asyncio.gather(*tasks)


@dataclass(slots=True)
class _Auditor:
    """Knows of each event id its bodies, and of each call its last revision."""

    servers: Servers
    bodies: dict[str, set[bytes]] = field(default_factory=dict)
    last: dict[int, dict[str, object]] = field(default_factory=dict)
    repeated: int = 0
    written_by: Counter[str] = field(default_factory=Counter)

    async def count(self) -> int:
        for message in await self.servers.take_all(DOWNSTREAM):
            event = orjson.loads(message.body)
            self.repeated += event["id"] in self.bodies
            self.bodies.setdefault(event["id"], set()).add(message.body)
            self.written_by["this" if "call_type" in event["data"] else "first"] += 1
            data = event["data"]
            if data["revision"] > self.last.get(data["request_id"], {"revision": 0})["revision"]:
                self.last[data["request_id"]] = data
        return len(self.last)

    def wrong(self, expected: dict[int, str]) -> list[tuple[int, object, object]]:
        """List the calls whose last revision is not what happened: outcome, completeness, legs."""
        return [
            (request_id, outcome, (data["outcome"], data["complete"]))
            for request_id, outcome in expected.items()
            if (data := self.last.get(request_id, {"outcome": None, "complete": None, "agent": None, "dialed": None}))
            and (
                (data["outcome"], data["complete"]) != (outcome, True)
                or (data["dialed"] is None) != (outcome == "agent_missed")
                or data["agent"] is None
            )
        ]

    def unlike(self, expected: dict[int, str]) -> list[str]:
        """List the events that have one id and two bodies, and the calls that never were."""
        repeated = [name for name, bodies in self.bodies.items() if len(bodies) > 1]
        return [*repeated, *(f"call {request_id}" for request_id in self.last.keys() - expected.keys())]

    async def wait_for(self, expected: dict[int, str]) -> None:
        """Wait until the last revision of each call is right."""
        await eventually_as_many(len(expected), self.count)

        async def is_right() -> bool:
            await self.count()
            return not self.wrong(expected)

        with suppress(AssertionError):
            await eventually(is_right)
        assert self.wrong(expected) == []


@asynccontextmanager
async def _both_releases(directory: Path, seed: int) -> AsyncIterator[tuple[Servers, Rollout]]:
    """Run two workers and an ingress of each release on queues of the first one, with a subscriber."""
    try:
        code = unpack_first_release(directory)
    except NoHistoryError as error:
        pytest.fail(str(error))
    async with LocalStack(directory / "stack") as stack:
        servers = Servers(stack, directory)
        settings = servers.environment(CALLFOLD_PUBLISH_TIMEOUT_SECONDS=paced(3))
        del settings["CALLFOLD_SPOOL_DRAIN_SECONDS"]  # the first release does not know it
        async with Fleet(directory / "logs", settings | UNMEASURED) as fleet, Links() as links:
            rollout = Rollout(fleet, stack, links, runs(code), seed)
            await rollout.lay_links()
            first = rollout.places[0]
            await rollout.start(first)  # the queues are those of the first release
            assert first.role is not None
            await connected(first.role)
            await first.role.stop()
            await stack.rabbitmq.stop()  # a RabbitMQ that is killed just after its streams were created would lose them
            await stack.rabbitmq.start()
            await rollout.revive()
            async with downstream(servers):
                yield servers, rollout


@pytest.mark.foreign_events  # those of the first release name no schema
@pytest.mark.volume
@pytest.mark.parametrize("seconds", [30, 600])
async def test_both_releases_fold_together_through_kills_restarts_and_outages(tmp_path: Path, seconds: int) -> None:
    began = time.monotonic()
    async with _both_releases(tmp_path, seconds) as (servers, rollout):
        load, auditor = _Load(rollout.ports, random.Random(seconds)), _Auditor(servers)  # noqa: S311 - repeatable on purpose
        ends_at = time.monotonic() + seconds
        async with _loaded(load):
            while time.monotonic() < ends_at:
                await rollout.fault()
                await rollout.revive()
                with suppress(Exception):  # RabbitMQ is starting
                    await auditor.count()
        await rollout.heal()
        await auditor.wait_for(load.expected)
        assert auditor.unlike(load.expected) == []
        assert auditor.written_by["first"]
        assert auditor.written_by["this"]
        assert not await servers.take_all("callbacks.dead")
    amended = sum(data["revision"] != 1 for data in auditor.last.values())
    print(  # noqa: T201 - the figures of the run
        f"\n{time.monotonic() - began:.0f} s: faults {dict(rollout.counts)}; {len(load.expected)} calls, "
        f"{len(auditor.bodies)} events, {auditor.repeated} repeated, {amended} calls amended, written by {dict(auditor.written_by)}; "
        "lost 0, wrong 0, one id one body"
    )


@pytest.mark.foreign_events  # those of the first release name no schema
@pytest.mark.volume
async def test_what_redis_lost_while_both_releases_ran_is_right_once_the_first_one_has_stopped(tmp_path: Path) -> None:
    """The first release does not notice a loss. It may publish wrong records meanwhile, which are amended."""
    async with _both_releases(tmp_path, 1) as (servers, rollout):
        load, auditor = _Load(rollout.ports, random.Random(1)), _Auditor(servers)  # noqa: S311 - repeatable on purpose

        async def more(calls: int) -> None:
            await eventually_as_many(len(load.expected) + calls, _as_awaitable(lambda: len(load.expected)))

        async with _loaded(load):
            await more(50)
            await load.send_parts(range(9, 600, 10), slice(2))
            async with Redis.from_url(servers.stack.redis_url) as redis:
                await redis.flushall()
            await load.send_parts(range(9, 600, 10), slice(2, None))
            await more(50)
            for place in rollout.places:
                if place.release == "first" and place.role is not None:
                    await place.role.stop()
                    rollout.ports[:] = [
                        port for port in rollout.ports if str(port) != place.settings.get("CALLFOLD_INGRESS_PORT")
                    ]
            await more(50)
        await auditor.wait_for(load.expected)
        dead = await servers.take_all("callbacks.dead")
    amended = sum(data["revision"] != 1 for data in auditor.last.values())
    unlike = auditor.unlike(load.expected)
    print(f"\n{len(load.expected)} calls, {amended} amended, {len(unlike)} with two bodies, {len(dead)} dead")  # noqa: T201
