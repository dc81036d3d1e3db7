"""Requests to the console are counted by route and by kind of status, and never by what a client sent."""

from __future__ import annotations

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client import REGISTRY

from console.web.app import answer_errors
from console.web.request_metrics import RequestMetrics
from console.web.routes import Route


async def _answer(request: web.Request) -> web.Response:
    if request.match_info["name"] == "elsewhere":
        raise web.HTTPSeeOther("/")
    if request.match_info["name"] == "broken":
        raise RuntimeError("a bug")
    return web.Response()


def _count(route: str, status: str) -> float | None:
    return REGISTRY.get_sample_value("callfold_console_requests_total", {"route": route, "status": status})


async def test_every_answer_counts_once_with_names_instead_of_values() -> None:
    routes = [Route("GET", "/counted/{name}", _answer), Route("GET", "/endless/{name}", _answer, is_endless=True)]
    app = web.Application()
    app.middlewares.append(RequestMetrics(routes).middleware())
    answer_errors(app)
    for route in routes:
        app.router.add_get(route.path, route.handler)
    paths = [route.path for route in routes]
    assert {_count(path, status) for path in paths for status in ("2xx", "3xx", "4xx", "5xx")} == {0}, "from the start"
    others = _count("other", "4xx") or 0
    async with TestClient(TestServer(app)) as client:
        for path in ("/counted/one", "/counted/two", "/counted/elsewhere", "/counted/broken", "/endless/one", "/nowhere/513"):
            async with client.get(path, allow_redirects=False):
                pass
        async with client.post("/counted/one"):
            pass
    assert [_count("/counted/{name}", status) for status in ("2xx", "3xx", "4xx", "5xx")] == [2, 1, 0, 1]
    assert _count("other", "4xx") == others + 2, "an unknown path, and a method that it does not have"
    seconds = [REGISTRY.get_sample_value("callfold_console_request_seconds_count", {"route": path}) for path in paths]
    assert seconds == [4, None]
