"""The secrets of 20 sources are rotated under load on a real ingress: no callback is refused. Then the old ones get 401."""

from __future__ import annotations

import asyncio
import itertools
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import orjson
import pytest

from console.local.ports import free_port
from console.local.processes import ServiceProcess
from tests.helpers.servers import Servers, connected, eventually, metric
from tests.helpers.volume import sizes

_SOURCES = [f"source-{number:02}" for number in range(20)]
_CLIENTS = 8
_LOADED = "callfold_sources_loaded_timestamp_seconds"


@dataclass(slots=True)
class _Rotation:
    """The sources file, and what each PBX sends: it gets the new link some time after the file has the new secret."""

    path: Path
    process: ServiceProcess
    port: int
    secrets: dict[str, list[str]] = field(default_factory=lambda: {name: [_secret(name, 0)] for name in _SOURCES})
    sent: dict[str, str] = field(default_factory=lambda: {name: _secret(name, 0) for name in _SOURCES})
    statuses: Counter[int] = field(default_factory=Counter)
    is_over: bool = False
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def write(self, *more: str) -> None:
        """Replace the file, as a deployment does. The first secret of each source is the current one."""
        tables = [
            f'[sources.{name}]\nsecret = "{current}"\nprevious_secrets = {orjson.dumps(previous).decode()}\n'
            for name, (current, *previous) in self.secrets.items()
        ]
        new = self.path.with_suffix(".new")
        new.write_text("".join((*tables, *more)))
        new.rename(self.path)

    async def take_over(self, *, is_signaled: bool) -> None:
        """Change the file, and wait until ingress has read it."""
        before = await metric(self.process, _LOADED)
        self.write()
        if is_signaled:
            self.process.send_signal(signal.SIGHUP)

        async def is_read() -> bool:
            return await metric(self.process, _LOADED) > before

        await eventually(is_read)

    async def status(self, session: aiohttp.ClientSession, name: str, secret: str) -> int:
        number = next(self.numbers)
        query = f"token={secret}&CallType=API&Event=pickup&CallID={number}&RequestID={number}"
        async with session.get(f"http://127.0.0.1:{self.port}/callbacks/{name}?{query}") as response:
            await response.read()
            return response.status

    async def send(self, chosen: random.Random) -> None:
        """Send callbacks one after the other, each with the secret that its PBX has when it begins."""
        async with aiohttp.ClientSession() as session:
            while not self.is_over:
                name = chosen.choice(_SOURCES)
                self.statuses[await self.status(session, name, self.sent[name])] += 1

    async def each_is_sent_again(self) -> None:
        """Wait until the load has sent many more callbacks."""
        goal = self.statuses.total() + 3 * len(_SOURCES)

        async def is_reached() -> bool:
            return self.statuses.total() >= goal

        await eventually(is_reached)


def _secret(name: str, number: int) -> str:
    return f"hunter2-{name}-{number}-of-many"


def _query(body: bytes) -> Sequence[str]:
    return [event["query"] for event in orjson.loads(body)]


@asynccontextmanager
async def _under_load(rotation: _Rotation, seed: int) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as clients:
        for client in range(_CLIENTS):
            clients.create_task(rotation.send(random.Random(f"{seed}/{client}")))  # noqa: S311
        yield
        await rotation.each_is_sent_again()
        rotation.is_over = True


@pytest.mark.parametrize("size", sizes((1, 10), (3, 1)))
async def test_secrets_rotated_under_load_cost_no_callback(servers: Servers, size: tuple[int, int]) -> None:
    """`size`: how often each secret is rotated, and how many sources change in one step."""
    rounds, at_once = size
    path, port = servers.directory / "sources.toml", free_port()
    async with servers.fleet(CALLFOLD_SOURCES=str(path), CALLFOLD_SOURCE_BYTES_PER_DAY=str(1 << 40)) as fleet:
        process = fleet.add("ingress", "ingress", {"CALLFOLD_INGRESS_PORT": str(port)})
        rotation = _Rotation(path, process, port)
        rotation.write()
        await fleet.start_all()
        await connected(process)
        async with _under_load(rotation, rounds):
            for number in range(1, rounds + 1):
                for first in range(0, len(_SOURCES), at_once):
                    names = _SOURCES[first : first + at_once]
                    for name in names:
                        rotation.secrets[name] = [_secret(name, number), _secret(name, number - 1)]
                    await rotation.take_over(is_signaled=bool(first))
                    await rotation.each_is_sent_again()  # by PBXs that have the old link
                    for name in names:
                        rotation.sent[name] = _secret(name, number)
            rotation.write("[sources.broken\n")
            await eventually(lambda: _has_failed(process))
            await rotation.each_is_sent_again()
            assert await _problems(process) != []
        assert rotation.statuses == {200: rotation.statuses.total()}
        rotation.secrets = {name: [current] for name, (current, _) in rotation.secrets.items()}
        await rotation.take_over(is_signaled=True)
        assert await metric(process, "callfold_sources_reload_failed") == 0
        async with aiohttp.ClientSession() as session:
            for name in _SOURCES:
                assert await rotation.status(session, name, _secret(name, rounds - 1)) == 401
                assert await rotation.status(session, name, _secret(name, rounds)) == 200
        log = process.log_path.read_bytes()
    messages = await servers.take_all("callbacks.fold")
    kept = [query for message in messages for query in _query(message.body)]
    assert len(kept) == rotation.statuses.total() + len(_SOURCES)
    assert not [message for message in messages if b"hunter2" in message.body]
    assert b"hunter2" not in log


async def _has_failed(process: ServiceProcess) -> bool:
    return await metric(process, "callfold_sources_reload_failed") == 1


async def _problems(process: ServiceProcess) -> list[str]:
    """Return the problems of a process, which is ready nevertheless."""
    url = process.metrics_url.replace("metrics", "readyz")
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        assert response.status == 200
        return [str(problem) for problem in (await response.json())["problems"]]
