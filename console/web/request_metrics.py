"""Counts the requests that the console answers, and measures how long each takes."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from console.web.routes import Route
from shared import metrics

_OTHER: Final = "other"
_CLASSES: Final = ("2xx", "3xx", "4xx", "5xx")


class RequestMetrics:
    """The series of each route. They begin with the application, and no label has what a client sent."""

    def __init__(self, routes: Iterable[Route]) -> None:
        paths = {route.path: route.is_endless for route in routes} | {_OTHER: False}
        self._requests = {(path, each): metrics.CONSOLE_REQUESTS.labels(path, each) for path in paths for each in _CLASSES}
        self._seconds = {
            path: metrics.CONSOLE_REQUEST_SECONDS.labels(path) for path, is_endless in paths.items() if not is_endless
        }

    def middleware(self) -> Middleware:
        """Return the middleware, which has to be the outermost one: errors are answers too."""

        @web.middleware
        async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
            began = time.perf_counter()
            resource = request.match_info.route.resource
            path = _OTHER if resource is None else resource.canonical
            try:
                response = await handler(request)
            except web.HTTPException as error:  # a redirection
                self._count(path, error.status, began)
                raise
            self._count(path, response.status, began)
            return response

        return count

    def _count(self, path: str, status: int, began: float) -> None:
        self._requests[path, f"{status // 100}xx"].inc()
        if path in self._seconds:
            self._seconds[path].observe(time.perf_counter() - began)
