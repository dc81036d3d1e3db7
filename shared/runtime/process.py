"""How a process of Callfold lives: settings, logs, signals, background tasks that stop it when they die, an exit code."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import NoReturn

import uvloop

from shared.config.settings import Settings, load_settings
from shared.errors import CallfoldError, ConfigError
from shared.log import configure, get_logger

log = get_logger(__name__)

EXIT_OK = 0
EXIT_FAILURE = 1
EXIT_CONFIG = 2

_CANCEL_AGAIN_S = 3  # longer than closing a connection takes
_ALLOCATIONS = 20_000  # the default of 700 is reached every few requests
_CLOSING_S = 10  # for connections to close, after what was in flight has had its time


class BackgroundEndedError(CallfoldError):
    """A task that runs for as long as the process ended by itself."""


Main = Callable[[Settings, asyncio.Event], Awaitable[None]]


def run_process(name: str, main: Main) -> int:
    """Run a service until SIGTERM or SIGINT; returns the exit code (0 stopped, 1 failed, 2 cannot work as configured)."""
    failures: list[CallfoldError] = []
    try:
        settings = load_settings()
        configure(settings.log_format, settings.log_level, process=name)
        uvloop.run(_until_stopped(main, settings))
    except* CallfoldError as group:
        failures = leaf_errors(group)
    for failure in failures[:1]:
        sys.stderr.write(f"callfold {name}: {failure}\n")
        return EXIT_CONFIG if isinstance(failure, ConfigError) else EXIT_FAILURE
    return EXIT_OK


async def _until_stopped(main: Main, settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    limit_s = settings.drain_seconds + settings.shutdown_timeout_seconds + _CLOSING_S

    def on_signal() -> None:
        if not stop.is_set():
            stop.set()
            loop.call_later(limit_s, _give_up, loop)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    _collect_less_often()
    await main(settings, stop)
    log.info("stopped")


def _collect_less_often() -> None:
    """Search for cycles less often, and not in what was imported: requests make next to none that last."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_ALLOCATIONS, 20, 20)


def _give_up(loop: asyncio.AbstractEventLoop) -> NoReturn:
    """End now: something does not heed its cancellation. Safe at any moment, as `kill -9` is: what is not acked comes again."""
    for task in asyncio.all_tasks(loop):
        log.error("still_running_after_shutdown", task=task.get_name(), stack=[str(frame) for frame in task.get_stack()])
    sys.stdout.flush()
    os._exit(EXIT_FAILURE)


@asynccontextmanager
async def background(*work: Coroutine[object, object, object]) -> AsyncIterator[None]:
    """Run endless tasks beside the body: one that dies takes the body, and so the process, down with it."""
    left: GeneratorExit | None = None
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_endless(item)) for item in work]
        try:
            yield
        except GeneratorExit as error:  # a body that nobody iterates further has not failed: a group would make it a failure
            left = error
        finally:
            await _cancel(tasks)
    if left is not None:
        raise left


async def _cancel(tasks: Iterable[asyncio.Task[object]]) -> None:
    """Cancel tasks until they have ended: `wait_for`, which the libraries use, can swallow a cancellation on Python 3.11."""
    while running := [task for task in tasks if not task.done()]:
        for task in running:
            task.cancel()
        await asyncio.wait(running, timeout=_CANCEL_AGAIN_S)


async def _endless(work: Coroutine[object, object, object]) -> object:
    """Run a task that must not end: neither return, nor swallow into a cancellation that nobody asked for."""
    try:
        await work
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
    raise BackgroundEndedError(f"a background task ended: {getattr(work, '__qualname__', work)}")


def leaf_errors(group: BaseExceptionGroup[CallfoldError]) -> list[CallfoldError]:
    found: list[CallfoldError] = []
    for error in group.exceptions:
        found += leaf_errors(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found
