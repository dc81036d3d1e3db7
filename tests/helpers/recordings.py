"""What tests of recordings share: a PBX that misbehaves on request, a worker, jobs, and where their files must be."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aio_pika
import orjson
from aiohttp import web
from redis.asyncio import Redis

from console.local.processes import Fleet, ServiceProcess
from shared.domain.ids import CallRef, SourceName
from shared.domain.recording import RecordingJob
from simulator.audio import recording
from tests.helpers.pace import LIMIT_S
from tests.helpers.servers import Servers, eventually, metric, next_events, waiting_events

WAV = recording("7", 1.5)
GUID = "bfa2dbc8-ab8a-34c8-f243-c2aad8c446ff"
SECTOK = "3511b272f4fb03ecf900b80b1cc5b8fe"


def job(call_id: str = "7", /, **changed: Any) -> RecordingJob:  # noqa: ANN401
    told: dict[str, Any] = {
        "source": SourceName("acme"),
        "call": CallRef("513"),
        "request_id": 513,
        "call_id": call_id,
        "guid": GUID,
        "leg": "agent",
        "fetch": True,
        "state": "waiting",
        "recording_url": f"https://localhost:8080/rec?sectok={SECTOK}&nId={call_id}",
        "started_at": "2026-11-23T23:59:59.999999Z",
        "record": {"outcome": "answered"},
    }
    told |= changed
    told.setdefault("name", told["guid"] or f"call-{call_id}")
    return RecordingJob(**told)


class Pbx:
    """Serves recordings; `answers` says what the next requests of a CallID get, then the WAV; `serve` takes them over."""

    def __init__(self) -> None:
        self.answers: dict[str, list[web.Response]] = {}
        self.serve: dict[str, Callable[[web.Request], Awaitable[web.StreamResponse]]] = {}
        self.asked: Counter[str] = Counter()
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        call_id = request.query["nId"]
        self.asked[call_id] += 1
        if call_id in self.serve:
            return await self.serve[call_id](request)
        waiting = self.answers.get(call_id, [])
        return waiting.pop(0) if waiting else web.Response(body=WAV, content_type="audio/wav")


@asynccontextmanager
async def serving() -> AsyncIterator[Pbx]:
    served = Pbx()
    app = web.Application()
    app.add_routes([web.get("/rec", served.handle)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    served.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield served
    await runner.cleanup()


def sources_of(servers: Servers, pbx: Pbx, more: str = "") -> str:
    path = servers.directory / "sources.toml"
    path.write_text(f'[sources.acme]\nsecret = "x"\nrecording_origin = "{pbx.url}"\n{more}\n[sources.linkless]\nsecret = "x"\n')
    return str(path)


@asynccontextmanager
async def worker(servers: Servers, pbx: Pbx, more: str = "", **settings: str) -> AsyncIterator[Fleet]:
    async with servers.fleet(CALLFOLD_SOURCES=sources_of(servers, pbx, more), **settings) as fleet:
        process = fleet.add("worker", "worker", {})
        await process.start()
        await takes_jobs(process)
        yield fleet


async def takes_jobs(process: ServiceProcess) -> None:
    """Wait until a worker has checked the archive: it is ready a while after its start, whether or not the archive has answered."""

    async def has_checked() -> bool:
        return await metric(process, "callfold_recordings_held") == 0

    await eventually(has_checked)


async def submit(servers: Servers, *bodies: bytes, **headers: int) -> None:
    async with await aio_pika.connect(servers.stack.amqp_url, timeout=LIMIT_S) as connection:
        channel = await connection.channel()
        for body in bodies:
            message = aio_pika.Message(body, headers=dict(headers), delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
            await channel.default_exchange.publish(message, "recordings")


def file_of(servers: Servers, suffix: str, name: str = GUID) -> Path:
    return servers.directory / "archive" / "acme" / "monitor" / "2026-UTC" / "11" / "23" / f"{name}.{suffix}"


def sidecar_of(servers: Servers, name: str = GUID) -> dict[str, Any]:
    read: dict[str, Any] = orjson.loads(file_of(servers, "json", name).read_bytes())
    return read


def nothing_left(servers: Servers) -> bool:
    return not list((servers.directory / "downloads").iterdir())


async def dead_letter(servers: Servers) -> aio_pika.abc.AbstractIncomingMessage:
    """Take the letter of the one job that ended; a job is buried at least once."""
    found: list[aio_pika.abc.AbstractIncomingMessage] = await eventually(lambda: servers.take_all("recordings.dead"))
    assert len({(letter.body, str(letter.headers["reason"])) for letter in found}) == 1
    return found[0]


async def begin(request: web.Request, content: bytes) -> tuple[web.StreamResponse, bytes]:
    """Begin to answer with a recording, or with what is missing of it; returns what is still to be sent."""
    start = int(request.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
    response = web.StreamResponse(status=206 if start else 200, headers={"ETag": '"a"'})
    if start:
        response.headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
    response.content_length = len(content) - start
    await response.prepare(request)
    return response, content[start:]


async def exists(path: Path) -> bool:
    return path.exists()


async def eventually_clean(servers: Servers) -> None:
    """Wait until no part of a download is left."""

    async def is_clean() -> bool:
        return nothing_left(servers)

    await eventually(is_clean)


async def ended_by_us(servers: Servers, queue: aio_pika.abc.AbstractQueue, call_id: str, attempts: int) -> None:
    """See that a job ended in one event and one dead letter, both with an internal error as their reason."""
    letter = await dead_letter(servers)
    (event,) = await next_events(queue, 1)
    assert await waiting_events(queue) == []
    assert (event.routing_key, event.message_id) == ("recording.failed.acme", f"acme/513/recording/call-{call_id}/failed")
    assert (event.body["data"]["reason"], event.body["data"]["attempts"]) == ("internal_error", attempts)
    assert letter.headers["reason"] == "internal_error"
    assert RecordingJob.decode(letter.body).call_id == call_id
    await eventually_clean(servers)


async def end_leases(servers: Servers) -> None:
    """End the lock of every recording, as its lease would some seconds after its worker died. Call it where all who have one did."""
    async with Redis.from_url(servers.stack.redis_url) as redis:
        for lock in await redis.keys("callfold:lock:*"):
            await redis.delete(lock)
