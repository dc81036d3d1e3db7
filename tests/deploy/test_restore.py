"""A backup by the commands of docs/backup.md, the loss of everything, and a restore by its commands: calls and recordings are back."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import psycopg

from console.local.ports import free_port
from console.local.processes import Fleet
from console.local.stack import LocalStack
from tests.helpers.console import AUTHORIZED, KEY
from tests.helpers.pace import LIMIT_S, paced
from tests.helpers.page_commands import commands, variables
from tests.helpers.postgres import PostgreSQL
from tests.helpers.rabbitmq_cluster import run_tool
from tests.helpers.servers import VENDOR_LINES, call_back, eventually, lines_of

PAGE = "backup.md"
CALLS, LATER = 20, 5
OPEN, IN_BETWEEN = 7001, 7002
"""Two calls whose first callback is before the backup of Redis, and between those of Redis and RabbitMQ."""


class Site:
    """A small site whose servers and processes the commands of the page stop and start."""

    def __init__(self, directory: Path, history_url: str) -> None:
        self.directory = directory
        self.port, self.console, self.simulator = free_port(), free_port(), free_port()
        self.stack = LocalStack(directory / "servers")
        (directory / "sources.toml").write_text(
            f'[sources.default]\nrecording_origin = "http://127.0.0.1:{self.simulator}"\n', "utf-8"
        )
        self.history = directory / "history" / "history.sqlite"
        self.history.parent.mkdir()
        self.history_url = history_url
        self.fleet = Fleet(directory / "logs", {})

    def settings(self) -> dict[str, str]:
        return {
            "CALLFOLD_AMQP_URL": self.stack.amqp_url,
            "CALLFOLD_REDIS_URL": self.stack.redis_url,
            "CALLFOLD_SOURCES": str(self.directory / "sources.toml"),
            "CALLFOLD_ARCHIVE_URL": (self.directory / "archive").as_uri(),
            "CALLFOLD_SPOOL_DIR": str(self.directory / "spool"),
            "CALLFOLD_RECORDING_DIR": str(self.directory / "downloads"),
            "CALLFOLD_HISTORY_URL": f"sqlite:///{self.history}",
            "CALLFOLD_INGRESS_PORT": str(self.port),
            "CALLFOLD_CONSOLE_PORT": str(self.console),
            "CALLFOLD_CONSOLE_KEY": KEY,
            "CALLFOLD_DRAIN_SECONDS": "0",
            "CALLFOLD_PUBLISH_TIMEOUT_SECONDS": paced(10),
            "CALLFOLD_LOG_FORMAT": "json",
        }

    def add_processes(self) -> None:
        self.fleet = Fleet(self.directory / "logs", self.settings())
        for role in ("ingress", "worker", "console"):
            self.fleet.add(role, role, {})
        self.fleet.add("history", "console.history", {})
        self.fleet.add("history-postgresql", "console.history", {"CALLFOLD_HISTORY_URL": self.history_url})

    async def obey(self, command: str, environment: Mapping[str, str]) -> None:
        """Run a line of the page. Its commands to the supervisor of the machine act on the processes of this site."""
        match command.split():
            case ["systemctl", action, "callfold.target"]:
                processes = self.fleet.processes
                await asyncio.gather(*(process.start() if action == "start" else process.stop() for process in processes))
            case ["systemctl", action, unit]:
                server = {"rabbitmq-server": self.stack.rabbitmq, "redis-server": self.stack.redis}[unit]
                await (server.start() if action == "start" else server.stop())
            case ["rabbitmqctl", *arguments]:
                expanded = [argument.strip('"').replace("$BACKUP", environment["BACKUP"]) for argument in arguments]
                await run_tool(self.stack.rabbitmq.environment, "rabbitmqctl", *expanded)
            case _:
                await self.run("sh", "-euc", command, environment=environment)

    async def run(self, *command: str, environment: Mapping[str, str]) -> str:
        process = await asyncio.create_subprocess_exec(
            *command, env={**os.environ, **environment}, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        async with asyncio.timeout(LIMIT_S):
            said, _ = await process.communicate()
        assert process.returncode == 0, f"{command}: {said.decode()}"
        return said.decode()

    async def callfold(self, *arguments: str) -> str:
        return await self.run(str(Path(sys.executable).with_name("callfold")), *arguments, environment=self.settings())

    async def simulate(self, calls: int) -> None:
        """Send calls and compare each with what the simulation knows; the exit code says whether they are equal."""
        options = ("--calls", str(calls), "--port", str(self.simulator), "--json")
        said = await self.callfold("simulate", *options)
        assert orjson.loads(said.splitlines()[-1])["calls"] == calls

    async def call(self, number: int) -> Mapping[str, Any]:
        """Return the record of a call, empty if it is unknown."""
        url = f"http://127.0.0.1:{self.console}/calls/default/{number}"
        async with aiohttp.ClientSession(headers=AUTHORIZED) as session, session.get(url) as response:
            found: Mapping[str, Any] = (await response.json())["record"] if response.ok else {}
            return found

    async def calls_in_page(self) -> int:
        url = f"http://127.0.0.1:{self.console}/calls"
        async with aiohttp.ClientSession(headers=AUTHORIZED) as session, session.get(url) as response:
            return len([call for call in (await response.json())["calls"] if call["status"] == "complete"])

    async def calls_in_postgresql(self) -> int:
        async with await psycopg.AsyncConnection.connect(self.history_url.replace("+psycopg", "")) as connection:
            row = await (await connection.execute("SELECT count(*) FROM calls")).fetchone()
            assert row
            return int(row[0])


async def test_a_restored_site_has_all_calls_and_recordings_and_takes_new_calls(tmp_path: Path, postgres: PostgreSQL) -> None:
    site = Site(tmp_path, await postgres.new_database())
    environment = _environment(site)
    async with AsyncExitStack() as closing:
        await closing.enter_async_context(site.stack)
        environment["REDIS_URL"] = site.stack.redis_url
        site.add_processes()
        (tmp_path / "logs").mkdir()
        closing.push_async_exit(site.fleet.__aexit__)
        await site.fleet.start_all()
        await site.simulate(CALLS)
        await _has(CALLS, site)
        await _back_up(site, environment)
        archive = _files(tmp_path / "archive")
        assert archive
        await _lose_everything(site, environment, postgres)
        await _restore(site, environment)
        assert _files(tmp_path / "archive") == archive
        await _has(CALLS, site)
        await _end_the_open_calls(site)
        for command in commands(PAGE, "Restore"):
            if command.startswith("callfold"):
                await site.callfold(*command.split()[1:])
        await site.simulate(LATER)
        await _has(CALLS + 2 + LATER, site)


async def _back_up(site: Site, environment: Mapping[str, str]) -> None:
    assert await call_back(site.port, lines_of(OPEN)[:1]) == [200]
    await _is_known(site, OPEN)
    for command in commands(PAGE, "Back up while everything runs"):
        await site.obey(command, environment)
    assert await call_back(site.port, lines_of(IN_BETWEEN)[:1]) == [200]
    await _is_known(site, IN_BETWEEN)
    for command in commands(PAGE, "Back up the messages of RabbitMQ"):
        await site.obey(command, environment)


async def _lose_everything(site: Site, environment: Mapping[str, str], postgres: PostgreSQL) -> None:
    """End servers and processes, delete all their data, and make the empty directories that a new machine has."""
    for process in site.fleet.processes:
        await process.stop()
    await site.stack.rabbitmq.kill()
    await site.stack.redis.kill()
    for lost in ("servers/rabbitmq", "servers/redis", "archive", "spool", "downloads", "history"):
        shutil.rmtree(site.directory / lost, ignore_errors=True)
    (site.directory / "sources.toml").unlink()
    database = environment["HISTORY_URL"].rpartition("/")[2]
    await postgres.run(f"DROP DATABASE {database} WITH (FORCE)")
    await postgres.run(f"CREATE DATABASE {database}")
    for made in ("servers/redis", "history"):
        (site.directory / made).mkdir(parents=True)


async def _restore(site: Site, environment: Mapping[str, str]) -> None:
    """Run the commands of the page. That of PostgreSQL comes before Callfold starts, as the page says."""
    found = commands(PAGE, "Restore")
    (of_postgresql,) = [command for command in found if command.startswith("pg_restore")]
    await site.obey(of_postgresql, environment)
    for command in found:
        if not command.startswith(("callfold", "pg_restore")):
            await site.obey(command, environment)


async def _end_the_open_calls(site: Site) -> None:
    """Send the other callbacks of the calls that were open. Without the first one their records would lack the agent's pickup."""
    for number in (OPEN, IN_BETWEEN):
        assert await call_back(site.port, lines_of(number)[1:]) == [200] * (len(VENDOR_LINES) - 1)
    await _has(CALLS + 2, site)
    for number in (OPEN, IN_BETWEEN):
        shown = await site.call(number)
        assert shown["complete"], shown
        assert shown["agent"]["picked_up_at"], shown
        assert not shown["agent"]["inferred"], shown


async def _has(count: int, site: Site) -> None:
    """Wait until the page, with SQLite behind it, and PostgreSQL have that many calls that are over."""

    async def have() -> bool:
        return (await site.calls_in_page(), await site.calls_in_postgresql()) == (count, count)

    await eventually(have)


async def _is_known(site: Site, number: int) -> None:
    async def is_known() -> bool:
        return bool(await site.call(number))

    await eventually(is_known)


def _environment(site: Site) -> dict[str, str]:
    """Return the variables of the page for this site."""
    data = site.directory / "servers"
    own = {
        "BACKUP": str(site.directory / "backup"),
        "ARCHIVE": str(site.directory / "archive"),
        "HISTORY": str(site.history),
        "SOURCES": str(site.directory / "sources.toml"),
        "REDIS_DATA": str(data / "redis"),
        "RABBITMQ_DATA": str(data / "rabbitmq"),
    }
    assert own.keys() | {"REDIS_URL"} == variables(PAGE).keys()
    return own | {"HISTORY_URL": site.history_url.replace("+psycopg", "")}


def _files(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}
