"""The supervisor of every child process on this machine: RabbitMQ, Redis, and Callfold's own processes.

It starts a process with a log file, waits until it is ready, notices an early exit, and stops it.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NoReturn, TypeVar

from shared.errors import CallfoldError

_POLL_S = 0.05
_LOG_TAIL_BYTES = 2000

Result = TypeVar("Result")


class ProcessFailedError(CallfoldError):
    """A child process exited unexpectedly, was not ready in time, or did not stop cleanly."""


class ChildProcess:
    """One child process. It can be stopped, killed, paused, and started again with the same command."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], *, log: Path) -> None:
        self.name = name
        self.environment = environment
        self.log_path = log
        self.log_start = 0  # where the log of the latest start begins
        self._command = command
        self._process: asyncio.subprocess.Process | None = None
        self.was_ready = False  # since the latest start

    @property
    def returncode(self) -> int | None:
        """The exit code, or minus the number of the signal that ended it; None before the first start and while it runs."""
        return self._process.returncode if self._process else None

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int:
        """The process id of the latest start; another process may have it once this one has exited."""
        return self._started().pid

    async def start_until(self, is_ready: Callable[[], Awaitable[bool]], *, within_s: float) -> None:
        """Start it and wait until it is ready.

        Raises:
            ProcessFailedError: it exited or was not ready in time; with the end of its log.
        """
        with self.log_path.open("ab") as log:
            self.log_start = log.tell()
            self.was_ready = False
            process = self._process = await self._spawn(log)
        try:
            async with asyncio.timeout(within_s):
                while process.returncode is None:
                    if await is_ready():
                        self.was_ready = True
                        return
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            raise self.failure(f"was not ready within {within_s} s") from None
        raise self.failure("exited while starting")

    async def _spawn(self, log: BinaryIO) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *kill_with_parent(),
            *self._command,
            env=dict(self.environment),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C in the terminal reaches only the parent, which stops its children in order
        )

    async def wait(self) -> int:
        """Wait until it exits; returns the exit code."""
        return await self._started().wait()

    async def end(self, number: signal.Signals, *, within_s: float) -> None:
        """Send a signal and wait for the exit. Kill the process if that takes too long."""
        if not self.is_running:
            return
        process = self._started()
        process.send_signal(number)
        try:
            async with asyncio.timeout(within_s):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    def send_signal(self, number: signal.Signals) -> None:
        self._running().send_signal(number)

    def pause(self) -> None:
        """Freeze it: connections stay open and nothing answers. Its last thread has stopped when this returns."""
        pid = self._running().pid
        os.kill(pid, signal.SIGSTOP)
        os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)

    def resume(self) -> None:
        os.kill(self._running().pid, signal.SIGCONT)

    def log_tail(self) -> str:
        """Return the end of what the process has logged since its latest start."""
        return self.log_path.read_bytes()[self.log_start :][-_LOG_TAIL_BYTES:].decode("utf-8", "replace").strip()

    def failure(self, problem: str) -> ProcessFailedError:
        return ProcessFailedError(f"{self.name} {problem}.\nEnd of {self.log_path}:\n{self.log_tail()}")

    def _started(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise ProcessFailedError(f"{self.name} was never started")
        return self._process

    def _running(self) -> asyncio.subprocess.Process:
        if not self.is_running:
            raise ProcessFailedError(f"{self.name} is not running")
        return self._started()


async def while_all_run(work: Coroutine[object, object, Result], children: Iterable[ChildProcess]) -> Result:
    """Return the result of `work`, during which no child process may exit.

    Raises:
        ProcessFailedError: a child process exited first; with the end of its log.
    """
    return await first_of(work, _first_exit(children))


async def first_of(*work: Coroutine[object, object, Result]) -> Result:
    """Wait until the first one ends, cancel the others, and return its result. An error of one that has ended is raised."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    ended = [task for task in tasks if task in done]
    return next((task for task in ended if task.exception()), ended[0]).result()


async def _first_exit(children: Iterable[ChildProcess]) -> NoReturn:
    exits = {asyncio.ensure_future(child.wait()): child for child in children}
    try:
        never = asyncio.get_running_loop().create_future()
        done, _ = await asyncio.wait((*exits, never), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for waiter in exits:
            waiter.cancel()
    raise next(child for waiter, child in exits.items() if waiter in done).failure("exited unexpectedly")


def kill_with_parent() -> list[str]:
    """Return the command prefix by which Linux kills a process when its parent dies; empty without `setpriv`."""
    tool = shutil.which("setpriv")
    return [tool, "--pdeathsig", "KILL", "--"] if tool else []
