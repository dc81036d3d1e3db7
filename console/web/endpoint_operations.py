"""The operations on webhooks: their routes and their descriptions in `openapi.json`."""

from __future__ import annotations

from console.endpoints.models import (
    AttemptList,
    EndpointList,
    EndpointView,
    GivenEndpoint,
    NewEndpoint,
    NewSecretView,
    Rotation,
    TrialView,
)
from console.web.endpoints_api import AttemptsQuery, EndpointsApi
from console.web.openapi import Problem
from console.web.problems import PROBLEM
from console.web.routes import Answer, Handler, Header, Operation, Route
from console.web.slots import RequestSlots
from shared.config.endpoints import ENDPOINT_NAME

_PATH = {"name": ENDPOINT_NAME.pattern}
_IF_MATCH = {"If-Match": Header("The ETag of the endpoint as you have read it. If it has changed since, the answer is 412.")}
_ETAG = {"ETag": "Identifies the settings, secrets included."}
_UNKNOWN = Answer("Unknown endpoint.", Problem, (PROBLEM,))
_IN_FILE = Answer("The endpoint is in a file, which the answer names. Change it there.", Problem, (PROBLEM,))
_TAKEN = Answer("The name is taken, or there are too many endpoints.", Problem, (PROBLEM,))
_CHANGED = Answer("The endpoint has changed since you read it.", Problem, (PROBLEM,))
_NOT_JSON = Answer("The body is not JSON.", Problem, (PROBLEM,))
_REFUSALS = {404: _UNKNOWN, 409: _IN_FILE, 412: _CHANGED}


def endpoint_operations(api: EndpointsApi, slots: RequestSlots) -> list[Route]:
    """List the routes of webhooks."""
    described = Answer("The endpoint.", EndpointView, headers=_ETAG)
    secret = Answer("The endpoint, and its secret if the console made one.", NewSecretView, headers=_ETAG)
    added = Answer(secret.description, NewSecretView, headers=_ETAG | {"Location": "Its path."})
    one = "/endpoints/{name}"
    listed = Operation("List webhooks", {200: Answer("All webhooks by name.", EndpointList)})
    add = Operation("Add a webhook", {201: added, 409: _TAKEN, 415: _NOT_JSON}, body=NewEndpoint)
    replace = Operation(
        "Replace the settings of a webhook",
        {200: described, 415: _NOT_JSON} | _REFUSALS,
        body=GivenEndpoint,
        headers=_IF_MATCH,
        path=_PATH,
    )
    rotate = Operation(
        "Set a new secret; the present one signs too, until it is removed",
        {200: secret, 415: _NOT_JSON} | _REFUSALS,
        body=Rotation,
        headers=_IF_MATCH,
        path=_PATH,
    )
    removed = Answer("Removed.", media=())
    no_attempts = Answer("Unknown endpoint, or there is no history.", Problem, (PROBLEM,))
    attempts = Operation(
        "List the attempts at a webhook, newest first",
        {200: Answer("The attempts.", AttemptList), 404: no_attempts},
        query=AttemptsQuery,
        path=_PATH,
    )
    test = Operation(
        "Send a signed test event now",
        {200: Answer("The result, also of a test that failed.", TrialView), 404: _UNKNOWN},
        path=_PATH,
    )
    return [
        Route("GET", "/endpoints", api.list, listed, slots=slots.lookups),
        Route("POST", "/endpoints", api.add, add, slots=slots.endpoint_changes),
        Route("GET", one, api.get, Operation("Get a webhook", {200: described, 404: _UNKNOWN}, path=_PATH), slots=slots.lookups),
        Route("PUT", one, api.replace, replace, slots=slots.endpoint_changes),
        _change("DELETE", one, api.remove, "Remove a webhook", removed, slots, 204),
        _change("POST", f"{one}/enable", api.enable, "Enable a webhook, also after an answer 410", described, slots),
        _change("POST", f"{one}/disable", api.disable, "Disable a webhook", described, slots),
        Route("POST", f"{one}/secret", api.rotate, rotate, slots=slots.endpoint_changes),
        _change(
            "DELETE", f"{one}/previous-secrets", api.remove_previous, "Remove the previous secrets of a webhook", described, slots
        ),
        Route("POST", f"{one}/test", api.test, test, slots=slots.trials),
        Route("GET", f"{one}/attempts", api.attempts, attempts, slots=slots.lookups),
    ]


def _change(  # noqa: PLR0917 - the parts of a route
    method: str, path: str, handler: Handler, summary: str, answer: Answer, slots: RequestSlots, status: int = 200
) -> Route:
    """Describe a change without a body."""
    operation = Operation(summary, {status: answer} | _REFUSALS, headers=_IF_MATCH, path=_PATH)
    return Route(method, path, handler, operation, slots=slots.endpoint_changes)
