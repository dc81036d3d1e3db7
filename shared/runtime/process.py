"""The life of a process: settings, logs, signals, background tasks whose failure stops it, exit code."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager, suppress
from typing import NoReturn

import uvloop

from shared.config.environment import service_variables
from shared.config.settings import Settings, load_settings
from shared.errors import CallfoldError, ConfigError, SpoolLeftError, leaf_errors
from shared.exit_codes import EXIT_CONFIG, EXIT_FAILURE, EXIT_OK, EXIT_SPOOL_LEFT
from shared.log import configure, get_logger
from shared.runtime.descriptors import raise_descriptor_limit
from shared.runtime.loop_watch import watching_loop
from shared.tracing.switch import traced_process

log = get_logger(__name__)


_CANCEL_AGAIN_S = 3  # longer than it takes to close a connection.
# A few requests reach the default of 700, and half a batch of the fold has 5,000 objects that are in use. At this number a
# collection takes about 10 ms. With more, it takes too long for a step of the event loop.
_GC_ALLOCATIONS = 20_000
_CLOSING_S = 10  # to close connections, after the time limit for work in flight


class BackgroundEndedError(CallfoldError):
    """A task that must run as long as the process has ended."""


class StopRequest(asyncio.Event):
    """Set by the first SIGTERM or SIGINT.

    Attributes:
        urgent: set by the second signal. Waits that are only useful end then.
        extra_s: seconds that the process needs to stop besides the time limits that all processes have.
    """

    def __init__(self) -> None:
        super().__init__()
        self.urgent = asyncio.Event()
        self.extra_s = 0.0


Main = Callable[[Settings, StopRequest], Awaitable[None]]


def run_process(name: str, main: Main) -> int:
    """Run a service until SIGTERM or SIGINT.

    Returns the exit code: 0 stopped, 1 failed, 2 configuration error, 4 stopped with callbacks in the spool.
    """
    failures: list[CallfoldError] = []
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the loop runs, which logs it
    try:
        settings = load_settings()
        configure(settings.log_format, settings.log_level, process=name)
        if ignored := service_variables(os.environ):
            log.info("service_variables_ignored", variables=ignored)
        raise_descriptor_limit()
        with traced_process(name):
            uvloop.run(_run_until_stopped(main, settings))
    except* CallfoldError as group:
        failures = leaf_errors(group)
    for failure in failures[:1]:
        sys.stderr.write(f"callfold {name}: {failure}\n")
        if isinstance(failure, SpoolLeftError):
            return EXIT_SPOOL_LEFT
        return EXIT_CONFIG if isinstance(failure, ConfigError) else EXIT_FAILURE
    return EXIT_OK


async def _run_until_stopped(main: Main, settings: Settings) -> None:
    stop = StopRequest()
    loop = asyncio.get_running_loop()
    limit_s = settings.drain_seconds + settings.shutdown_timeout_seconds + _CLOSING_S

    def on_signal() -> None:
        if stop.is_set():
            stop.urgent.set()
        else:
            stop.set()
            loop.call_later(limit_s + stop.extra_s, _exit_now, loop)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    # The end of a terminal or a rotation of logs must not end a service.
    loop.add_signal_handler(signal.SIGHUP, lambda: log.info("signal_ignored", signal="SIGHUP"))
    tune_garbage_collection()
    with watching_loop():
        await main(settings, stop)
    log.info("process_stopped")


def tune_garbage_collection() -> None:
    """Collect garbage less often, and never among imported objects, because requests leave few reference cycles."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_ALLOCATIONS, 5, 20)


def _exit_now(loop: asyncio.AbstractEventLoop) -> NoReturn:
    """Exit while tasks ignore their cancellation. This is as safe as `kill -9`: RabbitMQ redelivers whatever is unacked."""
    for task in asyncio.all_tasks(loop):
        log.error("shutdown_timed_out", task=task.get_name(), stack=[str(frame) for frame in task.get_stack()])
    sys.stdout.flush()
    os._exit(EXIT_FAILURE)


@asynccontextmanager
async def background(*work: Coroutine[object, object, object]) -> AsyncIterator[None]:
    """Run endless tasks while the body runs. If a task ends, the body is cancelled and the process fails."""
    closed: GeneratorExit | None = None
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_endless(item)) for item in work]
        try:
            yield
        except GeneratorExit as error:  # closing a generator is no failure, but the task group would raise it as one
            closed = error
        finally:
            await _cancel(tasks)
    if closed is not None:
        raise closed


async def _cancel(tasks: Iterable[asyncio.Task[object]]) -> None:
    """Cancel tasks until they end. On Python 3.11, `wait_for` in a library can swallow a cancellation."""
    while running := [task for task in tasks if not task.done()]:
        for task in running:
            task.cancel()
        await asyncio.wait(running, timeout=_CANCEL_AGAIN_S)


async def _endless(work: Coroutine[object, object, object]) -> object:
    """Run a task that must not end: neither return nor be cancelled from inside."""
    try:
        await work
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
    raise BackgroundEndedError(f"A background task ended unexpectedly: {getattr(work, '__qualname__', work)}")


async def wait_at_most(event: asyncio.Event, seconds: float) -> None:
    """Wait for an event, but no longer than a time."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
