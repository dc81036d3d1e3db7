"""The lock of a recording: one worker at a time processes it, however many copies of its job there are."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import NoReturn

from shared.archive.local_disk import Confirm
from shared.archive.sidecar import Sidecar
from shared.archive.storage import Archive
from shared.errors import BusyError, NotBegunError, StoreUnavailableError
from shared.runtime.process import background
from shared.state.replies import until_redis_answers
from shared.state.store import Store

LEASE_S = 15.0


class Lock:
    """A lock in Redis that is renewed while the work lasts."""

    def __init__(self, store: Store, name: str, lease_s: float | None = None) -> None:
        self._locks = store.locks
        self._name = name
        self._lease_s = LEASE_S if lease_s is None else lease_s
        self._holder = uuid.uuid4().hex

    async def acquire(self) -> None:
        """Acquire the lock, once, before anything else is done.

        Raises:
            NotBegunError: another process holds it.
        """
        if not await until_redis_answers(lambda: self._locks.acquire(self._name, self._holder, lease_s=self._lease_s)):
            raise NotBegunError(f"{self._name} is locked by another process")

    async def confirm(self) -> None:
        """Check that the lock was never lost, before a step that cannot be undone.

        A lock that is free now is not acquired again: another process may have held it in between.

        Raises:
            BusyError: Redis lost the lock, or the lease expired: Redis could not be reached, or this process stood still.
        """
        if not await until_redis_answers(lambda: self._locks.renew(self._name, self._holder, lease_s=self._lease_s)):
            raise BusyError(f"the lock on {self._name} was lost, and another process may have held it")

    async def keep(self) -> NoReturn:
        """Renew the lock as long as the task lives. `confirm` finds out if it was lost."""
        while True:
            await asyncio.sleep(self._lease_s / 3)
            with suppress(StoreUnavailableError):
                await self._locks.renew(self._name, self._holder, lease_s=self._lease_s)

    async def release(self) -> None:
        with suppress(StoreUnavailableError):  # the lease expires
            await self._locks.release(self._name, self._holder)


@asynccontextmanager
async def locked(store: Store, name: str, *, lease_s: float | None = None) -> AsyncIterator[Lock]:
    """Hold a lock, with the lease of a recording unless there is another one.

    Raises:
        NotBegunError: another process holds it.
    """
    lock = Lock(store, name, lease_s)
    await lock.acquire()
    try:
        async with background(lock.keep()):
            yield lock
    finally:
        await lock.release()


async def confirm_unchanged(confirm: Confirm, archive: Archive, path: str, seen: Sidecar | None) -> None:
    """Check that the lock was never lost, and then that a sidecar is as it was seen: the lock alone is not trusted.

    Raises:
        ArchiveUnavailableError: the sidecar could not be read.
        BusyError: the lock was lost, or another process wrote the sidecar.
        ValueError: the file is no sidecar.
    """
    await confirm()
    if await archive.sidecar(path) != seen:
        raise BusyError(f"{path} was written by another process")
