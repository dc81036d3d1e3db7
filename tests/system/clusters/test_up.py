"""`callfold up` as a person starts it: what it says, what others find by it, how it ends."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from console.local.ports import free_port
from console.local.stack import LocalStack
from shared.metrics import TABLE
from tests.helpers.metrics import first_series, names_of, role_of, series_of
from tests.helpers.pace import LIMIT_S
from tests.helpers.servers import CALLFOLD, VENDOR_LINES, Servers, call_back, callfold, ended, metric, processes_of

NOWHERE = "amqp://127.0.0.1:1/"


@dataclass(slots=True)
class Up:
    """A running `callfold up`, and what it has said so far."""

    process: asyncio.subprocess.Process
    said: str = ""

    async def until(self, words: str) -> None:
        assert self.process.stderr is not None
        while words not in self.said:
            line = await asyncio.wait_for(self.process.stderr.readline(), LIMIT_S)
            assert line, self.said
            self.said += line.decode()

    async def end(self) -> int | None:
        assert self.process.stderr is not None
        self.said += (await asyncio.wait_for(self.process.stderr.read(), LIMIT_S)).decode()
        return await asyncio.wait_for(self.process.wait(), LIMIT_S)


@asynccontextmanager
async def _up(directory: Path, *arguments: str, **settings: str) -> AsyncIterator[Up]:
    ports = {"CALLFOLD_INGRESS_PORT": str(free_port()), "CALLFOLD_CONSOLE_PORT": str(free_port()), "CALLFOLD_DRAIN_SECONDS": "0"}
    process = await asyncio.create_subprocess_exec(
        *CALLFOLD,
        *("up", "--directory", str(directory), *arguments),
        cwd=directory.parent,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])} | ports | settings,
        stderr=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
    )
    up = Up(process)
    try:
        yield up
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            await up.end()


async def test_up_runs_everything_tells_other_commands_and_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "sources.toml").write_text('[sources.default]\nsecret = "env:HOOK_WORD"\n')
    env = tmp_path / "up" / "env"
    env.parent.mkdir()
    env.touch(0o644)
    settings = {"CALLFOLD_SOURCES": "sources.toml", "HOOK_WORD": "it's hunter2", "CALLFOLD_SETTLE_SECONDS": "3"}
    async with _up(env.parent, "--ingress", "2", **settings) as up:
        await up.until("Starting RabbitMQ and Redis ...")
        assert env.stat().st_size == 0, "what others find it by is written once everything runs: this was said before"
        await up.until("Everything is ready")
        assert processes_of(tmp_path)
        for url in re.findall(r"metrics (http\S+)", up.said):
            async with aiohttp.ClientSession() as session, session.get(url) as response:
                assert response.status == 200
                series = series_of(await response.text())
            role = role_of(series)
            assert names_of(series) <= {row.name for row in TABLE.values() if role in row.roles}
            assert first_series(role, ["default"]) <= series.keys()
        lines = [line for line in env.read_text().splitlines() if line.startswith("export ")]
        told = dict(line.removeprefix("export ").split("=", 1) for line in lines)
        told = {name: shlex.split(value)[0] for name, value in told.items()}
        assert env.stat().st_mode & 0o777 == 0o600
        assert told["CALLFOLD_SOURCES"] == str(tmp_path / "sources.toml")
        assert (told["HOOK_WORD"], told["CALLFOLD_SETTLE_SECONDS"]) == ("it's hunter2", "3")
        for name in ("AMQP_URL", "REDIS_URL", "SPOOL_DIR", "ARCHIVE_URL", "RECORDING_DIR", "CONSOLE_HOST", "CONSOLE_PORT"):
            assert told[f"CALLFOLD_{name}"]
        assert await call_back(int(told["CALLFOLD_INGRESS_PORT"]), [f"{VENDOR_LINES[0]}&token=it%27s+hunter2"]) == [200]
        code, out, err = await callfold("up", "--directory", str(env.parent), **told)
        assert (code, out) == (2, "")
        assert err == (
            f"callfold: Callfold already runs in {env.parent} (process {up.process.pid}). Stop it with Ctrl-C in its terminal "
            f"or `kill {up.process.pid}`, or name another --directory.\n"
        )
        code, out, err = await callfold("doctor", **told)
        assert (code, "failed" in out) == (0, False), out + err
        code, out, err = await callfold("simulate", "--calls", "5", "--json", **told)
        assert code == 0, out + err
        up.process.send_signal(signal.SIGTERM)
        assert await up.end() == 0

    await ended(tmp_path)


async def test_up_ends_in_order_when_a_private_server_dies_and_says_which(servers: Servers, tmp_path: Path) -> None:
    async with _up(tmp_path / "up", CALLFOLD_AMQP_URL=servers.stack.amqp_url) as up:
        await up.until("Everything is ready")
        os.kill(_redis_of(tmp_path / "up"), signal.SIGKILL)
        assert await up.end() == 1
    assert "callfold: redis exited unexpectedly." in up.said
    assert "Ready to accept connections" in up.said.rpartition("callfold: redis")[2]
    await ended(tmp_path)


def _redis_of(directory: Path) -> int:
    """Find it by the directory it works in: it writes its command line anew."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "cwd").samefile(directory / "redis"):
                return int(process.name)
    raise AssertionError(directory)


async def test_a_taken_port_is_found_before_the_servers_start(tmp_path: Path) -> None:
    for variable in ("CALLFOLD_INGRESS_PORT", "CALLFOLD_CONSOLE_PORT"):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            async with _up(tmp_path / "up", **{variable: str(port)}) as up:
                assert await up.end() == 2
        assert up.said == f"callfold: Cannot listen on 127.0.0.1:{port}: the port is in use. Set {variable} to another port.\n"
        assert not (tmp_path / "up").exists()


async def test_a_process_that_cannot_work_as_configured_ends_up_with_its_sentence(servers: Servers, tmp_path: Path) -> None:
    settings = servers.environment(CALLFOLD_RECORDING_DIR="/proc/self/fdinfo")
    async with _up(tmp_path / "up", **settings) as up:
        assert await up.end() == 2
    assert "callfold: CALLFOLD_RECORDING_DIR /proc/self/fdinfo cannot be written" in up.said
    assert "{" not in up.said


async def test_a_second_stack_in_one_directory_is_refused(tmp_path: Path) -> None:
    async with LocalStack(tmp_path, only=frozenset({"redis"})):
        code, _, err = await callfold("up", "--directory", str(tmp_path), CALLFOLD_AMQP_URL=NOWHERE)
    assert code == 2
    assert f"Callfold already runs in {tmp_path} (process {os.getpid()})" in err


async def test_simulate_ends_with_the_first_callback_that_is_refused(servers: Servers, tmp_path: Path) -> None:
    port, sources = free_port(), tmp_path / "sources.toml"
    async with servers.fleet() as fleet:
        ingress = fleet.add("ingress", "ingress", {"CALLFOLD_INGRESS_PORT": str(port)})
        await fleet.start_all()
        sources.write_text("[sources.acme]\n")
        more = {"CALLFOLD_SOURCES": str(sources), "CALLFOLD_INGRESS_PORT": str(port)}
        code, _, err = await callfold("simulate", "--source", "acme", "--calls", "500", **servers.environment(**more))
        assert 1 <= await metric(ingress, 'callfold_requests_refused_total{status="404"}') < 100
    assert code == 1
    assert f"http://127.0.0.1:{port} rejected a callback of source acme with 404: it has no such source" in err
