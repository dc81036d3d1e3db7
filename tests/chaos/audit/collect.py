"""Consume every event of `calls` into a file, through all faults, as a subscriber with a durable queue does."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import aio_pika
import orjson

from tests.chaos.audit.pace import PACE

QUEUE = "audit.calls"
_CONNECT_S = 3.0 * PACE
_CHECK_S = 1.0
_CHECK_LIMIT_S = 2.0
# A consumer can be lost without a word (a leader moved). After this time without an event, consume afresh.
_SILENT_S = 10.0


class Collector:
    """Writes what it receives, and acks after that."""

    def __init__(self, urls: Sequence[str], path: Path) -> None:
        self._urls = urls
        self._path = path
        self._received_at = 0.0

    async def run(self) -> None:
        """Consume until cancelled. Another node is tried after each failure."""
        with self._path.open("ab") as file:
            for url in itertools.cycle(self._urls):
                with suppress(aio_pika.exceptions.AMQPError, OSError, TimeoutError, RuntimeError):
                    await self._consume(url, file)
                await asyncio.sleep(0.2)

    async def _consume(self, url: str, file: BinaryIO) -> None:
        async with asyncio.timeout(_CONNECT_S):
            connection = await aio_pika.connect(url, timeout=_CONNECT_S, heartbeat=3)
        try:
            async with asyncio.timeout(3 * _CONNECT_S):
                channel = await connection.channel()
                await channel.set_qos(prefetch_count=200)
                exchange = await channel.get_exchange("calls", ensure=True)
                queue = await channel.declare_queue(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
                await queue.bind(exchange, "#")

            async def keep(message: aio_pika.abc.AbstractIncomingMessage) -> None:
                self._received_at = time.monotonic()
                line = {"at": time.time(), "key": message.routing_key, "body": message.body.decode()}
                file.write(orjson.dumps(line) + b"\n")
                file.flush()
                await message.ack()

            self._received_at = time.monotonic()
            await queue.consume(keep)
            while time.monotonic() < self._received_at + _SILENT_S:
                await asyncio.sleep(_CHECK_S)
                async with asyncio.timeout(_CHECK_LIMIT_S):
                    await channel.set_qos(prefetch_count=200)  # a node that is frozen answers nothing
        finally:
            with suppress(Exception):
                async with asyncio.timeout(1):
                    await connection.close()


async def collect(urls: Sequence[str], path: Path) -> None:
    """Collect until the process is stopped."""
    await Collector(urls, path).run()
