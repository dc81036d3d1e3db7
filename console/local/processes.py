"""Callfold's own processes as children: started with a log file each, awaited until ready, stopped in order."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import aiohttp

from shared.errors import CallfoldError, ConfigError
from shared.runtime.process import EXIT_CONFIG

# Below what Linux (from 32768) and macOS (from 49152) use for outgoing connections.
PORTS = (20_000, 32_000)
_given_out: set[int] = set()
_READY_TIMEOUT_S = 30
_STOP_TIMEOUT_S = 30  # longer than a process gives itself
_POLL_S = 0.1
_LOG_TAIL_BYTES = 2000


class RoleDiedError(CallfoldError):
    """A process of the fleet ended by itself, or never became ready."""


@dataclass(slots=True)
class Role:
    """One process: `python -m <module>` with settings of its own."""

    name: str
    module: str
    environment: Mapping[str, str]
    metrics_port: int
    log_path: Path
    process: asyncio.subprocess.Process | None = field(default=None)
    log_start: int = 0

    @property
    def pid(self) -> int:
        if self.process is None:
            raise RoleDiedError(f"{self.name} is not running")
        return self.process.pid

    @property
    def metrics_url(self) -> str:
        return f"http://127.0.0.1:{self.metrics_port}/metrics"

    def tail(self) -> str:
        """The end of what the process wrote since it was started last."""
        return self.log_path.read_bytes()[self.log_start :][-_LOG_TAIL_BYTES:].decode("utf-8", "replace").strip()


class Fleet:
    """Roles of one machine. On exit all are stopped with SIGTERM, the ones started last first, and awaited."""

    def __init__(self, logs: Path, environment: Mapping[str, str]) -> None:
        """Keep logs in a directory; `environment` holds the settings all roles share."""
        self._logs = logs
        self._environment = environment
        self.roles: list[Role] = []

    async def __aenter__(self) -> Self:
        self._logs.mkdir(parents=True, exist_ok=True)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        ends = await asyncio.gather(*(self.stop(role) for role in reversed(self.roles)), return_exceptions=True)
        for end in ends:
            # With an error under way, what the stopping of the others adds would only hide it.
            if isinstance(end, BaseException) and error is None:
                raise end

    def add(self, name: str, module: str, settings: Mapping[str, str]) -> Role:
        """Describe a process; `start` starts it."""
        port = free_port()
        environment = {
            **os.environ,
            **self._environment,
            **settings,
            "CALLFOLD_METRICS_PORT": str(port),
            "CALLFOLD_METRICS_HOST": "127.0.0.1",
        }
        role = Role(name, module, environment, port, self._logs / f"{name}.log")
        self.roles.append(role)
        return role

    async def start(self, role: Role) -> None:
        """Start a process and wait until it is ready.

        Raises:
            ConfigError: it cannot work as configured, in its own words.
            RoleDiedError: it ended, or was not ready in time; with the last lines of its log.
        """
        with role.log_path.open("ab") as log:
            role.log_start = log.tell()
            role.process = await self._spawn(role, log)
        await self._ready(role)

    async def _spawn(self, role: Role, log: BinaryIO) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *tether(),
            sys.executable,
            "-m",
            role.module,
            env=role.environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # a Ctrl-C in the terminal is ours to pass on, in order
        )

    async def start_all(self) -> None:
        await asyncio.gather(*(self.start(role) for role in self.roles))

    async def _ready(self, role: Role) -> None:
        url = f"http://127.0.0.1:{role.metrics_port}/readyz"
        try:
            async with asyncio.timeout(_READY_TIMEOUT_S), aiohttp.ClientSession() as session:
                while role.process is not None and role.process.returncode is None:
                    with suppress(aiohttp.ClientError):
                        async with session.get(url) as response:
                            if response.ok:
                                return
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            raise RoleDiedError(f"{role.name} was not ready within {_READY_TIMEOUT_S} s:\n{role.tail()}") from None
        if role.process is not None and role.process.returncode == EXIT_CONFIG:
            raise ConfigError(role.tail().rpartition(f"callfold {role.module}: ")[2])
        raise RoleDiedError(f"{role.name} ended while starting:\n{role.tail()}")

    async def stop(self, role: Role, *, number: signal.Signals = signal.SIGTERM) -> None:
        """End a process and await its end; one that does not heed the signal is killed.

        Raises:
            RoleDiedError: it had to be killed, or failed while it stopped.
        """
        process = role.process
        if process is None or process.returncode is not None:
            return
        process.send_signal(number)
        try:
            async with asyncio.timeout(_STOP_TIMEOUT_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
        # One that had not come as far as to handle the signal died of it, with nothing begun.
        if number != signal.SIGKILL and process.returncode not in {0, -number}:
            raise RoleDiedError(f"{role.name} did not stop in order, exit code {process.returncode}:\n{role.tail()}")

    async def first_death(self) -> None:
        """Wait until a process ends by itself, and say so.

        Raises:
            RoleDiedError: always, with the last lines of the log.
        """
        running = {asyncio.ensure_future(role.process.wait()): role for role in self.roles if role.process}
        try:
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for waiter in running:
                waiter.cancel()
        dead = running[done.pop()]
        raise RoleDiedError(f"{dead.name} ended by itself:\n{dead.tail()}")


def free_port() -> int:
    """Find a port that is free now, was not given out before by this process, and is not one the kernel gives to connections."""
    while True:
        port = random.randrange(*PORTS)  # noqa: S311 - no secret
        if port in _given_out:
            continue
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            _given_out.add(port)
            return port


def tether() -> list[str]:
    """Prefix a command so that the kernel kills it when we die; where there is no such tool, an orderly exit has to do."""
    tool = shutil.which("setpriv")
    return [tool, "--pdeathsig", "KILL", "--"] if tool else []
