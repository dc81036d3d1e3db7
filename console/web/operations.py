"""The operations of the HTTP API: their routes and their descriptions in `openapi.json`."""

from __future__ import annotations

from dataclasses import dataclass

from console.annotations.bodies import AnnotationRequest
from console.call_query import CallQuery
from console.dialing.focalscope import DialRequest
from console.lookup.csv_export import CSV
from console.web import models
from console.web.annotations_api import AnnotationsApi
from console.web.calls_api import CallsApi
from console.web.dead_letters_api import DeadLettersAction, DeadLettersApi, DeadLettersQuery
from console.web.dial_api import DialApi
from console.web.endpoint_operations import endpoint_operations
from console.web.endpoints_api import EndpointsApi
from console.web.event_streams import EVENT_ID_PATTERN, EventStreams
from console.web.openapi import RETRY_AFTER, Problem
from console.web.problems import PROBLEM
from console.web.recordings_api import RecordingsApi
from console.web.routes import Answer, Header, Operation, Route
from console.web.schemas_api import FILE, MEDIA, NAME, get_schema, list_schemas
from console.web.slots import RequestSlots
from console.web.vcon_response import VCON_TYPES
from shared.domain.ids import CALL_REF, RECORDING_NAME, SOURCE_NAME

_TOO_MANY_REQUESTS = 429
_NOT_JSON = "The body is not JSON."


@dataclass(frozen=True, slots=True)
class Apis:
    """The handlers of the HTTP API."""

    dial: DialApi
    annotations: AnnotationsApi
    calls: CallsApi
    recordings: RecordingsApi
    dead_letters: DeadLettersApi
    endpoints: EndpointsApi
    events: EventStreams
    slots: RequestSlots


def operations(apis: Apis) -> list[Route]:
    """List the routes for programs."""
    return [
        _dial(apis.dial),
        *_calls(apis),
        _annotations(apis.annotations, apis.slots),
        *_recordings(apis.recordings),
        *_dead_letters(apis.dead_letters, apis.slots),
        *endpoint_operations(apis.endpoints, apis.slots),
        _events(apis.events),
        *_schemas(),
    ]


def _dial(api: DialApi) -> Route:
    problems = {
        404: "Unknown source.",
        409: "The source has no dial_url, or the first request with this Idempotency-Key was refused.",
        415: _NOT_JSON,
        422: "The Idempotency-Key was used for a request with another body.",
        429: "This key has reached its limit of dial requests per minute or per day, or all keys together the `dials_per_day` of "
        "the source. Or too many wrong keys came from this address.",
        502: "FocalScope is unreachable, refused the request, or sent an answer without a RequestID.",
        504: "FocalScope did not answer in time. `dial_state` is `unknown`: a phone may be ringing.",
    }
    answers = {
        status: Answer(text, models.DialProblem, (PROBLEM,), headers=RETRY_AFTER if status == _TOO_MANY_REQUESTS else {})
        for status, text in problems.items()
    }
    key = Header("A repeat with the same key within 24 h gets the first answer and does not dial again.", "^.{1,255}$")
    operation = Operation(
        "Dial: call the agent, then the number",
        {201: Answer("FocalScope accepted the request.", models.Dialed)} | answers,
        body=DialRequest,
        headers={"Idempotency-Key": key},
    )
    return Route("POST", "/dial", api.post, operation)


def _calls(apis: Apis) -> list[Route]:
    page = Answer(
        "Calls, newest start first.",
        models.CallList,
        ("application/json", CSV),
        optional_headers={"Link": "The next page (RFC 8288).", "Content-Disposition": "The file name, for CSV."},
    )
    etag = {"ETag": "Identifies the content of a vCon.", "Cache-Control": "Who may cache a vCon, and for how long."}
    varies = {"Vary": "`Accept`."}
    one = Operation(
        "Get everything about one call, or a published revision as vCon",
        {
            200: Answer("The call.", models.CallDetail, headers=varies, optional_headers=etag, others=VCON_TYPES),
            304: Answer("The vCon is not modified.", media=(), headers=varies | etag),
            404: Answer("Unknown call, or the revision is not published or not known any more.", Problem, (PROBLEM,)),
            406: Answer("`Accept` names no media type in which a call is available.", Problem, (PROBLEM,)),
        },
        query=models.CallDetailQuery,
        headers={
            "If-None-Match": Header("The ETags of vCons already cached, or `*`. If one of them matches, the answer is 304.")
        },
        path={"source": SOURCE_NAME.pattern, "call": CALL_REF.pattern},
    )
    return [
        Route("GET", "/calls", apis.calls.list, Operation("Find calls", {200: page}, query=CallQuery), slots=apis.slots.lookups),
        Route("GET", "/calls/{source}/{call}", apis.calls.get, one, slots=apis.slots.details),
    ]


def _annotations(api: AnnotationsApi, slots: RequestSlots) -> Route:
    problems = {
        404: "Unknown source or call.",
        409: "The call has as many annotations as it may have, or as many bytes of them.",
        410: "The call was published, and its facts have expired from Redis. Its record cannot be amended.",
        413: "The body is over 256 KiB.",
        415: _NOT_JSON,
        422: "The Idempotency-Key was used for another annotation of this call.",
    }
    key = Header("A repeat with the same key and body is the same annotation, and gets the same answer.", "^.{1,255}$")
    operation = Operation(
        "Annotate a call",
        {202: Answer("RabbitMQ has the annotation. It appears in the record of the call.", models.AnnotationAccepted)}
        | {status: Answer(text, Problem, (PROBLEM,)) for status, text in problems.items()},
        body=AnnotationRequest,
        headers={"Idempotency-Key": key},
        path={"source": SOURCE_NAME.pattern, "call": CALL_REF.pattern},
    )
    return Route("POST", "/calls/{source}/{call}/annotations", api.post, operation, slots=slots.annotations)


def _recordings(api: RecordingsApi) -> list[Route]:
    missing = Answer("The recording is unknown or not stored.", Problem, (PROBLEM,))
    encrypted = Answer("The recording is encrypted and the console has no identity to decrypt it.", Problem, (PROBLEM,))
    path = {"source": SOURCE_NAME.pattern, "guid": RECORDING_NAME.pattern}
    undrawable = Answer("The recording is unknown, not stored, or cannot be drawn.", Problem, (PROBLEM,))
    unplayable = Answer("The recording is unknown, not stored, or cannot be converted.", Problem, (PROBLEM,))
    etag = {"ETag": "Identifies the content.", "Cache-Control": "Who may cache the response, and for how long."}
    sent = etag | {"Accept-Ranges": "`bytes`.", "Content-Disposition": "The file name."}
    part = {"Content-Range": "The range sent, and the size of the recording."}
    answers = {
        200: Answer("The recording.", media=("audio/wav",), headers=sent),
        206: Answer("The range.", media=("audio/wav",), headers=sent | part),
        304: Answer("Not modified.", media=(), headers=etag),
        404: missing,
        409: encrypted,
        429: _many("downloads"),
        416: Answer("The range is outside the recording.", Problem, (PROBLEM,), headers=part),
    }
    ranges = {
        "Range": Header("`bytes=first-last`, one range. Any other value is ignored and the whole recording is sent."),
        "If-Range": Header("The ETag of the parts already received. If it has changed, the whole recording is sent."),
        "If-None-Match": Header("The ETags already cached, or `*`. If one of them matches, the answer is 304."),
    }
    query = models.RecordingQuery
    audio = Operation("Download a recording or a range of it", answers, query=query, headers=ranges, path=path)
    preview = Operation(
        "Download a recording as 16-bit PCM, which every browser plays, or a range of that",
        answers | {404: unplayable},
        query=query,
        headers=ranges,
        path=path,
    )
    waveform = Operation(
        "Draw the waveform of a recording",
        {200: Answer("The waveform.", media=("image/svg+xml",), headers=etag), 404: undrawable, 409: encrypted},
        query=query,
        path=path,
    )
    return [
        Route("GET", "/recordings/{source}/{guid}", api.get, audio),
        Route("GET", "/recordings/{source}/{guid}/preview", api.preview, preview),
        Route("GET", "/recordings/{source}/{guid}/waveform.svg", api.waveform, waveform),
    ]


def _dead_letters(api: DeadLettersApi, slots: RequestSlots) -> list[Route]:
    listed = {200: Answer("The dead letters.", models.DeadLetterList)}
    done = {200: Answer("The result.", models.DeadLettersDone), 415: Answer(_NOT_JSON, Problem, (PROBLEM,))}
    look = Operation("List dead letters", listed, query=DeadLettersQuery)
    change = Operation("Redrive or drop dead letters", done, body=DeadLettersAction)
    return [
        Route("GET", "/dead-letters", api.list, look, slots=slots.looks),
        Route("POST", "/dead-letters", api.act, change, slots=slots.changes),
    ]


def _events(api: EventStreams) -> Route:
    operation = Operation(
        "Follow published events (server-sent events)",
        {
            200: Answer("Events: the routing key, and the CloudEvent as published.", media=("text/event-stream",)),
            429: _many("streams"),
        },
        query=models.EventsQuery,
        headers={"Last-Event-ID": Header("Continue after this event, from the journal.", f"^({EVENT_ID_PATTERN})?$")},
    )
    return Route("GET", "/events", api.events, operation, is_endless=True)


def _schemas() -> list[Route]:
    unknown = Answer("Unknown schema.", Problem, (PROBLEM,))
    caching = {"Cache-Control": "Who may cache the response, and for how long."}
    one = Operation(
        "Get the JSON Schema of a published message",
        {200: Answer("The schema.", media=(MEDIA,), headers=caching), 404: unknown},
        path={"name": NAME, "file": FILE},
    )
    every = Operation("List the JSON Schemas of published messages", {200: Answer("The schemas.", models.SchemaList)})
    return [Route("GET", "/schemas", list_schemas, every), Route("GET", "/schemas/{name}/{file}", get_schema, one)]


def _many(kind: str) -> Answer:
    text = f"This key has too many open {kind}, or too many wrong keys came from this address."
    return Answer(text, Problem, (PROBLEM,), headers=RETRY_AFTER)
