"""What goes wrong with us ends as what goes wrong with the PBX does: tried again, then told with its reason, nothing left."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import aio_pika
from aiohttp import web
from redis.asyncio import Redis

from console.local.processes import ServiceProcess
from tests.helpers.pace import LIMIT_S
from tests.helpers.recordings import (
    WAV,
    Pbx,
    ended_by_us,
    file_of,
    job,
    sidecar_of,
    submit,
    worker,
)
from tests.helpers.servers import Servers, eventually, next_events, taken_from


async def test_a_recording_whose_sidecar_cannot_be_written_at_all_is_tried_again_then_told_and_the_job_kept(
    servers: Servers, pbx: Pbx
) -> None:
    too_large = "9" * 20  # a CallID may have so many digits; no number in a sidecar can
    async with servers.subscribed("recording.#") as queue, worker(servers, pbx):
        await submit(servers, job(too_large, guid=None).encode())
        await ended_by_us(servers, queue, too_large, attempts=3)
    assert pbx.asked[too_large] == 3
    assert not file_of(servers, "json", f"call-{too_large}").exists()


async def test_an_end_that_cannot_be_noted_is_told_all_the_same(servers: Servers, pbx: Pbx) -> None:
    pbx.answers["7"] = [web.Response(status=404) for _ in range(3)]
    async with servers.subscribed("recording.#") as queue, worker(servers, pbx):
        async with aclosing(Redis.from_url(servers.stack.redis_url)) as redis:
            await redis.set("callfold:note:acme/513/recording/call-7", "damaged")
        await submit(servers, job(guid=None).encode())
        await ended_by_us(servers, queue, "7", attempts=3)
    told = sidecar_of(servers, "call-7")["recording"]
    assert (told["state"], told["reason"], told["attempts"]) == ("failed", "internal_error", 3)


async def test_an_end_that_cannot_be_told_leaves_the_job_with_the_broker(servers: Servers, pbx: Pbx) -> None:
    is_asked, is_away = asyncio.Event(), asyncio.Event()

    async def refuse_while_the_broker_is_away(_: web.Request) -> web.Response:
        is_asked.set()
        await is_away.wait()
        return web.Response(status=302, headers={"Location": "http://[::1]/"})

    pbx.serve["7"] = refuse_while_the_broker_is_away
    async with worker(servers, pbx) as fleet, aclosing(Redis.from_url(servers.stack.redis_url)) as redis:
        await redis.set("callfold:note:acme/513/recording/call-7", "damaged")
        await submit(servers, job(guid=None).encode(), attempts=20)
        await is_asked.wait()
        await servers.stack.rabbitmq.stop()
        is_away.set()
        await eventually(lambda: _has_logged(fleet.processes[0], "outcome_not_recorded"))
        await servers.stack.rabbitmq.start()
        letters = await eventually(lambda: servers.take_all("recordings.dead"))
    assert {letter.headers["reason"] for letter in letters} == {"internal_error"}
    assert sidecar_of(servers, "call-7")["recording"]["reason"] == "internal_error"


async def _has_logged(role: ServiceProcess, event: str) -> bool:
    return event in role.log_path.read_text()


async def test_a_job_that_comes_back_without_end_is_ended_before_the_broker_does_it_silently(servers: Servers, pbx: Pbx) -> None:
    await submit(servers, job().encode())
    for _ in range(12):
        await eventually(lambda: _given_back(servers))
    async with servers.subscribed("recording.#") as queue, worker(servers, pbx):
        (event,) = await next_events(queue, 1)
        assert (event.routing_key, event.body["data"]["attempts"]) == ("recording.stored.acme", 2), "that was a try"
    assert pbx.asked["7"] == 1, "it waited before anybody was asked"
    assert file_of(servers, "wav").read_bytes() == WAV


async def _given_back(servers: Servers) -> bool:
    """Take a job as a worker does that dies over it."""
    async with await aio_pika.connect(servers.stack.amqp_url, timeout=LIMIT_S) as connection:
        channel = await connection.channel()
        queue = await channel.get_queue("recordings", ensure=False)
        return await taken_from(queue, no_ack=False) is not None
