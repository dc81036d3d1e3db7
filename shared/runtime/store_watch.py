"""Watches Redis from a process that rarely writes, so that its readers leave a server that cannot be written."""

from __future__ import annotations

import asyncio
from typing import Final, NoReturn

from shared.errors import StoreUnavailableError
from shared.state.replies import REDIS_OUTAGE
from shared.state.store import Store

_INTERVAL_S: Final = 5.0


async def watch_store(store: Store) -> NoReturn:
    """Write to Redis every few seconds. A refused write drops all connections. Run it as a task."""
    while True:
        try:
            await store.check()
        except StoreUnavailableError as error:
            REDIS_OUTAGE.failed(str(error))
        else:
            REDIS_OUTAGE.succeeded()
        await asyncio.sleep(_INTERVAL_S)
