"""Whether the system works again: calls that are sent after a fault are accepted within a second, and all of them published."""

from __future__ import annotations

import asyncio
import itertools
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlencode

import aiohttp
import orjson

from tests.chaos.load import CallbackLog
from tests.helpers.pace import PACE

ACCEPTED, ACCEPTED_WITHIN_S = 200, 1.0 * PACE
LIMIT_S = 90.0 * PACE
# A rebuild reads what came since the oldest call that can be open, and ten minutes more. On a machine that the load keeps busy, each
# callback takes so long.
_REBUILT_SINCE_S, _REBUILD_S = 700, 0.001 * PACE
_EVERY_S = 0.5
_BATCH = 6
_SOON_S = 5
_MARK = b'"probe/'


class Prober:
    """Sends batches of whole calls of two callbacks each, and sees in the auditor's log when they are published.

    The calls of a batch are spread over ingress processes, partitions and workers: that one of them comes through proves little.
    """

    def __init__(self, directory: Path, adapter: str, source: str, *, rate: float) -> None:
        """Take the load of callbacks a second, which decides how long a rebuild may take."""
        self._limit_s = LIMIT_S + rate * _REBUILT_SINCE_S * _REBUILD_S
        self._url = adapter.partition("&")[0]  # with the secret
        self._source = source
        self._log = CallbackLog(directory / "callbacks-probe.jsonl")
        self._events = directory / "events.jsonl"
        self._position = 0
        self._numbers = itertools.count(time.time_ns() // 1_000_000)
        self._published: dict[str, float] = {}

    async def recovered(self) -> float | None:
        """Return when the last call of a batch was published that was wholly accepted, and every call accepted before it.

        None if that takes too long. A batch that comes through alone may only have met parts that work.
        """
        await asyncio.to_thread(self._skip)
        began = time.monotonic()
        batches: list[asyncio.Task[list[str | None]]] = []
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ACCEPTED_WITHIN_S)) as session:
            try:
                while time.monotonic() < began + self._limit_s:
                    batches.append(asyncio.create_task(self._send_batch(session)))
                    # The longer it takes the fewer, so that the probes are not the load.
                    for _ in range(5 if time.monotonic() < began + _SOON_S else 25):
                        await asyncio.sleep(_EVERY_S / 5)
                        await asyncio.to_thread(self._read)
                        if (
                            at := recovered_at([batch.result() for batch in batches if batch.done()], self._published)
                        ) is not None:
                            return at
            finally:
                await asyncio.gather(*batches, return_exceptions=True)
        return None

    async def _send_batch(self, session: aiohttp.ClientSession) -> list[str | None]:
        """Send the calls of a batch; returns the ids of their events, None for one that was not accepted in time."""
        return await asyncio.gather(*(self._send(session, next(self._numbers)) for _ in range(_BATCH)))

    async def _send(self, session: aiohttp.ClientSession, number: int) -> str | None:
        for event in ("hangup", "missed"):
            guid = uuid.UUID(int=number)
            query = urlencode({"CallType": "API", "Event": event, "CallID": number, "RequestID": number, "Guid": guid})
            logged = self._log.sent(self._source, query)
            status: int | str
            try:
                async with session.get(f"{self._url}&{query}") as response:
                    await response.read()
                    status = response.status
            except (aiohttp.ClientError, TimeoutError) as error:
                status = type(error).__name__
            self._log.answered(logged, status)
            if status != ACCEPTED:
                return None
        return f"{self._source}/{number}/1"

    def _skip(self) -> None:
        self._published.clear()
        if self._events.exists():
            self._position = self._events.stat().st_size

    def _read(self) -> None:
        """Read which calls were published since the last look."""
        if not self._events.exists():
            return
        with self._events.open("rb") as file:
            file.seek(self._position)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._position += len(line)
                if _MARK in line.replace(b"\\", b""):
                    row = orjson.loads(line)
                    self._published.setdefault(orjson.loads(row["body"])["id"], row["at"])


def recovered_at(batches: Iterable[Sequence[str | None]], published: Mapping[str, float]) -> float | None:
    """Return when the first wholly accepted batch was published, and with it every call accepted before; None if it was not yet."""
    accepted: set[str] = set()
    for batch in batches:
        accepted |= {event for event in batch if event}
        if not accepted <= set(published):
            return None
        if all(batch):
            return max(published[event] for event in accepted)
    return None
