"""The console's HTTP application: its routes, what goes round every request, and how errors are answered."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from console.page.render import CONTENT_SECURITY_POLICY
from console.web.access import Doors, Keys, guard
from console.web.live import LiveApi
from console.web.openapi import document
from console.web.operations import Apis, operations
from console.web.pages import Pages
from console.web.problems import problem
from console.web.routes import Answer, Operation, Route
from console.web.sessions import Ended, Sessions
from shared.errors import CallfoldError, UnavailableError
from shared.log import get_logger

log = get_logger(__name__)

BEGUN = web.RequestKey("begun", bool)
_MAX_BODY_BYTES = 64 * 1024
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}


def make_app(apis: Apis, keys: Keys, ended: Ended) -> web.Application:
    """Put the application together."""

    async def openapi(_: web.Request) -> web.Response:
        return web.Response(body=described, content_type="application/json")

    itself = Operation("This document", {200: Answer("OpenAPI 3.1.")})
    described_by = Route("GET", "/openapi.json", openapi, itself, is_public=True)
    routes = [*operations(apis), described_by, *_pages(apis.pages, apis.live), *_sessions(apis.sessions)]
    described = orjson.dumps(document(routes))
    doors = Doors(
        public=_patterns(routes, lambda route: route.is_public),
        pages=_patterns(routes, lambda route: route.operation is None and route.method == "GET" and not route.is_public),
        harmless=_patterns(routes, lambda route: route.is_harmless),
    )
    app = web.Application(
        middlewares=[_answer_errors(apis.pages), guard(keys, doors, ended.has)], client_max_size=_MAX_BODY_BYTES
    )
    app.on_response_prepare.append(_harden)
    for route in routes:
        resource = app.router.add_resource(route.path)
        resource.add_route(route.method, route.checked())
        if route.method == "GET" and not route.is_endless:
            resource.add_route("HEAD", route.checked())
    return app


def _patterns(routes: Sequence[Route], wanted: Callable[[Route], bool]) -> frozenset[str]:
    return frozenset(route.path for route in routes if wanted(route))


async def _harden(request: web.Request, response: web.StreamResponse) -> None:
    request[BEGUN] = True
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers.pop("Server", None)


def _answer_errors(pages: Pages) -> Middleware:
    """Make the middleware that answers errors: as a page where a browser wants one, as problem details elsewhere."""

    @web.middleware
    async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await _ungrouped(handler, request)
        except (web.HTTPRedirection, ConnectionError):  # the latter: who asked has gone
            raise
        except web.HTTPException as error:
            status, title = error.status, f"{error.reason}."
            headers = {name: value for name, value in error.headers.items() if name in {"Allow", "Retry-After"}}
        except UnavailableError as error:
            log.warning("console_unavailable", path=request.path, detail=str(error))
            status, title, headers = 503, "A server that is needed is away; try again soon.", {"Retry-After": "5"}
        except CallfoldError as error:
            status, title, headers = 503, str(error), {"Retry-After": "5"}
        except Exception:
            log.exception("console_fault", path=request.path)
            status, title, headers = 500, "Something went wrong here; the log tells what.", {}
        if BEGUN in request:
            # The rest of a body that has begun: an error in its place would be taken for it.
            if request.transport is not None:
                request.transport.abort()
            raise ConnectionResetError(title)
        if "text/html" in request.headers.get("Accept", ""):
            return pages.error(request, status, "This did not work", title)
        return problem(status, title, headers)

    return answer


async def _ungrouped(handler: Handler, request: web.Request) -> web.StreamResponse:
    """Answer a request; an error that ended a connection's tasks, which so comes in a group of theirs, comes as itself."""
    try:
        return await handler(request)
    except ExceptionGroup as group:
        error: Exception = group
        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
        raise error from group


def _pages(pages: Pages, live: LiveApi) -> list[Route]:
    return [
        Route("GET", "/", pages.live),
        Route("GET", "/live", live.live, is_endless=True),
        Route("GET", "/ui/find", pages.find),
        Route("GET", "/ui/calls", pages.calls),
        Route("GET", "/ui/calls.csv", pages.calls_csv),
        Route("GET", "/ui/calls/{source}/{call}", pages.call),
        Route("GET", "/ui/dead-letters", pages.letters),
        Route("GET", "/ui/dead-letters/redrive", pages.redrive),
        Route("POST", "/ui/dead-letters/redrive", pages.redrive_now),
        Route("GET", "/ui/adapter", pages.adapter),
        Route("POST", "/ui/adapter", pages.adapter, is_harmless=True),
        Route("GET", "/static/{name}", pages.static, is_public=True),
    ]


def _sessions(sessions: Sessions) -> list[Route]:
    return [
        Route("GET", "/login", sessions.login, is_public=True),
        Route("POST", "/login", sessions.log_in, is_public=True),
        Route("POST", "/logout", sessions.log_out, is_harmless=True),
    ]
