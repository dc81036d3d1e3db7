"""A receiver of webhooks that answers as a test wants: any status, not at all, with a reset, a redirect inward, or without end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import orjson
from aiohttp import web
from standardwebhooks.webhooks import Webhook

from tests.helpers.servers import eventually


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it arrived."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    at: float

    @property
    def event(self) -> Any:  # noqa: ANN401 - JSON
        return orjson.loads(self.body)

    @property
    def id(self) -> str:
        return str(self.event["id"])

    def verify(self, secret: str) -> None:
        """Check the signature as a receiver does, with the official library."""
        Webhook(secret).verify(self.body, dict(self.headers))


Answering = Callable[[web.Request], Awaitable[web.StreamResponse]]


def status(number: int, *, text: str = "", **headers: str) -> Answering:
    """Answer with a status; `retry_after="1"` becomes the header Retry-After."""
    named = {name.replace("_", "-").title(): value for name, value in headers.items()}

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=number, text=text, headers=named)

    return answer


async def hang(request: web.Request) -> web.StreamResponse:
    """Answer nothing, until the client goes away."""
    while request.transport is not None and not request.transport.is_closing():
        await asyncio.sleep(0.05)
    raise web.HTTPInternalServerError


async def reset(request: web.Request) -> web.StreamResponse:
    """End the connection without an answer."""
    assert request.transport is not None
    request.transport.abort()
    raise web.HTTPInternalServerError


def endless(number: int = 200, *, pause_s: float = 0.0) -> Answering:
    """Answer with a status and a body that does not end."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=number)
        await response.prepare(request)
        with suppress(ConnectionError):
            while request.transport is not None and not request.transport.is_closing():
                await response.write(b"x" * 4096)
                await asyncio.sleep(pause_s)
        return response

    return answer


@dataclass(slots=True)
class WebhookReceiver:
    """An HTTP server on loopback. `answers` are used up in turn for each event id, then `then` for all that follow.

    Attributes:
        received: every request, in the order of arrival.
        delivered: ids of the events that were answered with 2xx, in the order of the answers.
        inward: requests at `/inward`, where redirects lead to; nothing may follow them.
    """

    then: Answering = field(default_factory=lambda: status(200))
    answers: dict[str, list[Answering]] = field(default_factory=dict)
    received: list[Received] = field(default_factory=list)
    delivered: list[str] = field(default_factory=list)
    inward: int = 0
    port: int = 0
    _runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    @property
    def ids(self) -> list[str]:
        return [each.id for each in self.received]

    def redirect(self, number: int = 302) -> Answering:
        """Redirect to an address inside."""
        return status(number, location=f"http://127.0.0.1:{self.port}/inward")

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/hook", self._receive)
        app.router.add_route("*", "/inward", self._count)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _receive(self, request: web.Request) -> web.StreamResponse:
        loop = asyncio.get_running_loop()
        received = Received(request.path_qs, dict(request.headers), await request.read(), loop.time())
        self.received.append(received)
        left = self.answers.get(received.id)
        answer = left.pop(0) if left else self.then
        response = await answer(request)
        if response.status in range(200, 300):
            self.delivered.append(received.id)
        return response

    async def _count(self, _: web.Request) -> web.StreamResponse:
        self.inward += 1
        return web.Response()

    async def has(self, *ids: str) -> None:
        """Wait until each of these events is delivered: answered with 2xx."""

        async def are_there() -> bool:
            return {*ids} <= {*self.delivered}

        await eventually(are_there)
