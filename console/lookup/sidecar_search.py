"""Finding sidecars: by the GUID of a recording, or by the call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress

from shared.archive.archive import Archive
from shared.archive.sidecar import Sidecar, day_of, path_of
from shared.config.settings import Settings
from shared.domain.amendment import filed_at
from shared.domain.call import derive
from shared.domain.ids import GUID, CallKey, CallRef, SourceName
from shared.domain.recording import RecordingJob
from shared.errors import StoreUnavailableError
from shared.runtime.store import open_store


def is_guid(text: str) -> bool:
    return GUID.fullmatch(text.lower()) is not None


async def is_known(settings: Settings, key: CallKey) -> bool:
    """Tell whether Redis has a call.

    Raises:
        StoreUnavailableError: it cannot say.
    """
    async with open_store(settings) as store:
        return await store.read(key) is not None


async def find_sidecars(settings: Settings, archive: Archive, source: str, what: str) -> list[Sidecar]:
    """Find the sidecars of a recording or of a call; empty where there are none. Days are looked through newest first."""
    day = None if is_guid(what) else await _filed_day(settings, source, what)
    days = [day] if day else []
    days += [other for other in reversed(await archive.days(source)) if other != day]
    for candidate in days:
        found = [sidecar async for sidecar in _of_day(archive, candidate, what)]
        if found:
            return found
    return []


async def find_recording(settings: Settings, archive: Archive, source: str, name: str, call: str | None) -> Sidecar | None:
    """Find the sidecar of a recording, of `call` where one is given, by the name of its files: its GUID as a rule."""
    day = await _filed_day(settings, source, call) if call else None
    days = [day] if day else []
    days += [other for other in reversed(await archive.days(source)) if other != day]
    for candidate in days:
        found = await _readable(archive, f"{candidate}/{name}.json")
        if found is not None:
            return found if call in {None, found.call} else None
    return None


async def sidecars_of(archive: Archive, jobs: Iterable[RecordingJob]) -> list[Sidecar]:
    """Read the sidecars of some legs; those that are not written yet are left out."""
    found = await asyncio.gather(*(_readable(archive, path_of(job, "json")) for job in jobs))
    return [sidecar for sidecar in found if sidecar is not None]


async def _filed_day(settings: Settings, source: str, call: str) -> str | None:
    """Ask Redis, while it keeps the call, by which day it was filed."""
    key = CallKey(SourceName(source), CallRef(call))
    with suppress(StoreUnavailableError):  # the archive alone can answer, only slower
        async with open_store(settings) as store:
            state = await store.read(key)
        if state is not None:
            return day_of(source, filed_at(derive(key, state.facts, settings.policy), state.summary))
    return None


async def _of_day(archive: Archive, day: str, what: str) -> AsyncIterator[Sidecar]:
    if is_guid(what):
        sidecar = await _readable(archive, f"{day}/{what}.json")
        if sidecar is not None:
            yield sidecar
        return
    async for entry in archive.entries(day):
        if entry.path.endswith(".json"):
            sidecar = await _readable(archive, entry.path)
            if sidecar is not None and sidecar.call == what:
                yield sidecar


async def _readable(archive: Archive, path: str) -> Sidecar | None:
    with suppress(ValueError):  # `recordings verify` tells of it
        return await archive.sidecar(path)
    return None
