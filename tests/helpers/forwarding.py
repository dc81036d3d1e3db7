"""Events for endpoints, and a forwarder in the process of the test."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aio_pika
import orjson
import pytest

from shared.amqp.publisher import Message, Publisher
from shared.amqp.topology import CALLS, FORWARD_JOURNAL, forward_queue, forward_retry_queue
from shared.config.settings import load_settings
from shared.webhooks.attempts import AttemptRecord
from tests.helpers.history_process import calls_of
from tests.helpers.pace import LIMIT_S
from tests.helpers.servers import Servers, eventually
from tests.helpers.webhook_receiver import WebhookReceiver
from worker.forwarding.service import serve

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYqrTwjU"
OTHER_SECRET = "whsec_cGVyaGFwcyB0aGUgcHJldmlvdXMgc2VjcmV0IG9mIHRoZSBDUk0="


def new_name() -> str:
    """Return a name that no other test uses, for an endpoint and for the source of its events."""
    return f"t{uuid.uuid4().hex[:12]}"


def table(name: str, receiver: WebhookReceiver | str, *, source: str = "", **keys: object) -> str:
    """Return the table of an endpoint that takes the events of one source."""
    url = receiver if isinstance(receiver, str) else receiver.url
    given = {"url": url, "secret": SECRET, "filter": f"call.*.{source or name}.#", "timeout_s": LIMIT_S / 4, **keys}
    given["timeout_s"] = min(60.0, float(str(given["timeout_s"])))
    return f"[endpoints.{name}]\n" + "".join(f"{key} = {orjson.dumps(value).decode()}\n" for key, value in given.items())


async def publish(publisher: Publisher, events: Sequence[dict[str, Any]]) -> list[str]:
    """Publish events as a worker does; returns their ids."""
    await publisher.publish_until_confirmed(
        Message(
            CALLS, f"call.completed.{event['data']['source']}.answered", orjson.dumps(event), str(event["id"]),
            "application/cloudevents+json",
        )
        for event in events
    )  # fmt: skip
    return [str(event["id"]) for event in events]


def events_of(source: str, count: int, *, first: int = 1) -> list[dict[str, Any]]:
    return [dict(event) for event in calls_of(source, count, first=first)]


def revisions_of(source: str, call: int, count: int) -> list[dict[str, Any]]:
    """Return several revisions of one call."""
    (event,) = events_of(source, 1, first=call)
    return [
        {**event, "id": f"{source}/{call}/{number}", "data": {**event["data"], "revision": number}}
        for number in range(1, count + 1)
    ]


@asynccontextmanager
async def forwarding(servers: Servers, monkeypatch: pytest.MonkeyPatch, endpoints: str, **more: str) -> AsyncIterator[None]:
    """Run a forwarder in this process until the body ends; then stop it as SIGTERM does."""
    path = servers.directory / "endpoints.toml"
    path.write_text(endpoints, "utf-8")
    settings = {"CALLFOLD_ENDPOINTS": str(path), "CALLFOLD_FORWARD_RETRY_SECONDS": "0.2,0.5", **more}
    for name, value in servers.environment(**settings).items():
        monkeypatch.setenv(name, value)
    stop = asyncio.Event()
    task = asyncio.create_task(serve(load_settings(), stop))
    try:
        await bound(servers, endpoints)
        yield
    finally:
        stop.set()
        await asyncio.wait_for(task, LIMIT_S)


async def bound(servers: Servers, endpoints: str) -> None:
    """Wait until the queue of each endpoint exists. Its bindings are declared with it."""
    names = re.findall(r"^\[endpoints\.([a-z0-9-]+)\]$", endpoints, re.MULTILINE)

    async def are_there() -> bool:
        async with await aio_pika.connect(servers.stack.amqp_url, timeout=LIMIT_S) as connection:
            for name in names:
                channel = await connection.channel()
                try:
                    queue = await channel.declare_queue(forward_queue(name), passive=True)
                except aio_pika.exceptions.ChannelNotFoundEntity:
                    return False
                if not queue.declaration_result.consumer_count:
                    return False
        return True

    await eventually(are_there)


async def attempts_of(servers: Servers, endpoint: str, count: int) -> list[AttemptRecord]:
    """Read the journal until it has so many attempts at an endpoint."""
    seen: list[AttemptRecord] = []

    def is_last(body: bytes) -> bool:
        record = AttemptRecord.decode(body)
        if record.endpoint == endpoint:
            seen.append(record)
        return len(seen) >= count

    await servers.read_stream(FORWARD_JOURNAL, is_last)
    return seen


async def delete_queues(servers: Servers, name: str, *delays_s: float) -> None:
    """Delete the queues of an endpoint."""
    async with await aio_pika.connect(servers.stack.amqp_url, timeout=LIMIT_S) as connection:
        channel = await connection.channel()
        for queue in (forward_queue(name), *(forward_retry_queue(name, delay_s) for delay_s in delays_s)):
            await channel.queue_delete(queue)
