"""Holds: retention deletes no recording of a held call until the hold is released. A hold is a file in the archive."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import orjson

from shared.archive.storage import Archive
from shared.clock import utc_now
from shared.domain.ids import CallKey, CallRef, SourceName


@dataclass(frozen=True, slots=True)
class CallHold:
    """A held call, with the time and the reason of the hold."""

    key: CallKey
    at: str
    reason: str


def _path(key: CallKey) -> str:
    return f"{key.source}/holds/{key.call}.json"


async def place(archive: Archive, key: CallKey, reason: str) -> None:
    """Hold a call. A call that is held already keeps its first time and reason."""
    if not await is_held(archive, key):
        await archive.put(_path(key), orjson.dumps({"v": 1, "at": utc_now(), "reason": reason}))


async def release(archive: Archive, key: CallKey) -> None:
    """Release a call, if it is held."""
    await archive.delete(_path(key))


async def is_held(archive: Archive, key: CallKey) -> bool:
    return await archive.size(_path(key)) is not None


async def holds(archive: Archive, source: str) -> AsyncIterator[CallHold]:
    """List the held calls of a source."""
    async for entry in archive.entries(f"{source}/holds"):
        at, reason = _read(await archive.read(entry.path) or b"{}")
        call = entry.path.rpartition("/")[2].removesuffix(".json")
        yield CallHold(CallKey(SourceName(source), CallRef(call)), at, reason)


def _read(body: bytes) -> tuple[str, str]:
    """Return time and reason of a hold. One that was damaged is still a hold."""
    try:
        data = orjson.loads(body)
    except ValueError:
        return "", ""
    return (str(data.get("at", "")), str(data.get("reason", ""))) if isinstance(data, dict) else ("", "")
