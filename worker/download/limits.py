"""Limits of downloads: size and speed of each, slots of each host, request rate of each source."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from dataclasses import dataclass

from yarl import URL

from shared.config.settings import Settings
from shared.config.sources import Source
from shared.domain.ids import SourceName


@dataclass(frozen=True, slots=True)
class Limits:
    """Maximum size of a download, and its minimum speed."""

    max_bytes: int
    stall_s: float
    min_bytes_per_second: float

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        return cls(settings.recording_max_bytes, settings.recording_stall_seconds, settings.recording_min_bytes_per_second)


def slots_by_source(sources: Collection[Source]) -> dict[SourceName, asyncio.Semaphore]:
    """Create the download slots. Sources with origins on one host share its slots, and their smallest limit applies."""
    limits: dict[str, int] = {}
    hosts = {source.name: URL(source.recording_origin or "").host or "" for source in sources}
    for source in sources:
        host = hosts[source.name]
        limits[host] = min(source.recordings_at_once, limits.get(host, source.recordings_at_once))
    slots = {host: asyncio.Semaphore(limit) for host, limit in limits.items()}
    return {name: slots[host] for name, host in hosts.items()}


class RateLimit:
    """Spaces requests evenly. A waiting request has reserved its time, so `delay_s` counts those that wait."""

    def __init__(self, per_second: float) -> None:
        self._interval_s = 1 / per_second
        self._next = 0.0

    @property
    def delay_s(self) -> float:
        return max(0.0, self._next - time.monotonic())

    async def wait(self) -> None:
        now = time.monotonic()
        at, self._next = max(self._next, now), max(self._next, now) + self._interval_s
        await asyncio.sleep(at - now)
