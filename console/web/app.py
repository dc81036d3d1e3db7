"""The console's HTTP application: routes, middlewares, security headers, and error responses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler

from console.page.render import CONTENT_SECURITY_POLICY
from console.web.access import AccessRules, Guard, access_middleware
from console.web.dead_letter_pages import DeadLetterPages
from console.web.event_streams import EventStreams
from console.web.openapi import document
from console.web.operations import Apis, operations
from console.web.page_responses import error_page, static_file
from console.web.pages import Pages
from console.web.problems import problem
from console.web.request_metrics import RequestMetrics
from console.web.routes import Answer, Operation, Route
from console.web.sessions import Sessions
from console.web.slots import RequestSlots
from console.web.webhook_pages import WebhookPages
from shared.errors import CallfoldError, UnavailableError
from shared.log import get_logger
from shared.outage import Outage
from shared.runtime.http_protocol import MAX_BODY_BYTES

log = get_logger(__name__)

_REJECTIONS = web.AppKey("rejections", Outage)
_HAS_BEGUN = web.RequestKey("has_begun", bool)
_UNAVAILABLE = "Redis, RabbitMQ, the archive or the history is unavailable. Try again soon."
_INVALID_BODY = "The body of the request is not valid HTTP, or ended too soon."
_TITLES = {
    408: "The body of the request took too long. Send it again.",
    415: "A body with a Content-Encoding is not supported. Send it without one.",
}
_UNENCODED = frozenset({"", "identity"})
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}


@dataclass(frozen=True, slots=True)
class PageHandlers:
    """The handlers of the pages and of log-in."""

    main: Pages
    dead_letters: DeadLetterPages
    webhooks: WebhookPages
    sessions: Sessions
    slots: RequestSlots


def make_app(apis: Apis, pages: PageHandlers, guard: Guard) -> web.Application:
    """Create the application."""
    routes = [*_with_description(operations(apis)), *page_routes(pages, apis.events)]
    rules = AccessRules(
        public=_patterns(routes, lambda route: route.is_public),
        pages=_patterns(routes, lambda route: route.operation is None and route.method == "GET" and not route.is_public),
        read_only=_patterns(routes, lambda route: route.is_read_only),
    )
    app = web.Application(client_max_size=MAX_BODY_BYTES)
    app.middlewares.append(RequestMetrics(routes).middleware())
    answer_errors(app)
    app.middlewares.append(access_middleware(guard, rules))
    app.on_response_prepare.append(_add_headers)
    for route in routes:
        resource = app.router.add_resource(route.path)
        resource.add_route(route.method, route.bounded_handler())
        if route.method == "GET" and not route.is_endless:
            resource.add_route("HEAD", route.bounded_handler())
    return app


def _with_description(routes: list[Route]) -> list[Route]:
    """Add the route of `openapi.json`, which describes the routes and itself."""

    async def openapi(_: web.Request) -> web.Response:
        return web.Response(body=body, content_type="application/json")

    operation = Operation("Get this document", {200: Answer("OpenAPI 3.1.")})
    described = [*routes, Route("GET", "/openapi.json", openapi, operation, is_public=True)]
    body = orjson.dumps(document(described))
    return described


def _patterns(routes: Sequence[Route], has_property: Callable[[Route], bool]) -> frozenset[str]:
    return frozenset(route.path for route in routes if has_property(route))


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    request[_HAS_BEGUN] = True
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers.pop("Server", None)


def answer_errors(app: web.Application) -> None:
    """Answer the errors of all handlers and of the middlewares that are added later."""
    app[_REJECTIONS] = Outage(log, "console_request_rejected_503", "console_requests_answered")
    app.middlewares.append(_answer_errors)


@web.middleware
async def _answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer errors: with a page if the client accepts HTML, otherwise with problem details."""
    try:
        return await _ungrouped(handler, request)
    except (web.HTTPRedirection, ConnectionError):  # the latter: the client has disconnected
        raise
    except web.RequestPayloadError:
        status, title, headers = 400, _INVALID_BODY, {}
    except web.HTTPException as error:
        status, title = error.status, _TITLES.get(error.status, f"{error.reason}.")
        headers = {name: value for name, value in error.headers.items() if name in {"Allow", "Retry-After"}}
    except UnavailableError as error:
        request.app[_REJECTIONS].failed(str(error), task=_route(request), path=request.path)
        status, title, headers = 503, _UNAVAILABLE, {"Retry-After": "5"}
    except CallfoldError as error:
        status, title, headers = 503, str(error), {"Retry-After": "5"}
    except Exception:
        log.exception("console_request_failed", path=request.path)
        status, title, headers = 500, "The console failed unexpectedly. The cause is in its log.", {}
    if _HAS_BEGUN in request:
        # An error sent now would be taken for the rest of the body.
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError(title)
    if "text/html" in request.headers.get("Accept", ""):
        return error_page(request, status, "Request failed", title)
    return problem(status, title, headers)


async def _ungrouped(handler: Handler, request: web.Request) -> web.StreamResponse:
    """Answer a request. An error from a task group, as connections use them, is raised without its group."""
    if request.body_exists and request.headers.get("Content-Encoding", "").lower() not in _UNENCODED:
        raise web.HTTPUnsupportedMediaType
    try:
        response = await handler(request)
    except ExceptionGroup as group:
        error: Exception = group
        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
        raise error from group
    request.app[_REJECTIONS].succeeded(task=_route(request))
    return response


def _route(request: web.Request) -> object:
    """Return the route without the values in its path: a server is back for a route once that route works."""
    return request.match_info.route.resource


def page_routes(pages: PageHandlers, streams: EventStreams) -> list[Route]:
    """List the routes for people."""
    main, dead_letters, sessions = pages.main, pages.dead_letters, pages.sessions
    return [
        Route("GET", "/", main.live, slots=pages.slots.lookups),
        Route("GET", "/live", streams.live, is_endless=True),
        Route("GET", "/ui/find", main.find, slots=pages.slots.lookups),
        Route("GET", "/ui/calls", main.calls, slots=pages.slots.lookups),
        Route("GET", "/ui/calls.csv", main.calls_csv, slots=pages.slots.lookups),
        Route("GET", "/ui/calls/{source}/{call}", main.call, slots=pages.slots.details),
        Route("GET", "/ui/dead-letters", dead_letters.show, slots=pages.slots.looks),
        Route("GET", "/ui/dead-letters/redrive", dead_letters.confirm_redrive, slots=pages.slots.looks),
        Route("POST", "/ui/dead-letters/redrive", dead_letters.redrive, slots=pages.slots.changes),
        Route("GET", "/ui/dead-letters/drop", dead_letters.confirm_drop, slots=pages.slots.looks),
        Route("POST", "/ui/dead-letters/drop", dead_letters.drop, slots=pages.slots.changes),
        Route("GET", "/webhooks", pages.webhooks.list, slots=pages.slots.lookups),
        Route("POST", "/webhooks", pages.webhooks.add, slots=pages.slots.endpoint_changes),
        Route("GET", "/webhooks/{name}", pages.webhooks.show, slots=pages.slots.lookups),
        Route("POST", "/webhooks/{name}", pages.webhooks.act, slots=pages.slots.endpoint_changes),
        Route("GET", "/ui/adapter", main.adapter),
        Route("POST", "/ui/adapter", main.adapter, is_read_only=True),
        Route("GET", "/static/{name}", static_file, is_public=True),
        Route("GET", "/login", sessions.form, is_public=True),
        Route("POST", "/login", sessions.log_in, is_public=True),
        Route("POST", "/logout", sessions.log_out, is_read_only=True),
    ]
