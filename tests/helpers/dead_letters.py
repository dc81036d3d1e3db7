"""Dead letters: put one there, and count those that are left."""

from __future__ import annotations

import json

import aio_pika
from aio_pika.abc import HeadersType

from shared.clock import utc_now
from tests.helpers.servers import Servers

AT = "2026-11-23T07:44:00.000000Z"


async def bury(servers: Servers, source: str, query: str, reason: str, *, first_seen: str | None = None) -> None:
    body = json.dumps([{"v": 1, "kind": "callback", "source": source, "received_at": AT, "query": query}]).encode()
    headers: HeadersType = {"reason": reason, "detail": "parameter e is missing", "first_seen": first_seen or utc_now()}
    async with servers.queue("callbacks.dead") as queue:
        message = aio_pika.Message(body, headers=headers, message_id=f"{source}-{reason}-0123456789", delivery_mode=2)
        await queue.channel.default_exchange.publish(message, queue.name)


async def left(servers: Servers) -> int:
    async with servers.queue("callbacks.dead") as queue:
        return (await queue.declare()).message_count or 0
