"""A download that takes long does not keep its delivery, and is neither lost nor told twice for it."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import AbstractAsyncContextManager

import aio_pika
from aiohttp import web

from console.local.processes import Fleet
from tests.helpers.pace import LIMIT_S
from tests.helpers.recordings import (
    GUID,
    WAV,
    Pbx,
    exists,
    file_of,
    job,
    nothing_left,
    sidecar_of,
    submit,
    worker,
)
from tests.helpers.servers import RETRY_S, Servers, eventually, exit_code, next_events, next_new, waiting_events

HALF = len(WAV) // 2
WAITING = [f"recordings.retry.{wait_s:g}s" for wait_s in RETRY_S]


class Slow:
    """Serves half a recording, waits for as long as the test wants, and goes on as it says."""

    def __init__(self, pbx: Pbx, call_id: str = "7") -> None:
        self.go_on = asyncio.Event()
        self.breaks = False
        pbx.serve[call_id] = self.serve

    async def serve(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = len(WAV)
        await response.prepare(request)
        await response.write(WAV[:HALF])
        await self.go_on.wait()
        if self.breaks and request.transport:
            self.breaks = False
            request.transport.abort()
        if request.transport and not request.transport.is_closing():
            await response.write(WAV[HALF:])
        return response


def _worker(servers: Servers, pbx: Pbx, **settings: str) -> AbstractAsyncContextManager[Fleet]:
    settings |= {"CALLFOLD_RECORDING_ACK_SECONDS": "0.5", "CALLFOLD_RECORDING_STALL_SECONDS": f"{LIMIT_S:g}"}
    return worker(servers, pbx, CALLFOLD_RECORDING_CONCURRENCY="1", **settings)


async def _waits_nowhere(servers: Servers) -> bool:
    """Whether no copy is in the broker; queues come in the order in which one passes through them."""
    for name in (*WAITING, "recordings", "recordings.dead"):
        async with servers.queue(name) as found:
            if found.declaration_result.message_count:
                return False
    return True


async def _end_copies(servers: Servers, fleet: Fleet) -> None:
    """Wait until no copy is left, and stop the worker: what it had in hand would be in the broker again."""
    (role,) = fleet.processes
    while True:
        await eventually(lambda: _waits_nowhere(servers))
        await role.stop()
        if await _waits_nowhere(servers):
            return
        await role.start()


async def _copies_have_come(servers: Servers, queue: aio_pika.abc.AbstractQueue) -> None:
    """Send other jobs the way that copies go, one after the other: a copy has come round once both are done."""
    for call_id in ("90", "91"):
        async with servers.queue(WAITING[0]) as waiting:
            await waiting.channel.default_exchange.publish(aio_pika.Message(job(call_id, guid=None).encode()), waiting.name)
        (event,) = await next_events(queue, 1)
        assert event.body["data"]["call_id"] == call_id


async def test_a_long_download_gives_its_place_and_delivery_to_others_and_is_told_once(servers: Servers, pbx: Pbx) -> None:
    slow = Slow(pbx)
    async with servers.subscribed("recording.#") as queue, _worker(servers, pbx) as fleet:
        await submit(servers, job().encode())
        await eventually(lambda: _asked(pbx, 1))
        await submit(servers, job("8", guid=None).encode())
        (other,) = await next_events(queue, 1)
        assert other.body["data"]["call_id"] == "8", "the only place was given up"
        await _copies_have_come(servers, queue)  # and found the recording locked
        assert await waiting_events(queue) == []
        assert not file_of(servers, "wav").exists()
        slow.go_on.set()
        (event,) = await next_events(queue, 1)
        assert (event.message_id, event.body["data"]["attempts"]) == (f"acme/513/recording/{GUID}/stored", 1)
        await _end_copies(servers, fleet)
        assert await waiting_events(queue) == [], "its copy tells nothing"
    assert pbx.asked["7"] == 1
    assert file_of(servers, "wav").read_bytes() == WAV
    assert nothing_left(servers)


async def test_a_long_download_that_fails_is_tried_again_once_and_counted_once(servers: Servers, pbx: Pbx) -> None:
    slow = Slow(pbx)
    slow.breaks = True
    async with servers.subscribed("recording.#") as queue, _worker(servers, pbx) as fleet:
        await submit(servers, job().encode(), job("8", guid=None).encode())
        await next_events(queue, 1)
        slow.go_on.set()
        (event,) = await next_events(queue, 1)
        assert event.body["data"]["attempts"] == 2
        await _end_copies(servers, fleet)
        assert await waiting_events(queue) == []
    assert pbx.asked["7"] == 2
    assert sidecar_of(servers)["recording"]["state"] == "stored"


async def test_the_copy_of_a_worker_that_died_is_the_job(servers: Servers, pbx: Pbx) -> None:
    slow = Slow(pbx)
    async with servers.subscribed("recording.#") as queue, _worker(servers, pbx) as fleet:
        await submit(servers, job().encode(), job("8", guid=None).encode())
        (other,) = await next_events(queue, 1)  # so the broker has the ack
        victim = fleet.processes.pop()
        os.kill(victim.pid, signal.SIGKILL)
        await exit_code(victim)
        del pbx.serve["7"]
        slow.go_on.set()
        await fleet.add("heir", "worker", {}).start()
        (event,) = await next_new(queue, 1, [other])  # its lock outlives the victim
        assert (event.message_id, event.body["data"]["attempts"]) == (f"acme/513/recording/{GUID}/stored", 1)
        await eventually(lambda: exists(file_of(servers, "wav")))
        await _end_copies(servers, fleet)
        assert [told for told in await waiting_events(queue) if told not in (other, event)] == []
    assert pbx.asked["7"] == 2
    assert nothing_left(servers)


async def _asked(pbx: Pbx, times: int) -> bool:
    return pbx.asked["7"] == times
