"""Holds: calls whose recordings nothing deletes until the hold is released. They lie in the archive next to the recordings."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import orjson

from shared.archive.storage import Archive
from shared.clock import utc_now
from shared.domain.ids import CallKey, CallRef, SourceName


@dataclass(frozen=True, slots=True)
class CallHold:
    """A call that is held: since when, and why."""

    key: CallKey
    at: str
    reason: str


def _path(key: CallKey) -> str:
    return f"{key.source}/holds/{key.call}.json"


async def place(archive: Archive, key: CallKey, reason: str) -> None:
    """Hold a call; one that is held already keeps its first date and reason."""
    if not await is_held(archive, key):
        await archive.put(_path(key), orjson.dumps({"v": 1, "at": utc_now(), "reason": reason}))


async def release(archive: Archive, key: CallKey) -> None:
    """Release a call; one that is not held stays so."""
    await archive.delete(_path(key))


async def is_held(archive: Archive, key: CallKey) -> bool:
    return await archive.size(_path(key)) is not None


async def holds(archive: Archive, source: str) -> AsyncIterator[CallHold]:
    """List the calls of a source that are held."""
    async for entry in archive.entries(f"{source}/holds"):
        told = orjson.loads(await archive.read(entry.path) or b"{}")
        call = entry.path.rpartition("/")[2].removesuffix(".json")
        yield CallHold(CallKey(SourceName(source), CallRef(call)), str(told.get("at", "")), str(told.get("reason", "")))
