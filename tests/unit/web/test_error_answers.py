"""Requests that a missing server fails: each is answered 503, and the log has a line a minute."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from structlog.testing import capture_logs

from console.web.app import answer_errors
from shared.errors import StoreUnavailableError


class _Redis:
    def __init__(self) -> None:
        self.is_away = False

    async def look_up(self, _: web.Request) -> web.Response:
        if self.is_away:
            raise StoreUnavailableError("Redis does not answer")
        return web.Response()


async def _without_redis(_: web.Request) -> web.Response:
    return web.Response()


@asynccontextmanager
async def _console(redis: _Redis) -> AsyncIterator[TestClient[web.Request, web.Application]]:
    app = web.Application()
    answer_errors(app)
    app.router.add_get("/calls/{call}", redis.look_up)
    app.router.add_get("/calls", redis.look_up)
    app.router.add_get("/openapi.json", _without_redis)
    async with TestClient(TestServer(app)) as client:
        yield client


async def test_a_flood_of_rejections_is_one_line_and_one_when_every_route_works_again() -> None:
    structlog.configure(cache_logger_on_first_use=False)
    redis = _Redis()
    with capture_logs() as logs:
        async with _console(redis) as client:

            async def status(path: str) -> int:
                async with client.get(path) as response:
                    return response.status

            assert await status("/calls/1") == 200
            redis.is_away = True
            for number in range(50):
                assert await status(f"/calls/{number}") == 503
                assert await status("/calls") == 503
                assert await status("/openapi.json") == 200, "which is no sign that Redis is back"
            redis.is_away = False
            assert await status("/calls/999") == 200
            assert [line["event"] for line in logs] == ["console_request_rejected_503"]
            assert await status("/calls") == 200
    first, last = logs
    assert (first["path"], first["detail"], first["log_level"]) == ("/calls/0", "Redis does not answer", "warning")
    assert (last["event"], last["failures"]) == ("console_requests_answered", 100)
