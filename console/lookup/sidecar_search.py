"""Finding the sidecars of a recording or of a call in the archive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress

from shared.archive.sidecar import Sidecar, day_of, path_of
from shared.archive.storage import Archive
from shared.config.settings import Settings
from shared.domain.call import derive
from shared.domain.ids import GUID, CallKey, CallRef, SourceName
from shared.domain.recording import RecordingJob
from shared.domain.revision_summary import filed_at
from shared.errors import StoreUnavailableError
from shared.runtime.store import open_store


def is_guid(text: str) -> bool:
    return GUID.fullmatch(text.lower()) is not None


async def is_in_redis(settings: Settings, key: CallKey) -> bool:
    """Return whether Redis has a call.

    Raises:
        StoreUnavailableError: Redis does not answer.
    """
    async with open_store(settings) as store:
        return await store.read(key) is not None


async def find_sidecars(settings: Settings, archive: Archive, source: str, call_or_guid: str) -> list[Sidecar]:
    """Find the sidecars of a recording or a call; empty if there are none."""
    call = None if is_guid(call_or_guid) else call_or_guid
    for day in await _days(settings, archive, source, call):
        sidecars = [sidecar async for sidecar in _sidecars_of_day(archive, day, call_or_guid)]
        if sidecars:
            return sidecars
    return []


async def find_recording(settings: Settings, archive: Archive, source: str, name: str, call: str | None) -> Sidecar | None:
    """Find the sidecar of a recording, of `call` if given, by its file name, which is usually the GUID."""
    for day in await _days(settings, archive, source, call):
        sidecar = await _read_valid(archive, f"{day}/{name}.json")
        if sidecar is not None:
            return sidecar if call in {None, sidecar.call} else None
    return None


async def sidecars_of(archive: Archive, jobs: Iterable[RecordingJob]) -> list[Sidecar]:
    """Read the sidecars of recording jobs. Those not yet written are left out."""
    sidecars = await asyncio.gather(*(_read_valid(archive, path_of(job, "json")) for job in jobs))
    return [sidecar for sidecar in sidecars if sidecar is not None]


async def _days(settings: Settings, archive: Archive, source: str, call: str | None) -> list[str]:
    """List the days of the archive: first the day of `call` if Redis knows it, then newest first."""
    day = await _day_in_redis(settings, source, call) if call else None
    days = [other for other in reversed(await archive.days(source)) if other != day]
    return [day, *days] if day else days


async def _day_in_redis(settings: Settings, source: str, call: str) -> str | None:
    """Read the archive day of a call from Redis while Redis retains the call."""
    key = CallKey(SourceName(source), CallRef(call))
    with suppress(StoreUnavailableError):  # the archive alone can answer, only slower
        async with open_store(settings) as store:
            state = await store.read(key)
        if state is not None:
            return day_of(source, filed_at(derive(key, state.facts, settings.policy), state.summary))
    return None


async def _sidecars_of_day(archive: Archive, day: str, call_or_guid: str) -> AsyncIterator[Sidecar]:
    if is_guid(call_or_guid):
        sidecar = await _read_valid(archive, f"{day}/{call_or_guid}.json")
        if sidecar is not None:
            yield sidecar
        return
    async for entry in archive.entries(day):
        if entry.path.endswith(".json"):
            sidecar = await _read_valid(archive, entry.path)
            if sidecar is not None and sidecar.call == call_or_guid:
                yield sidecar


async def _read_valid(archive: Archive, path: str) -> Sidecar | None:
    with suppress(ValueError):  # `callfold recordings verify` reports an invalid sidecar
        return await archive.sidecar(path)
    return None
