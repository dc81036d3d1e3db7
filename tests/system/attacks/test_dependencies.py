"""Attacks on what ingress depends on: its spool is damaged, deleted and replaced, and RabbitMQ raises an alarm.

Good callbacks are sent meanwhile, and every one that was answered 200 is in the queue at the end.
"""

from __future__ import annotations

import asyncio
import itertools
import shutil
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import aiohttp
import orjson

from console.local.ports import free_port
from console.local.processes import ServiceProcess
from tests.helpers.attacks import ATTACK_S, assert_unharmed, measuring, undisturbed, within_bounds
from tests.helpers.broker_faults import memory_alarm
from tests.helpers.pace import paced
from tests.helpers.servers import Servers, connected, eventually, metric


class _Caller:
    """Sends callbacks with numbers, and keeps those that were answered 200."""

    def __init__(self, port: int, session: aiohttp.ClientSession) -> None:
        self._url = f"http://127.0.0.1:{port}/callbacks/default?CallType=API&Event=pickup&"
        self._session = session
        self._numbers = itertools.count(1)
        self.accepted: set[int] = set()

    async def __call__(self) -> None:
        number = next(self._numbers)
        async with self._session.get(f"{self._url}CallID={number}&RequestID={number}") as response:
            assert response.status == 200, await response.text()
        self.accepted.add(number)


def _damage(directory: Path) -> bool:
    for part in ("", "-wal"):
        with (directory / f"spool.sqlite{part}").open("r+b") as file:
            file.write(b"\xff" * 65536)
    return True


def _delete(directory: Path) -> bool:
    """Delete it in one step: what ingress makes again at that moment is not deleted by half."""
    aside = directory.with_name(f"{directory.name}-{uuid.uuid4().hex}")
    directory.rename(aside)
    shutil.rmtree(aside)
    return True


def _replace(directory: Path) -> bool:
    """Put a file where the directory was: it cannot be made again."""
    if directory.is_dir():
        _delete(directory)
    directory.write_text("no directory")
    return True


def _restore(directory: Path) -> bool:
    directory.unlink()
    return True


async def _done(attack: Callable[[Path], bool], spool: Path) -> None:
    """Attack, again if ingress was making the files at the same time."""

    async def is_done() -> bool:
        with suppress(OSError):
            return attack(spool)
        return False

    await eventually(is_done)


async def _fold_numbers(servers: Servers) -> set[int]:
    events = [event for message in await servers.take_all("callbacks.fold") for event in orjson.loads(message.body)]
    return {int(event["query"].rpartition("=")[2]) for event in events if "query" in event}


async def _warns(process: ServiceProcess) -> bool:
    url = process.metrics_url.replace("metrics", "readyz")
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        assert response.status == 200
        return any("spool" in problem for problem in (await response.json())["problems"])


async def _is_content(process: ServiceProcess) -> bool:
    return not await _warns(process)


async def test_a_spool_that_is_damaged_gone_or_replaced_and_an_alarm_harm_no_callback(servers: Servers) -> None:
    port, spool = free_port(), servers.directory / "spool"
    settings = {"CALLFOLD_INGRESS_PORT": str(port), "CALLFOLD_PUBLISH_TIMEOUT_SECONDS": paced(60)}
    async with servers.fleet(**settings) as fleet, aiohttp.ClientSession() as session:
        ingress = fleet.add("ingress", "ingress", {})
        await fleet.start_all()
        await connected(ingress)
        good = _Caller(port, session)
        before = await undisturbed(good)
        pause_s = ATTACK_S / 6
        async with within_bounds(ingress), measuring(good, clients=2) as during:
            for attack in (_damage, _delete, _replace, _restore):
                await _done(attack, spool)
                await asyncio.sleep(pause_s)
                if attack is _replace:
                    await eventually(lambda: _warns(ingress))
            await eventually(lambda: _is_content(ingress))
            async with memory_alarm(servers):
                await eventually(lambda: metric(ingress, "callfold_spooled_messages_total"))
                await _done(_delete, spool)
                await asyncio.sleep(pause_s)
        assert_unharmed(during, before, limit_s=0.25)
        seen: set[int] = set()

        async def all_there() -> bool:
            seen.update(await _fold_numbers(servers))
            return seen >= good.accepted

        await eventually(all_there)
        assert ingress.returncode is None
