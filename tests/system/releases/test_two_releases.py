"""Workers and ingress of the first release and of this one share servers through kills, redeliveries and restarts.

It needs the commit of the first release, and runs with `-m volume`. Every call must end with the right outcome, and each event id
have one body, whichever release claimed it and whichever published it.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import orjson
import pytest

from console.local.ports import free_port
from console.local.processes import Fleet, ServiceProcess
from console.local.stack import LocalStack
from tests.helpers.downstream import DOWNSTREAM, downstream
from tests.helpers.first_release import NoHistoryError, runs, unpack_first_release
from tests.helpers.pace import LIMIT_S, PACE, paced
from tests.helpers.servers import UNMEASURED, Servers, connected, eventually, eventually_as_many

_POINTS = ("fold.merged", "fold.claimed", "fold.published", "fold.marked", "fold.before_ack", "fold.acked")
_PICKED_UP, _MISSED, _HUNG_UP = "pickup", "missed", "hangup"
_KINDS = {
    "answered": (("API", _PICKED_UP), ("Outgoing", _PICKED_UP), ("Outgoing", _HUNG_UP), ("API", _HUNG_UP)),
    "dialed_missed": (("API", _PICKED_UP), ("Outgoing", _MISSED), ("API", _HUNG_UP)),
    "agent_missed": (("API", _MISSED),),
}


@dataclass(slots=True)
class _Place:
    """Where a process of a release runs: after its end, another one is started here."""

    module: str
    release: str
    port: int = 0
    role: ServiceProcess | None = None


class _Rollout:
    """The processes of both releases, and what happens to them."""

    def __init__(self, fleet: Fleet, stack: LocalStack, code: Path, seed: int) -> None:
        self._fleet = fleet
        self._stack = stack
        self._environments = {"first": runs(code), "this": {}}
        self._random = random.Random(seed)  # noqa: S311 - repeatable on purpose
        self._numbers = itertools.count(1)
        self.places = [_Place("worker", release) for release in ("first", "first", "this", "this")]
        self.places += [_Place("ingress", release, free_port()) for release in ("first", "this")]
        self.counts = Counter[str]()

    @property
    def ports(self) -> list[int]:
        return [place.port for place in self.places if place.port]

    async def start(self, place: _Place, **settings: str) -> None:
        if place.port:
            settings["CALLFOLD_INGRESS_PORT"] = str(place.port)
        if place.role is not None:
            self._fleet.processes.remove(place.role)
        name = f"{place.release}-{place.module}-{next(self._numbers)}"
        place.role = self._fleet.add(name, place.module, self._environments[place.release] | settings)
        await place.role.start()

    async def revive(self) -> None:
        """Start again what has ended, as by a crash point."""
        for place in self.places:
            if place.role is None or not place.role.is_running:
                await self.start(place)

    async def fault(self) -> None:
        """Let one random fault happen, and repair it."""
        name = self._random.choices(("kill", "stop", "crash", "redis", "rabbitmq"), (4, 3, 5, 1, 1))[0]
        self.counts[name] += 1
        if name == "redis":
            await self._stack.redis.stop()
            await self._stack.redis.start()
        elif name == "rabbitmq":
            await self._stack.rabbitmq.kill()
            await self._stack.rabbitmq.start()
        else:
            await self._end(name)

    async def _end(self, name: str) -> None:
        workers = [place for place in self.places if place.module == "worker"]
        place = self._random.choice(workers if name == "crash" else self.places)
        if place.role is not None and place.role.is_running:
            with suppress(Exception):  # a worker may reach its crash point in the meantime
                await place.role.stop(signal.SIGTERM if name == "stop" else signal.SIGKILL)
        if name == "crash":
            point = self._random.choice(_POINTS)
            with suppress(Exception):  # it may reach the point before it is ready
                await self.start(place, CALLFOLD_CRASH_AT=point)
        else:
            await self.start(place)


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

    async def _send(self, session: aiohttp.ClientSession, line: str) -> None:
        while True:
            url = f"http://127.0.0.1:{self.random.choice(self.ports)}/callbacks/default?{line}"
            with suppress(aiohttp.ClientError, TimeoutError):
                async with session.get(url) as response:
                    if response.status == 200:
                        return
            await asyncio.sleep(0.05)


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
    """Knows of each event id its body, and of each call its last revision."""

    servers: Servers
    bodies: dict[str, bytes] = field(default_factory=dict)
    last: dict[int, dict[str, object]] = field(default_factory=dict)
    repeated: int = 0
    written_by: Counter[str] = field(default_factory=Counter)

    async def count(self) -> int:
        for message in await self.servers.take_all(DOWNSTREAM):
            event = orjson.loads(message.body)
            self.repeated += event["id"] in self.bodies
            assert self.bodies.setdefault(event["id"], message.body) == message.body, event["id"]
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


@pytest.mark.volume
@pytest.mark.parametrize("seconds", [30, 600])
async def test_both_releases_fold_together_through_kills_and_restarts(tmp_path: Path, seconds: int) -> None:
    try:
        code = unpack_first_release(tmp_path)
    except NoHistoryError as error:
        pytest.fail(str(error))
    began = time.monotonic()
    async with LocalStack(tmp_path / "stack") as stack:
        servers = Servers(stack, tmp_path)
        settings = {"CALLFOLD_PUBLISH_TIMEOUT_SECONDS": paced(3), "CALLFOLD_SPOOL_DRAIN_SECONDS": "", **UNMEASURED}
        shared = {name: value for name, value in servers.environment(**settings).items() if value or name in UNMEASURED}
        shared.pop("CALLFOLD_SPOOL_DRAIN_SECONDS", None)  # the first release does not know it
        async with Fleet(tmp_path / "logs", shared) as fleet:
            rollout = _Rollout(fleet, stack, code, seed=seconds)
            first = rollout.places[0]
            await rollout.start(first)  # the queues are those of the first release
            assert first.role is not None
            await connected(first.role)
            await first.role.stop()
            await stack.rabbitmq.stop()  # a RabbitMQ that is killed just after its streams were created would lose them
            await stack.rabbitmq.start()
            await rollout.revive()
            async with downstream(servers):
                load, auditor = _Load(rollout.ports, random.Random(seconds)), _Auditor(servers)  # noqa: S311 - as above
                ends_at = time.monotonic() + seconds * PACE
                async with _loaded(load):
                    while time.monotonic() < ends_at:
                        await rollout.fault()
                        await rollout.revive()
                        with suppress(Exception):  # RabbitMQ is starting
                            await auditor.count()
                await rollout.revive()
                await eventually_as_many(len(load.expected), auditor.count)

                async def is_right() -> bool:
                    await auditor.count()
                    return not auditor.wrong(load.expected)

                with suppress(AssertionError):
                    await eventually(is_right)
                assert auditor.wrong(load.expected) == []
                assert auditor.written_by["first"]
                assert auditor.written_by["this"]
                assert not await servers.take_all("callbacks.dead")
        amended = sum(data["revision"] != 1 for data in auditor.last.values())
        print(  # noqa: T201 - the figures of the run
            f"\n{time.monotonic() - began:.0f} s: faults {dict(rollout.counts)}; {len(load.expected)} calls, "
            f"{len(auditor.bodies)} events, {auditor.repeated} repeated, {amended} calls amended, written by {dict(auditor.written_by)}; "
            "lost 0, wrong 0, one id one body"
        )
