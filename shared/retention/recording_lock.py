"""One at a time: a recording is worked on by one worker, however many copies of its job there are."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import NoReturn

from shared.archive.local_disk import Confirm
from shared.archive.sidecar import Sidecar
from shared.archive.storage import Archive
from shared.errors import CallfoldError, StoreUnavailableError
from shared.runtime.process import background
from shared.state.replies import until_redis_answers
from shared.state.store import Store

LEASE_S = 15.0


class BusyError(CallfoldError):
    """Another has it: to be tried again a little later."""


class NotBegunError(BusyError):
    """Another has it, and nothing was done."""


class Lock:
    """A lock that is kept for as long as the work lasts."""

    def __init__(self, store: Store, name: str) -> None:
        self._locks = store.locks
        self._name = name
        self._holder = uuid.uuid4().hex

    async def take(self) -> None:
        """Make it ours, once, before anything else.

        Raises:
            NotBegunError: another has it.
        """
        if not await until_redis_answers(lambda: self._locks.acquire(self._name, self._holder, lease_s=LEASE_S)):
            raise NotBegunError(f"{self._name} is worked on by another")

    async def confirm(self) -> None:
        """Make sure that it has been ours ever since it was taken, before what cannot be undone.

        One that is free now is not taken again: another may have had it meanwhile.

        Raises:
            BusyError: it was lost, since Redis forgot it, or could not be reached, or we stood still, for longer than the lease.
        """
        if not await until_redis_answers(lambda: self._locks.renew(self._name, self._holder, lease_s=LEASE_S)):
            raise BusyError(f"{self._name} was lost, and may have been another's")

    async def keep(self) -> NoReturn:
        """Renew for as long as the task lives. What is lost shows at `confirm`."""
        while True:
            await asyncio.sleep(LEASE_S / 3)
            with suppress(StoreUnavailableError):
                await self._locks.renew(self._name, self._holder, lease_s=LEASE_S)

    async def release(self) -> None:
        with suppress(StoreUnavailableError):  # it ends by itself
            await self._locks.release(self._name, self._holder)


@asynccontextmanager
async def locked(store: Store, name: str) -> AsyncIterator[Lock]:
    """Have something alone.

    Raises:
        NotBegunError: another has it.
    """
    lock = Lock(store, name)
    await lock.take()
    try:
        async with background(lock.keep()):
            yield lock
    finally:
        await lock.release()


async def confirm_unchanged(confirm: Confirm, archive: Archive, path: str, seen: Sidecar | None) -> None:
    """Make sure that a lock is ours, and then that a sidecar still says what was seen of it: the lock is not trusted alone.

    Raises:
        ArchiveUnavailableError: the sidecar could not be read.
        BusyError: the lock was lost, or another wrote the sidecar.
        ValueError: what is there is no sidecar.
    """
    await confirm()
    if await archive.sidecar(path) != seen:
        raise BusyError(f"{path} was written by another")
