"""The connection to Redis as the settings describe it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from shared.config.settings import Settings
from shared.state.store import Store


@asynccontextmanager
async def open_store(settings: Settings, *, is_guarded: bool = False) -> AsyncIterator[Store]:
    """Open the store of a process or a command, and close its connections at the end. That of a worker is guarded."""
    store = Store(
        settings.redis_url.get_secret_value(),
        first_wake_up_s=settings.max_call_seconds,
        retain_s=settings.retain_seconds,
        replicas=settings.redis_replicas,
        is_guarded=is_guarded,
    )
    try:
        yield store
    finally:
        await store.aclose()
