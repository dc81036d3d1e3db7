"""Starts to consume recording jobs when the archive can be written. Folding does not need the archive, and starts without it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NoReturn

from shared import metrics
from shared.amqp.consumer import Consumer
from shared.archive.deadlines import ArchiveUnavailableError
from shared.archive.storage import Archive
from shared.log import get_logger
from shared.outage import Outage
from shared.runtime.process import background, wait_at_most

log = get_logger(__name__)
_OUTAGE = Outage(log, "archive_unavailable")  # `archive_checked` logs its end

# Limit for the first check, so that an archive with a wrong configuration is reported before anything else starts.
_FIRST_CHECK_S = 5
_WAITS_S = (1, 2, 5, 10, 30)


@asynccontextmanager
async def consuming(jobs: Consumer, archive: Archive) -> AsyncIterator[None]:
    """Consume recording jobs while the block runs, as soon as a check of the archive has succeeded.

    The block starts after the first check, or after a few seconds. Until a check succeeds, jobs stay in their queue, for workers
    that can store recordings.

    Raises:
        ConfigError: the archive cannot work as configured. It is in an exception group, and may come while the block runs.
    """
    checked = asyncio.Event()

    async def consume() -> NoReturn:
        await _check_until_writable(archive, checked)
        await jobs.run()

    async with background(consume()):
        await wait_at_most(checked, _FIRST_CHECK_S)
        yield


async def _check_until_writable(archive: Archive, checked: asyncio.Event) -> None:
    """Check the archive until it can be written; set `checked` after the first check."""
    metrics.RECORDINGS_HELD.set(1)
    for number in itertools.count(1):
        try:
            await archive.check()
        except ArchiveUnavailableError as error:
            wait_s = _WAITS_S[min(number, len(_WAITS_S)) - 1]
            _OUTAGE.failed(str(error), next_s=wait_s)
            checked.set()
            await asyncio.sleep(wait_s)
        else:
            metrics.RECORDINGS_HELD.set(0)
            _OUTAGE.succeeded()
            log.info("archive_checked", url=archive.url, attempts=number)
            checked.set()
            return
