"""Faults of ours while a recording is stored, in a worker of this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NoReturn

import pytest
from aiohttp import web

from shared.archive.sidecar import Sidecar
from shared.config.settings import load_settings
from shared.retention.recording_lock import Lock
from tests.helpers.pace import LIMIT_S
from tests.helpers.recordings import (
    GUID,
    WAV,
    Pbx,
    dead_letter,
    ended_by_us,
    eventually_clean,
    job,
    sidecar_of,
    sources_of,
    submit,
)
from tests.helpers.servers import Servers, next_events, waiting_events
from tests.helpers.settings import settings_here
from worker.download.inspection import Recording, examine
from worker.download.partial_file import Partial
from worker.recordings.attempt import Attempt
from worker.recordings.consumer import RecordingConsumer
from worker.recordings.job_outcome import Retry
from worker.service import serve

Failing = Callable[..., Any]


@asynccontextmanager
async def _worker_here(servers: Servers, pbx: Pbx, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """Run a worker in this process, where a test can break it."""
    # An event whose confirm is late would be published twice.
    limits = {"CALLFOLD_PUBLISH_TIMEOUT_SECONDS": f"{LIMIT_S:g}"}
    settings_here(monkeypatch, servers.environment(CALLFOLD_SOURCES=sources_of(servers, pbx), **limits))
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

    monkeypatch.setattr("worker.download.client.examine", fails)
    async with servers.subscribed("recording.#") as queue, _worker_here(servers, pbx, monkeypatch):
        await submit(servers, job().encode())
        (event,) = await next_events(queue, 1)
        assert (event.routing_key, event.message_id) == ("recording.failed.acme", f"acme/513/recording/{GUID}/failed")
        assert (event.body["data"]["reason"], event.body["data"]["attempts"]) == ("internal_error", 3)
        letter = await dead_letter(servers)
        await eventually_clean(servers)
        assert await waiting_events(queue) == []
    assert parts == [2, 2, 2], "a part and its note were there"
    assert (letter.headers["reason"], letter.headers["detail"]) == ("internal_error", "RuntimeError: see the worker's log")
    assert (sidecar_of(servers)["recording"]["state"], sidecar_of(servers)["recording"]["reason"]) == ("failed", "internal_error")


async def test_a_fault_that_passes_costs_a_try(servers: Servers, pbx: Pbx, monkeypatch: pytest.MonkeyPatch) -> None:
    pending: list[Failing] = [_breaks]

    def once(part: Partial, max_bytes: int, *seen: int | None) -> Recording:
        if pending:
            pending.pop()()
        return examine(part, max_bytes, *seen)

    monkeypatch.setattr("worker.download.client.examine", once)
    async with servers.subscribed("recording.#") as queue, _worker_here(servers, pbx, monkeypatch):
        await submit(servers, job().encode())
        (event,) = await next_events(queue, 1)
        assert (event.routing_key, event.body["data"]["attempts"]) == ("recording.stored.acme", 2)
    assert await servers.take_all("recordings.dead") == []


async def test_what_fails_as_an_outcome_is_acted_on_is_handled_under_the_lock(
    servers: Servers, pbx: Pbx, monkeypatch: pytest.MonkeyPatch
) -> None:
    pending: list[Failing] = [_breaks]
    has_lock: list[bool] = []
    retry = RecordingConsumer._retry

    def once(part: Partial, max_bytes: int, *seen: int | None) -> Recording:
        if pending:
            pending.pop()()
        return examine(part, max_bytes, *seen)

    async def fails_first(
        self: RecordingConsumer, outcome: Retry, attempt: Attempt, sidecar: Sidecar | None, lock: Lock | None
    ) -> None:
        has_lock.append(lock is not None)
        if len(has_lock) == 1:
            _breaks()
        await retry(self, outcome, attempt, sidecar, lock)

    monkeypatch.setattr("worker.download.client.examine", once)
    monkeypatch.setattr(RecordingConsumer, "_retry", fails_first)
    async with servers.subscribed("recording.#") as queue, _worker_here(servers, pbx, monkeypatch):
        await submit(servers, job().encode())
        (event,) = await next_events(queue, 1)
    assert (event.routing_key, event.body["data"]["attempts"], has_lock) == ("recording.stored.acme", 2, [True, True])


async def test_what_fails_beside_the_try_is_tried_again_then_told(
    servers: Servers, pbx: Pbx, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.recordings.consumer.is_noted_done", _breaks_later)
    async with servers.subscribed("recording.#") as queue, _worker_here(servers, pbx, monkeypatch):
        await submit(servers, job(guid=None).encode())
        await ended_by_us(servers, queue, "7", attempts=3)
    assert pbx.asked == {}


async def test_what_fails_beside_the_try_after_the_recording_is_stored_is_told_as_stored(
    servers: Servers, pbx: Pbx, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.recordings.early_ack.HeldDelivery.note_done", _breaks_later)
    async with servers.subscribed("recording.#") as queue, _worker_here(servers, pbx, monkeypatch):
        await submit(servers, job().encode())
        letter = await dead_letter(servers)
        events = await next_events(queue, 4)
        assert await waiting_events(queue) == []
    assert letter.headers["reason"] == "internal_error"
    assert {event.message_id for event in events} == {f"acme/513/recording/{GUID}/stored"}
    assert all(event.body == events[0].body for event in events)
    assert pbx.asked["7"] == 1
