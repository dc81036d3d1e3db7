"""Calls into the archive's disk or object store: none without a time limit, and one error for all that can go wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import TypeVar

from obstore.exceptions import BaseError

from shared.archive.local_disk import Moved
from shared.errors import UnavailableError
from shared.log import get_logger

log = get_logger(__name__)

# How long what must not be cut off half-way goes on after a cancellation. Twice that, an abort and then the removal of what
# came of it, is less than a shutdown waits.
_UNCUT_S = 4

_T = TypeVar("_T")


class ArchiveUnavailableError(UnavailableError):
    """The archive cannot be read or written now."""


@asynccontextmanager
async def archive_deadline(problem: str, stall_s: float) -> AsyncIterator[Moved]:
    """Limit how long nothing may move; the limit begins anew with each call of what is yielded.

    Raises:
        ArchiveUnavailableError: nothing moved for so long, or disk or store refused; it begins with `problem`.
        FileNotFoundError, StopAsyncIteration: as they were raised.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(stall_s) as limit:
            is_over = False

            def moved() -> None:
                if not is_over and not limit.expired():
                    limit.reschedule(loop.time() + stall_s)

            try:
                yield moved
            finally:
                is_over = True  # a thread that goes on can still tell of itself
    except (FileNotFoundError, StopAsyncIteration):
        raise
    except (BaseError, OSError) as error:  # a timeout among them
        # The library's own words can quote whole requests, signatures included.
        log.debug("archive_error", detail=str(error)[:500])
        told = error.strerror if isinstance(error, OSError) else None
        raise ArchiveUnavailableError(f"{problem}: {told or type(error).__name__}") from error


async def within_deadline(work: Awaitable[_T], problem: str, timeout_s: float) -> _T:
    """Await one call, see `archive_deadline`."""
    async with archive_deadline(problem, timeout_s):
        return await work


async def uncut(work: Awaitable[_T]) -> _T:
    """Await what must not be cut off half-way: a cancellation is passed on once it has ended, or has had its time.

    Raises:
        TimeoutError: it was begun after the cancellation, as what clears up is, and has had its time.
    """
    task = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait([task], timeout=_UNCUT_S if _is_cancelled() else None)
    except asyncio.CancelledError:
        await asyncio.wait([task], timeout=_UNCUT_S)
        raise
    finally:
        task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # seen, if nobody waits for it
    if not done:
        raise TimeoutError
    return task.result()


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
