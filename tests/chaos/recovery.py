"""Whether the system works again: a call that is sent after a fault is accepted within a second, and published."""

from __future__ import annotations

import asyncio
import itertools
import time
import uuid
from pathlib import Path
from urllib.parse import urlencode

import aiohttp
import orjson

from tests.chaos.load import CallbackLog

ACCEPTED_WITHIN_S = 1.0
LIMIT_S = 90.0
_EVERY_S = 0.5
_MARK = b'"probe/'


class Prober:
    """Sends whole calls of two callbacks, and sees in the auditor's log when one is published."""

    def __init__(self, directory: Path, adapter: str, source: str) -> None:
        self._url = adapter.partition("&")[0]  # with the secret
        self._source = source
        self._log = CallbackLog(directory / "callbacks-probe.jsonl")
        self._events = directory / "events.jsonl"
        self._position = 0
        self._numbers = itertools.count(time.time_ns() // 1_000_000)
        self._waiting: set[str] = set()

    async def recovered(self) -> float | None:
        """Return when the first call was published that was sent from now on; None if none was within the limit."""
        self._waiting = set()
        await asyncio.to_thread(self._skip)
        began = time.monotonic()
        sending: set[asyncio.Task[None]] = set()
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ACCEPTED_WITHIN_S)) as session:
            try:
                while time.monotonic() < began + LIMIT_S:
                    task = asyncio.create_task(self._send(session, next(self._numbers)))
                    sending.add(task)
                    task.add_done_callback(sending.discard)
                    for _ in range(5):
                        await asyncio.sleep(_EVERY_S / 5)
                        if (at := await asyncio.to_thread(self._published)) is not None:
                            return at
            finally:
                await asyncio.gather(*sending, return_exceptions=True)
        return None

    async def _send(self, session: aiohttp.ClientSession, number: int) -> None:
        for event in ("hangup", "missed"):
            query = urlencode(
                {"CallType": "API", "Event": event, "CallID": number, "RequestID": number, "Guid": str(uuid.UUID(int=number))}
            )
            logged = self._log.sent(self._source, query)
            try:
                async with session.get(f"{self._url}&{query}") as response:
                    await response.read()
                    self._log.answered(logged, response.status)
                    if response.status != 200:
                        return
            except (aiohttp.ClientError, TimeoutError) as error:
                self._log.answered(logged, type(error).__name__)
                return
        self._waiting.add(f"{self._source}/{number}/1")

    def _skip(self) -> None:
        if self._events.exists():
            self._position = self._events.stat().st_size

    def _published(self) -> float | None:
        """Return when one of the calls was published that were accepted in time."""
        if not self._events.exists():
            return None
        with self._events.open("rb") as file:
            file.seek(self._position)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._position += len(line)
                if _MARK in line.replace(b"\\", b""):
                    row = orjson.loads(line)
                    if orjson.loads(row["body"])["id"] in self._waiting:
                        return float(row["at"])
        return None
