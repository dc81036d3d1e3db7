"""Slots for look-ups: how many run and wait at once, whose turn it is, and what is refused."""

from __future__ import annotations

import asyncio
from unittest.mock import MagicMock

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from console.web.app import page_routes
from console.web.keys import IDENTITY, Identity, Role
from console.web.operations import operations
from console.web.routes import Route
from console.web.slots import Slots, TooBusyError
from tests.helpers.pace import LIMIT_S


class _Requests:
    """Requests that hold a slot until they are released."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self.running: list[str] = []
        self._releases: dict[str, asyncio.Event] = {}

    def send(self, name: str) -> asyncio.Task[None]:
        self._releases[name] = asyncio.Event()
        return asyncio.create_task(self._hold(name))

    async def _hold(self, name: str) -> None:
        async with self._slots.one(name[0]):
            self.running.append(name)
            await self._releases[name].wait()

    async def end(self, name: str) -> None:
        self._releases[name].set()
        await _settle()


async def _settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_as_many_as_there_are_slots_run_and_the_keys_that_wait_take_turns() -> None:
    requests = _Requests(Slots("look-ups", at_once=2, waiting=3, wait_s=LIMIT_S))
    tasks = [requests.send(name) for name in ("a1", "a2", "a3", "a4", "a5", "b1")]
    await _settle()
    assert requests.running == ["a1", "a2"]
    for name in ("a1", "a2", "a3", "b1", "a4"):
        await requests.end(name)
    assert requests.running == ["a1", "a2", "a3", "b1", "a4", "a5"]
    await requests.end("a5")
    await asyncio.gather(*tasks)


async def test_a_key_that_has_too_many_waiting_is_refused_at_once_and_another_is_not() -> None:
    slots = Slots("look-ups", at_once=1, waiting=1, wait_s=LIMIT_S)
    requests = _Requests(slots)
    tasks = [requests.send(name) for name in ("a1", "a2", "b1")]
    await _settle()
    with pytest.raises(TooBusyError, match="1 look-ups of this key wait already"):
        async with slots.one("a"):
            pass
    for name in ("a1", "a2", "b1"):
        await requests.end(name)
    await asyncio.gather(*tasks)


async def test_a_wait_ends_and_leaves_no_slot_taken() -> None:
    slots = Slots("look-ups", at_once=1, waiting=9, wait_s=0.01)
    requests = _Requests(slots)
    task = requests.send("a1")
    await _settle()
    with pytest.raises(TooBusyError, match="no slot for look-ups became free"):
        async with slots.one("a"):
            pass
    given_up = requests.send("b1")
    await _settle()
    given_up.cancel()
    await asyncio.gather(given_up, return_exceptions=True)
    await requests.end("a1")
    await task
    async with asyncio.timeout(LIMIT_S), slots.one("c"):
        assert requests.running == ["a1"]


async def test_a_request_that_gives_up_as_its_turn_comes_passes_the_slot_on() -> None:
    slots = Slots("look-ups", at_once=1, waiting=9, wait_s=LIMIT_S)
    requests = _Requests(slots)
    tasks = [requests.send(name) for name in ("a1", "a2", "a3")]
    await _settle()
    requests._releases["a1"].set()
    while not tasks[0].done():
        await asyncio.sleep(0)
    tasks[1].cancel()
    await asyncio.gather(tasks[1], return_exceptions=True)
    await _settle()
    await requests.end("a2")
    assert requests.running[-1] == "a3"
    await requests.end("a3")
    await asyncio.gather(tasks[0], tasks[2])


async def test_the_requests_of_a_route_with_slots_wait_for_them() -> None:
    slots = Slots("look-ups", at_once=1, waiting=9, wait_s=LIMIT_S)
    release = asyncio.Event()
    running: list[int] = []

    async def handler(_: web.Request) -> web.Response:
        running.append(len(running))
        await release.wait()
        return web.Response()

    bounded = Route("GET", "/calls", handler, slots=slots).bounded_handler()
    requests = [make_mocked_request("GET", "/calls") for _ in range(3)]
    for request in requests:
        request[IDENTITY] = Identity("key", Role.VIEWER)
    tasks = [asyncio.ensure_future(bounded(request)) for request in requests]
    await _settle()
    assert len(running) == 1
    release.set()
    assert [response.status for response in await asyncio.gather(*tasks)] == [200] * 3


def test_every_request_that_costs_much_needs_a_slot() -> None:
    """A new route has slots, or is cheap and named here."""
    routes = [*operations(MagicMock()), *page_routes(MagicMock(), MagicMock())]
    without = {f"{route.method} {route.path}" for route in routes if route.slots is None}
    dials_and_streams = {"POST /dial", "GET /events", "GET /live"}
    of_a_recording = ("", "/preview", "/waveform.svg")
    with_slots_of_their_own = {f"GET /recordings/{{source}}/{{guid}}{each}" for each in of_a_recording}
    only_text = {"GET /ui/adapter", "POST /ui/adapter", "GET /static/{name}", "GET /login", "POST /login", "POST /logout"}
    schemas = {"GET /schemas", "GET /schemas/{name}/{file}"}
    assert without == dials_and_streams | with_slots_of_their_own | only_text | schemas
