"""One at a time: a recording is worked on by one worker, however many copies of its job there are."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import NoReturn

from shared.errors import CallfoldError, StoreUnavailableError
from shared.process import background
from shared.store import Store, patiently

LEASE_S = 15.0


class BusyError(CallfoldError):
    """Another has it: to be tried again a little later."""


class Lock:
    """A lock that is kept for as long as the work lasts."""

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self._name = name
        self._holder = uuid.uuid4().hex

    async def confirm(self) -> None:
        """Make sure that it is still ours, before what cannot be undone.

        Raises:
            BusyError: it was lost, since this process or Redis stood still for longer than the lease.
        """
        if not await patiently(lambda: self._store.lock(self._name, self._holder, lease_s=LEASE_S)):
            raise BusyError(f"{self._name} is worked on by another")

    async def keep(self) -> NoReturn:
        """Renew for as long as the task lives. What is lost shows at `confirm`."""
        while True:
            await asyncio.sleep(LEASE_S / 3)
            with suppress(StoreUnavailableError):
                await self._store.lock(self._name, self._holder, lease_s=LEASE_S)

    async def release(self) -> None:
        with suppress(StoreUnavailableError):  # it ends by itself
            await self._store.unlock(self._name, self._holder)


@asynccontextmanager
async def locked(store: Store, name: str) -> AsyncIterator[Lock]:
    """Have something alone.

    Raises:
        BusyError: another has it.
    """
    lock = Lock(store, name)
    await lock.confirm()
    try:
        async with background(lock.keep()):
            yield lock
    finally:
        await lock.release()
