"""What is left in the broker at the end: messages in queues, and dead letters with their reasons."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

import aio_pika
from aio_pika.abc import AbstractChannel

from tests.chaos.audit.pace import PACE

DEAD = ("callbacks.dead", "recordings.dead")
_CONNECT_S = 10.0 * PACE
_POLL_S = 1.0


async def dead_letters(url: str) -> list[Mapping[str, Any]]:
    """Read every dead letter, and leave it where it is."""
    read: list[Mapping[str, Any]] = []
    async with await aio_pika.connect(url, timeout=_CONNECT_S) as connection:
        channel = await connection.channel()
        for name in DEAD:
            queue = await channel.get_queue(name)
            while message := await queue.get(fail=False, timeout=_CONNECT_S):
                headers = message.headers
                reason = str(headers.get("reason") or headers.get("x-first-death-reason"))
                read.append({"queue": name, "reason": reason, "body": message.body.decode("utf-8", "replace")})
    return read


async def messages_left(url: str, queues: Sequence[str], *, within_s: float) -> dict[str, int]:
    """Wait until queues are empty; returns the number of messages in each. RabbitMQ's numbers are seconds old."""
    deadline = time.monotonic() + within_s
    async with await aio_pika.connect(url, timeout=_CONNECT_S) as connection:
        while True:
            channel = await connection.channel()
            left = {name: await _depth(channel, name) for name in queues}
            if not any(left.values()) or time.monotonic() > deadline:
                return left
            await channel.close()
            await asyncio.sleep(_POLL_S)


async def _depth(channel: AbstractChannel, name: str) -> int:
    declared = await channel.declare_queue(name, passive=True)
    return int(declared.declaration_result.message_count or 0)
