"""Calls to the archive's disk or object store: each has a time limit, and every failure is an `ArchiveUnavailableError`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import TypeVar

from obstore.exceptions import BaseError

from shared.archive.local_disk import OnProgress
from shared.errors import UnavailableError
from shared.log import get_logger

log = get_logger(__name__)

# How long a call may still run after a cancellation. An abort and the removal of its upload take twice that, which is less
# than a shutdown waits.
_FINISH_S = 4

_T = TypeVar("_T")


class ArchiveUnavailableError(UnavailableError):
    """The archive cannot be read or written now."""


@asynccontextmanager
async def archive_deadline(problem: str, stall_s: float) -> AsyncIterator[OnProgress]:
    """Limit the time without progress. Calling the yielded function restarts the limit.

    Raises:
        ArchiveUnavailableError: no progress within the limit, or the disk or store failed. The text starts with `problem`.
        FileNotFoundError, StopAsyncIteration: as they were raised.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(stall_s) as limit:
            is_over = False

            def on_progress() -> None:
                if not is_over and not limit.expired():
                    limit.reschedule(loop.time() + stall_s)

            try:
                yield on_progress
            finally:
                is_over = True  # a thread that is still running can report progress
    except (FileNotFoundError, StopAsyncIteration):
        raise
    except (BaseError, OSError) as error:  # includes TimeoutError
        # The library's text can contain whole requests with their signatures, so it is only logged for debugging.
        log.debug("archive_call_failed", detail=str(error)[:500])
        reason = error.strerror if isinstance(error, OSError) else None
        raise ArchiveUnavailableError(f"{problem}: {reason or type(error).__name__}") from error


async def within_deadline(work: Awaitable[_T], problem: str, timeout_s: float) -> _T:
    """Await one call under `archive_deadline`."""
    async with archive_deadline(problem, timeout_s):
        return await work


async def finish_if_cancelled(work: Awaitable[_T]) -> _T:
    """Await a call that must not stop half-way. A cancellation is raised once the call ends, or after a few seconds.

    Raises:
        TimeoutError: the task was already cancelled, as during a cleanup, and the call did not end in time.
    """
    task = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait([task], timeout=_FINISH_S if _is_cancelled() else None)
    except asyncio.CancelledError:
        await asyncio.wait([task], timeout=_FINISH_S)
        raise
    finally:
        task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # retrieves the error if no caller does
    if not done:
        raise TimeoutError
    return task.result()


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
