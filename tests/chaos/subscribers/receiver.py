"""A receiver of webhooks that answers most events wrongly at first: every kind of status, no answer, a reset, a redirect.

    python -m tests.chaos.subscribers.receiver DIRECTORY PORT SECRET

An event counts as received when it is answered 2xx. What it answers before depends on the id of the event alone.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from hashlib import blake2b
from pathlib import Path

from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

from tests.chaos.subscribers.received import ReceivedLog

TIMEOUT_S = 2
"""After which the forwarder gives an attempt up; a hanging answer takes longer."""
NAMES = ("webhook", "webhook-ordered")
_HANG_S = 2.0 * TIMEOUT_S
_INSIDE = "/inside"
_ENDLESS_BYTES = 8 << 20
_CHUNK = b"x" * 65536


class Receiver:
    """The endpoints `/webhook` and `/webhook-ordered`, and `/inside`, which no redirect may reach."""

    def __init__(self, directory: Path, secret: str) -> None:
        self._logs = {name: ReceivedLog(directory, name) for name in NAMES}
        self._webhook = Webhook(secret)
        self._attempts = Counter[tuple[str, str]]()
        self._wrong: tuple[Callable[[web.Request], Awaitable[web.StreamResponse]], ...] = (
            *(self._answer(status) for status in (301, 302, 307, 400, 401, 403, 404, 408, 409, 422, 500, 502, 504)),
            self._answer(429, {"Retry-After": "1"}),
            self._answer(503, {"Retry-After": "1"}),
            self._hang,
            self._reset,
        )

    def app(self) -> web.Application:
        app = web.Application(client_max_size=4 << 20)
        for name in NAMES:
            app.router.add_post(f"/{name}", self._receive)
        app.router.add_route("*", _INSIDE, self._reached)
        return app

    async def _receive(self, request: web.Request) -> web.StreamResponse:
        name, body = request.path.removeprefix("/"), await request.read()
        try:
            self._webhook.verify(body, dict(request.headers), json_parse=False)
        except WebhookVerificationError as error:
            self._logs[name].object(f"a signature that is wrong: {error}")
            return web.Response(status=401)
        event_id = request.headers["webhook-id"]
        number = self._attempts[name, event_id]
        self._attempts[name, event_id] += 1
        drawn = blake2b(event_id.encode(), digest_size=4).digest()
        if number < drawn[0] % 3:
            return await self._wrong[drawn[1 + number] % len(self._wrong)](request)
        self._logs[name].add(body)
        return await self._endless(request) if drawn[3] % 16 == 0 else web.Response(status=(200, 201, 202, 204)[drawn[3] % 4])

    async def _reached(self, request: web.Request) -> web.Response:
        self._logs[NAMES[0]].object(f"a redirect that was followed with {request.method}")
        return web.Response()

    @staticmethod
    def _answer(status: int, headers: Mapping[str, str] | None = None) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def answer(request: web.Request) -> web.Response:
            location = {"Location": f"http://{request.host}{_INSIDE}"} if status < web.HTTPBadRequest.status_code else {}
            return web.Response(status=status, headers={**(headers or {}), **location}, text="not now")

        return answer

    @staticmethod
    async def _hang(request: web.Request) -> web.Response:
        del request
        await asyncio.sleep(_HANG_S)
        return web.Response(status=500)

    @staticmethod
    async def _reset(request: web.Request) -> web.Response:
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=500)

    @staticmethod
    async def _endless(request: web.Request) -> web.StreamResponse:
        """Accept the event, with an answer that nobody should read to its end."""
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(_ENDLESS_BYTES // len(_CHUNK)):
            await response.write(_CHUNK)
        return response


async def main() -> None:
    directory, port, secret = sys.argv[1:]
    runner = web.AppRunner(Receiver(Path(directory), secret).app(), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", int(port)).start()
    ReceivedLog.ready()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
