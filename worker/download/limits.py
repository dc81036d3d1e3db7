"""Limits of downloads: size and speed of each, slots of each host, request rate of each source."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from yarl import URL

from shared.config.settings import Settings
from shared.config.sources import Source, Sources


@dataclass(frozen=True, slots=True)
class Limits:
    """Maximum size of a download, and its minimum speed."""

    max_bytes: int
    stall_s: float
    min_bytes_per_second: float

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        return cls(settings.recording_max_bytes, settings.recording_stall_seconds, settings.recording_min_bytes_per_second)


class HostSlots:
    """The download slots of each host. Sources with origins on one host share its slots, and their smallest limit applies."""

    def __init__(self) -> None:
        self._sources: Sources = {}
        self._limits: dict[str, int] = {}
        self._slots: dict[str, tuple[int, asyncio.Semaphore]] = {}

    def of(self, source: Source, sources: Sources) -> asyncio.Semaphore:
        """Return the slots of the host of a source, which may have been removed from `sources`.

        If the limit of a host changes, it gets new slots, and the downloads in progress keep the old ones.
        """
        if sources is not self._sources:
            self._sources, self._limits = sources, _smallest_limits(sources)
        host = _host(source)
        limit = self._limits.get(host, source.recordings_at_once)
        if host not in self._slots or self._slots[host][0] != limit:
            self._slots[host] = (limit, asyncio.Semaphore(limit))
        return self._slots[host][1]


def _smallest_limits(sources: Sources) -> dict[str, int]:
    limits: dict[str, int] = {}
    for source in sources.values():
        host = _host(source)
        limits[host] = min(source.recordings_at_once, limits.get(host, source.recordings_at_once))
    return limits


def _host(source: Source) -> str:
    return URL(source.recording_origin or "").host or ""


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
