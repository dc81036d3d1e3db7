"""The console's HTTP application: its routes, what goes round every request, and how errors are answered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from console.calls import CallQuery
from console.dialing import DialRequest
from console.page.render import CONTENT_SECURITY_POLICY
from console.web import models
from console.web.access import Doors, Keys, guard
from console.web.calls_api import CSV, CallsApi
from console.web.dial_api import DialApi
from console.web.letters_api import LettersAction, LettersApi, LettersQuery
from console.web.live import LiveApi
from console.web.openapi import Problem, document
from console.web.pages import Pages
from console.web.problems import PROBLEM, problem
from console.web.recordings_api import RecordingsApi
from console.web.routes import Answer, Operation, Route
from console.web.sessions import Ended, Sessions
from shared.errors import CallfoldError, UnavailableError
from shared.log import get_logger

log = get_logger(__name__)

BEGUN = web.RequestKey("begun", bool)
_MAX_BODY_BYTES = 64 * 1024
_SOURCE = "^[a-z0-9][a-z0-9_-]{0,62}$"
_CALL_PATTERN = r"^(\d{1,20}|call-\d{1,20})$"
_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}


@dataclass(frozen=True, slots=True)
class Apis:
    """What answers requests."""

    dial: DialApi
    calls: CallsApi
    recordings: RecordingsApi
    letters: LettersApi
    live: LiveApi
    pages: Pages
    sessions: Sessions


def make_app(apis: Apis, keys: Keys, ended: Ended) -> web.Application:
    """Put the application together."""
    routes = [*_api(apis), *_pages(apis.pages, apis.live), *_sessions(apis.sessions)]
    described = orjson.dumps(document(routes))

    async def openapi(_: web.Request) -> web.Response:
        return web.Response(body=described, content_type="application/json")

    routes.append(Route("GET", "/openapi.json", openapi, is_public=True))
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
        resource.add_route(route.method, route.handler)
        if route.method == "GET" and not route.is_endless:
            resource.add_route("HEAD", route.handler)
    return app


def _patterns(routes: Sequence[Route], wanted: Callable[[Route], bool]) -> frozenset[str]:
    return frozenset(route.path for route in routes if wanted(route))


async def _harden(request: web.Request, response: web.StreamResponse) -> None:
    request[BEGUN] = True
    for name, value in _HEADERS.items():
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


def _api(apis: Apis) -> list[Route]:
    return [_dial(apis.dial), *_calls(apis.calls), *_recordings(apis.recordings), *_letters(apis.letters), _events(apis.live)]


def _dial(api: DialApi) -> Route:
    told = Operation(
        "Dial: a call to the agent, then one to the number",
        {
            201: Answer("Accepted by FocalScope.", models.Dialed),
            **{
                status: Answer(text, models.DialProblem, (PROBLEM,))
                for status, text in {
                    404: "There is no such source.",
                    409: "The source cannot dial, or the first request with this key was refused.",
                    415: "The body is not JSON.",
                    422: "The Idempotency-Key was used for another request.",
                    429: "Too many dial requests with this key.",
                    502: "FocalScope refused, or its answer cannot be understood.",
                    504: "FocalScope did not answer in time: `dial_state` is `unknown`, a phone may be ringing.",
                }.items()
            },
        },
        body=DialRequest,
        headers={"Idempotency-Key": "A repeat within 24 h gets the first answer, and no second phone rings."},
    )
    return Route("POST", "/dial", api.post, told)


def _calls(api: CallsApi) -> list[Route]:
    found = Answer("Calls, newest start first. `Link` leads to the next page.", models.CallList)
    as_csv = Answer(found.description, found.model, (*found.media, CSV))
    one = Operation(
        "Everything about one call",
        {200: Answer("The call.", models.CallDetail), 404: Answer("There is no such call.", Problem, (PROBLEM,))},
        path={"source": _SOURCE, "call": _CALL_PATTERN},
    )
    return [
        Route("GET", "/calls", api.list, Operation("Find calls", {200: as_csv}, query=CallQuery)),
        Route("GET", "/calls/{source}/{call}", api.get, one),
    ]


def _recordings(api: RecordingsApi) -> list[Route]:
    missing = Answer("There is no such recording, or it was not stored.", Problem, (PROBLEM,))
    sealed = Answer("The recording is sealed, and the console has no identity to open it.", Problem, (PROBLEM,))
    path = {"source": _SOURCE, "guid": "^[0-9A-Za-z.-]{1,100}$"}
    audio = Operation(
        "A recording, or a range of it",
        {
            200: Answer("The recording.", media=("audio/wav",)),
            206: Answer("The range.", media=("audio/wav",)),
            304: Answer("Not modified.", media=()),
            404: missing,
            409: sealed,
            416: Answer("The range is outside.", Problem, (PROBLEM,)),
        },
        headers={"Range": "bytes=first-last"},
        path=path,
    )
    drawn = Operation(
        "A recording as a picture",
        {200: Answer("The waveform.", media=("image/svg+xml",)), 404: missing, 409: sealed},
        path=path,
    )
    return [
        Route("GET", "/recordings/{source}/{guid}", api.get, audio),
        Route("GET", "/recordings/{source}/{guid}/waveform.svg", api.waveform, drawn),
    ]


def _letters(api: LettersApi) -> list[Route]:
    listed = Operation("Look at dead letters", {200: Answer("The letters.", models.DeadLetterList)}, query=LettersQuery)
    done = {200: Answer("Done.", models.DeadLettersDone), 415: Answer("The body is not JSON.", Problem, (PROBLEM,))}
    acted = Operation("Redrive or drop dead letters", done, body=LettersAction)
    return [Route("GET", "/dead-letters", api.list, listed), Route("POST", "/dead-letters", api.act, acted)]


def _events(api: LiveApi) -> Route:
    told = Operation(
        "Follow what is published (server-sent events)",
        {
            200: Answer("Events: the routing key, and the CloudEvent as published.", media=("text/event-stream",)),
            429: Answer("Too many watch with this key.", Problem, (PROBLEM,)),
        },
        query=models.EventsQuery,
        headers={"Last-Event-ID": "Go on after this event, out of the journal."},
    )
    return Route("GET", "/events", api.events, told, is_endless=True)


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
