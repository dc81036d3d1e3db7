"""What goes wrong with us ends as what goes wrong with the PBX does: tried again, then told with its reason, nothing left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any, NoReturn

import aio_pika
import pytest
from aiohttp import web
from redis.asyncio import Redis

from console.fleet import Role
from shared.recording import RecordingJob
from shared.settings import load_settings
from tests.helpers.pace import LIMIT_S
from tests.helpers.recordings import (
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
from tests.helpers.servers import Servers, eventually, next_events, waiting_events
from worker.partial import Partial
from worker.service import serve
from worker.whole import Recording, examine

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


async def _breaks_later(*_: object) -> NoReturn:
    await asyncio.sleep(0)  # what was begun before runs
    _breaks()


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

    def once(part: Partial, max_bytes: int, seen_bytes: int | None) -> Recording:
        if pending:
            pending.pop()()
        return examine(part, max_bytes, seen_bytes)

    monkeypatch.setattr("worker.fetch.examine", once)
    async with servers.subscribed("recording.#") as queue, _worker_here(servers, pbx, monkeypatch):
        await submit(servers, job().encode())
        (event,) = await next_events(queue, 1)
        assert (event.routing_key, event.body["data"]["attempts"]) == ("recording.stored.acme", 2)
    assert await servers.take_all("recordings.dead") == []


async def _is_clean(servers: Servers) -> bool:
    return nothing_left(servers)


async def _ended_by_us(servers: Servers, queue: aio_pika.abc.AbstractQueue, call_id: str, attempts: int) -> None:
    """See that a job ended in one event and one letter that tell of a fault of ours."""
    letter = await dead_letter(servers)
    (event,) = await next_events(queue, 1)
    assert await waiting_events(queue) == []
    assert (event.routing_key, event.message_id) == ("recording.failed.acme", f"acme/513/recording/call-{call_id}/failed")
    assert (event.body["data"]["reason"], event.body["data"]["attempts"]) == ("internal_error", attempts)
    assert letter.headers["reason"] == "internal_error"
    assert RecordingJob.decode(letter.body).call_id == call_id
    await eventually(lambda: _is_clean(servers))


async def test_a_recording_whose_sidecar_cannot_be_written_at_all_is_tried_again_then_told_and_the_job_kept(
    servers: Servers, pbx: Pbx
) -> None:
    too_large = "9" * 20  # a CallID may have so many digits; no number in a sidecar can
    async with servers.subscribed("recording.#") as queue, worker(servers, pbx):
        await submit(servers, job(too_large, guid=None).encode())
        await _ended_by_us(servers, queue, too_large, attempts=3)
    assert pbx.asked[too_large] == 3
    assert not file_of(servers, "json", f"call-{too_large}").exists()


async def test_an_end_that_cannot_be_noted_is_told_all_the_same(servers: Servers, pbx: Pbx) -> None:
    pbx.answers["7"] = [web.Response(status=404) for _ in range(3)]
    async with servers.subscribed("recording.#") as queue, worker(servers, pbx):
        async with aclosing(Redis.from_url(servers.stack.redis_url)) as redis:
            await redis.set("callfold:note:acme/513/recording/call-7", "damaged")
        await submit(servers, job(guid=None).encode())
        await _ended_by_us(servers, queue, "7", attempts=3)
    told = sidecar_of(servers, "call-7")["recording"]
    assert (told["state"], told["reason"], told["attempts"]) == ("failed", "internal_error", 3)


async def test_what_fails_beside_the_try_is_tried_again_then_told(
    servers: Servers, pbx: Pbx, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.recordings.has_ended", _breaks_later)
    async with servers.subscribed("recording.#") as queue, _worker_here(servers, pbx, monkeypatch):
        await submit(servers, job(guid=None).encode())
        await _ended_by_us(servers, queue, "7", attempts=3)
    assert pbx.asked == {}


async def test_what_fails_beside_the_try_after_the_recording_is_stored_is_told_as_stored(
    servers: Servers, pbx: Pbx, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.handover.Kept.end", _breaks_later)
    async with servers.subscribed("recording.#") as queue, _worker_here(servers, pbx, monkeypatch):
        await submit(servers, job().encode())
        letter = await dead_letter(servers)
        events = await next_events(queue, 4)
        assert await waiting_events(queue) == []
    assert letter.headers["reason"] == "internal_error"
    assert {event.message_id for event in events} == {f"acme/513/recording/{GUID}/stored"}
    assert all(event.body == events[0].body for event in events)
    assert pbx.asked["7"] == 1


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
        await eventually(lambda: _has_logged(fleet.roles[0], "end_not_noted"))
        await servers.stack.rabbitmq.start()
        letters = await eventually(lambda: servers.take_all("recordings.dead"))
    assert {letter.headers["reason"] for letter in letters} == {"internal_error"}
    assert sidecar_of(servers, "call-7")["recording"]["reason"] == "internal_error"


async def _has_logged(role: Role, event: str) -> bool:
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
        return await queue.get(fail=False) is not None
