"""The operations of the HTTP API: their routes, and what `openapi.json` says of them."""

from __future__ import annotations

from dataclasses import dataclass

from console.call_query import CallQuery
from console.dialing.focalscope import DialRequest
from console.lookup.csv_export import CSV
from console.web import models
from console.web.calls_api import CallsApi
from console.web.dial_api import DialApi
from console.web.letters_api import LettersAction, LettersApi, LettersQuery
from console.web.live import EVENT_ID_PATTERN, LiveApi
from console.web.openapi import RETRY_AFTER, Problem
from console.web.pages import Pages
from console.web.problems import PROBLEM
from console.web.recordings_api import RecordingsApi
from console.web.routes import Answer, Header, Operation, Route
from console.web.sessions import Sessions
from shared.domain.ids import CALL_REF, RECORDING_NAME, SOURCE_NAME

_TOO_MANY = 429


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


def operations(apis: Apis) -> list[Route]:
    """List what programs can ask."""
    return [_dial(apis.dial), *_calls(apis.calls), *_recordings(apis.recordings), *_letters(apis.letters), _events(apis.live)]


def _dial(api: DialApi) -> Route:
    refused = {
        404: "There is no such source.",
        409: "The source cannot dial, or the first request with this key was refused.",
        415: "The body is not JSON.",
        422: "The Idempotency-Key was used for another request.",
        429: "Too many dial requests with this key.",
        502: "FocalScope refused, or its answer cannot be understood.",
        504: "FocalScope did not answer in time: `dial_state` is `unknown`, a phone may be ringing.",
    }
    answers = {
        status: Answer(text, models.DialProblem, (PROBLEM,), headers=RETRY_AFTER if status == _TOO_MANY else {})
        for status, text in refused.items()
    }
    once = Header("A repeat within 24 h gets the first answer, and no second phone rings.", "^.{1,255}$")
    told = Operation(
        "Dial: a call to the agent, then one to the number",
        {201: Answer("Accepted by FocalScope.", models.Dialed)} | answers,
        body=DialRequest,
        headers={"Idempotency-Key": once},
    )
    return Route("POST", "/dial", api.post, told)


def _calls(api: CallsApi) -> list[Route]:
    found = Answer(
        "Calls, newest start first.",
        models.CallList,
        ("application/json", CSV),
        at_times={"Link": "The next page (RFC 8288).", "Content-Disposition": "The name of a file, with CSV."},
    )
    one = Operation(
        "Everything about one call",
        {200: Answer("The call.", models.CallDetail), 404: Answer("There is no such call.", Problem, (PROBLEM,))},
        path={"source": SOURCE_NAME.pattern, "call": CALL_REF.pattern},
    )
    return [
        Route("GET", "/calls", api.list, Operation("Find calls", {200: found}, query=CallQuery)),
        Route("GET", "/calls/{source}/{call}", api.get, one),
    ]


def _recordings(api: RecordingsApi) -> list[Route]:
    missing = Answer("There is no such recording, or it was not stored.", Problem, (PROBLEM,))
    sealed = Answer("The recording is sealed, and the console has no identity to open it.", Problem, (PROBLEM,))
    path = {"source": SOURCE_NAME.pattern, "guid": RECORDING_NAME.pattern}
    named = {"ETag": "Names the content.", "Cache-Control": "How long it may be kept, and by whom."}
    sent = named | {"Accept-Ranges": "`bytes`.", "Content-Disposition": "The name of the file."}
    part = {"Content-Range": "Which bytes, of how many."}
    audio = Operation(
        "A recording, or a range of it",
        {
            200: Answer("The recording.", media=("audio/wav",), headers=sent),
            206: Answer("The range.", media=("audio/wav",), headers=sent | part),
            304: Answer("Not modified.", media=(), headers=named),
            404: missing,
            409: sealed,
            416: Answer("The range is outside.", Problem, (PROBLEM,), headers=part),
        },
        query=models.RecordingQuery,
        headers={
            "Range": Header("`bytes=first-last`, one range; anything else is left aside, and the whole is sent."),
            "If-Range": Header("The ETag of what the range continues: the whole is sent where it is another by now."),
            "If-None-Match": Header("The ETags of what is known already, or `*`: 304 where it is one of them."),
        },
        path=path,
    )
    drawn = Operation(
        "A recording as a picture",
        {200: Answer("The waveform.", media=("image/svg+xml",), headers=named), 404: missing, 409: sealed},
        query=models.RecordingQuery,
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
            429: Answer("Too many watch with this key.", Problem, (PROBLEM,), headers=RETRY_AFTER),
        },
        query=models.EventsQuery,
        headers={"Last-Event-ID": Header("Go on after this event, out of the journal.", f"^({EVENT_ID_PATTERN})?$")},
    )
    return Route("GET", "/events", api.events, told, is_endless=True)
