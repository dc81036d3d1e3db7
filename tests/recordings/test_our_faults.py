"""What goes wrong with us ends as what goes wrong with the PBX does: tried again, then told with its reason, nothing left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NoReturn

import aio_pika
import pytest
from aiohttp import web

from shared.settings import load_settings
from tests.recordings.support import (
    GUID,
    WAV,
    Pbx,
    dead_letter,
    file_of,
    job,
    nothing_left,
    sidecar_of,
    sources_of,
    submit,
    worker,
)
from tests.support import Servers, eventually, next_events, waiting_events
from worker.service import serve
from worker.whole import examine

Failing = Callable[..., Any]


@asynccontextmanager
async def _worker_here(servers: Servers, pbx: Pbx, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """Run a worker in this process, where a test can break it."""
    for name, value in servers.environment(CALLFOLD_SOURCES=sources_of(servers, pbx)).items():
        monkeypatch.setenv(name, value)
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(serve(load_settings(), stop))
        try:
            yield
        finally:
            stop.set()


def _breaks(*_: object, **__: object) -> NoReturn:
    raise RuntimeError("sectok=3511b272f4fb03ecf900b80b1cc5b8fe")


async def _resumable(_: web.Request) -> web.Response:
    return web.Response(body=WAV, content_type="audio/wav", headers={"ETag": '"a"'})


async def test_a_fault_of_ours_is_tried_again_then_told_and_the_job_kept(
    servers: Servers, pbx: Pbx, monkeypatch: pytest.MonkeyPatch
) -> None:
    pbx.serve["7"] = _resumable
    parts: list[int] = []

    def fails(*_: object, **__: object) -> NoReturn:
        parts.append(len(list((servers.directory / "downloads").iterdir())))
        _breaks()

    monkeypatch.setattr("worker.fetch.examine", fails)
    async with servers.subscribed("recording.#") as queue, _worker_here(servers, pbx, monkeypatch):
        await submit(servers, job().encode())
        (event,) = await next_events(queue, 1)
        assert (event.routing_key, event.message_id) == ("recording.failed.acme", f"acme/513/recording/{GUID}/failed")
        assert (event.body["data"]["reason"], event.body["data"]["attempts"]) == ("internal_error", 3)
        letter = await dead_letter(servers)
        await eventually(lambda: _is_clean(servers))
        assert await waiting_events(queue) == []
    assert parts == [2, 2, 2], "a part and its note were there"
    assert (letter.headers["reason"], letter.headers["detail"]) == ("internal_error", "RuntimeError: see the worker's log")
    assert (sidecar_of(servers)["recording"]["state"], sidecar_of(servers)["recording"]["reason"]) == ("failed", "internal_error")


async def test_a_fault_that_passes_costs_a_try(servers: Servers, pbx: Pbx, monkeypatch: pytest.MonkeyPatch) -> None:
    pending: list[Failing] = [_breaks]

    def once(*given: object) -> object:
        return (pending.pop() if pending else examine)(*given)

    monkeypatch.setattr("worker.fetch.examine", once)
    async with servers.subscribed("recording.#") as queue, _worker_here(servers, pbx, monkeypatch):
        await submit(servers, job().encode())
        (event,) = await next_events(queue, 1)
        assert (event.routing_key, event.body["data"]["attempts"]) == ("recording.stored.acme", 2)
    assert await servers.take_all("recordings.dead") == []


async def _is_clean(servers: Servers) -> bool:
    return nothing_left(servers)


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
    async with await aio_pika.connect(servers.stack.amqp_url, timeout=10) as connection:
        channel = await connection.channel()
        queue = await channel.get_queue("recordings", ensure=False)
        return await queue.get(fail=False) is not None
