"""Recording jobs are taken only once the archive was tried: one that is full or away stops no folding, which needs none."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import NoReturn

from shared import metrics
from shared.amqp.consumer import Consumer
from shared.archive.deadlines import ArchiveUnavailableError
from shared.archive.storage import Archive
from shared.log import get_logger
from shared.runtime.process import background

log = get_logger(__name__)

# For the first try, so that an archive that cannot work as configured is told before anything else is begun.
_FIRST_TRY_S = 5
_WAITS_S = (1, 2, 5, 10, 30)


@asynccontextmanager
async def taking(jobs: Consumer, archive: Archive) -> AsyncIterator[None]:
    """Take recording jobs beside the body, from when the archive's check has succeeded. The first try is awaited, for a while.

    Until then jobs stay in their queue, for the workers that can store what comes of them.

    Raises:
        ConfigError: the archive cannot work as configured; in a group, and from the body too, where it is found out late.
    """
    tried = asyncio.Event()

    async def take() -> NoReturn:
        await _checked(archive, tried)
        await jobs.run()

    async with background(take()):
        with suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_TRY_S):
                await tried.wait()
        yield


async def _checked(archive: Archive, tried: asyncio.Event) -> None:
    """Check the archive until it can be written; `tried` is set after the first try."""
    metrics.RECORDINGS_HELD.set(1)
    for number in itertools.count():
        try:
            await archive.check()
        except ArchiveUnavailableError as error:
            wait_s = _WAITS_S[min(number, len(_WAITS_S) - 1)]
            log.warning("archive_unavailable", detail=str(error), next_s=wait_s)
            tried.set()
            await asyncio.sleep(wait_s)
        else:
            break
    metrics.RECORDINGS_HELD.set(0)
    log.info("archive_checked", url=archive.url, tries=number + 1)
    tried.set()
