"""The HTTP clients of the sources. A client is replaced if an option of its source changes; its downloads go on to their end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from shared.config.source_changes import changes_between
from shared.config.sources import Source, Sources
from shared.domain.ids import SourceName
from worker.download.client import Client
from worker.download.limits import HostSlots, Limits

# Of callbacks alone. A client would forget what the PBX asked it to wait.
_NOT_OF_DOWNLOADS = frozenset({"secret", "previous_secrets", "adapter"})


@dataclass(slots=True)
class _Open:
    """A client that is open; it is closed once it is replaced and not in use."""

    source: Source
    slots: asyncio.Semaphore
    client: Client
    closing: AsyncExitStack = field(default_factory=AsyncExitStack)
    users: int = 0
    is_replaced: bool = False

    def fits(self, source: Source, slots: asyncio.Semaphore) -> bool:
        changed = changes_between({source.name: self.source}, {source.name: source}).changed.get(source.name, {})
        return slots is self.slots and changed.keys() <= _NOT_OF_DOWNLOADS


class Clients:
    """Opens a client at the first download of a source, and closes all on exit."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._slots = HostSlots()
        self._opening = asyncio.Lock()
        self._clients: dict[SourceName, _Open] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for each in self._clients.values():
            await each.closing.aclose()

    @asynccontextmanager
    async def of(self, source: Source, sources: Sources) -> AsyncIterator[Client]:
        """Lend the client of a source with its present options. `sources`: those that share the slots of its host."""
        each = await self._current(source, self._slots.of(source, sources))
        each.users += 1
        try:
            yield each.client
        finally:
            each.users -= 1
            await self._close_unused(each)

    async def _current(self, source: Source, slots: asyncio.Semaphore) -> _Open:
        async with self._opening:
            earlier = self._clients.get(source.name)
            if earlier is not None and earlier.fits(source, slots):
                return earlier
            opened = _Open(source, slots, Client(source, self._limits, slots))
            await opened.closing.enter_async_context(opened.client)
            self._clients[source.name] = opened
        if earlier is not None:
            earlier.is_replaced = True
            await self._close_unused(earlier)
        return opened

    @staticmethod
    async def _close_unused(each: _Open) -> None:
        if each.is_replaced and not each.users:
            await each.closing.aclose()
