"""Finding the sidecars of a recording or of a call in the archive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress

from shared.archive.sidecar import Sidecar, day_of
from shared.archive.storage import Archive
from shared.config.settings import Settings
from shared.domain.call import derive
from shared.domain.closing import Policy
from shared.domain.ids import GUID, CallKey, CallRef, SourceName
from shared.domain.recording import RecordingJob
from shared.domain.revision_summary import filed_at
from shared.errors import StoreUnavailableError
from shared.runtime.store import open_store
from shared.state.call_reader import CallReader


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
    """Find the sidecars of a recording or a call, in the order of their names; empty if there are none."""
    day = None
    if not is_guid(call_or_guid):
        async with open_store(settings) as store:
            day = await _day_in_redis(store, settings.policy, source, call_or_guid)
    for each in await _days(archive, source, day):
        sidecars = [sidecar async for sidecar in _sidecars_of_day(archive, each, call_or_guid)]
        if sidecars:
            return sorted(sidecars, key=lambda sidecar: sidecar.name)
    return []


class RecordingSearch:
    """Finds recordings by their file names, which are usually their GUIDs."""

    def __init__(self, archive: Archive, calls: CallReader, policy: Policy) -> None:
        self._archive = archive
        self._calls = calls
        self._policy = policy

    async def find(self, source: str, name: str, call: str | None) -> Sidecar | None:
        """Find the sidecar of a recording, of `call` if given."""
        day = await _day_in_redis(self._calls, self._policy, source, call) if call else None
        for each in await _days(self._archive, source, day):
            sidecar = await _read_valid(self._archive, f"{each}/{name}.json")
            if sidecar is not None and call not in {None, sidecar.call}:
                sidecar = await _read_valid(self._archive, f"{each}/{name}.{call}.json")
            if sidecar is not None:
                return sidecar
        return None


async def sidecars_of(archive: Archive, jobs: Iterable[RecordingJob]) -> list[Sidecar]:
    """Read the sidecars of recording jobs. Those not yet written are left out."""
    sidecars = await asyncio.gather(*(_sidecar_of(archive, job) for job in jobs))
    return [sidecar for sidecar in sidecars if sidecar is not None]


async def _sidecar_of(archive: Archive, job: RecordingJob) -> Sidecar | None:
    with suppress(ValueError):  # as in `_read_valid`
        return (await archive.sidecar_of(job))[0]
    return None


async def _days(archive: Archive, source: str, first: str | None) -> list[str]:
    """List the days of the archive: one first if given, then newest first."""
    days = [other for other in reversed(await archive.days(source)) if other != first]
    return [first, *days] if first else days


async def _day_in_redis(calls: CallReader, policy: Policy, source: str, call: str) -> str | None:
    """Read the archive day of a call from Redis while Redis retains the call."""
    key = CallKey(SourceName(source), CallRef(call))
    with suppress(StoreUnavailableError):  # the archive alone can answer, only slower
        state = await calls.read(key)
        if state is not None:
            return day_of(source, filed_at(derive(key, state.facts, policy), state.summary))
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
