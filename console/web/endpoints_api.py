"""`/endpoints`: the webhooks, their settings, secrets, attempts and test events."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Annotated, TypeVar

import orjson
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from console.endpoints.editor import Edited, EndpointEditor, Request
from console.endpoints.errors import (
    EndpointChangedError,
    EndpointConflictError,
    InvalidEndpointError,
    NoHistoryError,
    UnknownEndpointError,
)
from console.endpoints.models import GivenEndpoint, NewEndpoint, NewSecretView, Rotation
from console.endpoints.reports import EndpointReports
from console.endpoints.trial import Trials
from console.endpoints.views import etag
from console.web.keys import IDENTITY
from console.web.parameters import read_parameters
from console.web.problems import invalid, problem, reject_unless_json
from shared.webhooks.live_endpoints import EndpointState

_Model = TypeVar("_Model", bound=BaseModel)
_CREATED = 201


class AttemptsQuery(BaseModel):
    """The parameters of `GET /endpoints/{name}/attempts`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: int = Field(default=100, ge=1, le=500, description="Maximum number of attempts in the answer.")
    before: Annotated[str, Field(min_length=1, max_length=40, pattern=r"^[0-9TZ:.-]+$")] | None = Field(
        default=None, description="Only attempts before this time: `next` of the page before."
    )
    failed: bool = Field(default=False, description="Only attempts that failed.")


class EndpointsApi:
    """Serves endpoints as JSON."""

    def __init__(self, editor: EndpointEditor, reports: EndpointReports, trials: Trials) -> None:
        self.editor = editor
        self.reports = reports
        self.trials = trials

    async def list(self, request: web.Request) -> web.Response:
        return _json(await self.reports.all(shows_urls=request[IDENTITY].may_change))

    async def get(self, request: web.Request) -> web.Response:
        return await _answered(self._get(request))

    async def add(self, request: web.Request) -> web.Response:
        return await _answered(self._add(request))

    async def replace(self, request: web.Request) -> web.Response:
        return await _answered(self._replace(request))

    async def remove(self, request: web.Request) -> web.Response:
        return await _answered(self._remove(request))

    async def rotate(self, request: web.Request) -> web.Response:
        return await _answered(self._rotate(request))

    async def remove_previous(self, request: web.Request) -> web.Response:
        return await _answered(self._edited(request, self.editor.remove_previous_secrets(_request(request))))

    async def enable(self, request: web.Request) -> web.Response:
        return await _answered(self._edited(request, self.editor.switch(_request(request), is_on=True)))

    async def disable(self, request: web.Request) -> web.Response:
        return await _answered(self._edited(request, self.editor.switch(_request(request), is_on=False)))

    async def test(self, request: web.Request) -> web.Response:
        return await _answered(self._test(request))

    async def attempts(self, request: web.Request) -> web.Response:
        return await _answered(self._attempts(request))

    async def _get(self, request: web.Request) -> web.Response:
        return await self._described(request, await self.editor.read(request.match_info["name"]))

    async def _add(self, request: web.Request) -> web.Response:
        given = await _body(request, NewEndpoint)
        if isinstance(given, web.Response):
            return given
        edited = await self.editor.add(Request(given.name, request[IDENTITY].name), given)
        headers = {"Location": f"/endpoints/{given.name}"}
        return await self._with_secret(request, edited, status=_CREATED, headers=headers)

    async def _replace(self, request: web.Request) -> web.Response:
        given = await _body(request, GivenEndpoint)
        if isinstance(given, web.Response):
            return given
        return await self._edited(request, self.editor.replace(_request(request), given))

    async def _remove(self, request: web.Request) -> web.Response:
        await self.editor.remove(_request(request))
        return web.Response(status=204)

    async def _rotate(self, request: web.Request) -> web.Response:
        rotation = await _body(request, Rotation)
        if isinstance(rotation, web.Response):
            return rotation
        return await self._with_secret(request, await self.editor.rotate(_request(request), rotation.secret))

    async def _test(self, request: web.Request) -> web.Response:
        change = _request(request)
        result = await self.trials.send((await self.editor.read(change.name)).endpoint)
        await self.editor.record_test(change, result.status)
        return _json(result)

    async def _attempts(self, request: web.Request) -> web.Response:
        try:
            query = read_parameters(request, AttemptsQuery)
        except ValidationError as error:
            return invalid(error, AttemptsQuery)
        name = request.match_info["name"]
        return _json(await self.reports.attempts(name, limit=query.limit, before=query.before, failed=query.failed))

    async def _edited(self, request: web.Request, change: Awaitable[Edited]) -> web.Response:
        return await self._described(request, (await change).state)

    async def _described(self, request: web.Request, state: EndpointState) -> web.Response:
        (described,) = await self.reports.describe([state], shows_urls=request[IDENTITY].may_change)
        return _json(described, headers={"ETag": etag(state)})

    async def _with_secret(
        self, request: web.Request, edited: Edited, *, status: int = 200, headers: dict[str, str] | None = None
    ) -> web.Response:
        (described,) = await self.reports.describe([edited.state], shows_urls=request[IDENTITY].may_change)
        answer = NewSecretView(endpoint=described, new_secret=edited.new_secret)
        return _json(answer, status=status, headers={"ETag": etag(edited.state), **(headers or {})})


def _request(request: web.Request) -> Request:
    return Request(request.match_info["name"], request[IDENTITY].name, request.headers.get("If-Match"))


async def _body(request: web.Request, model: type[_Model]) -> _Model | web.Response:
    """Read the JSON of a request, or refuse it."""
    refusal = reject_unless_json(request)
    if refusal is not None:
        return refusal
    try:
        return model.model_validate_json(await request.read())
    except ValidationError as error:
        return invalid(error, model)


async def _answered(answer: Awaitable[web.Response]) -> web.Response:
    """Answer a refused change with its problem."""
    try:
        return await answer
    except (UnknownEndpointError, NoHistoryError) as error:
        return problem(404, str(error))
    except EndpointConflictError as error:
        return problem(409, str(error), None, parameter="name")
    except EndpointChangedError as error:
        return problem(412, str(error), None, parameter="If-Match")
    except InvalidEndpointError as error:
        return problem(400, str(error), None, parameter=error.parameter)


def _json(model: BaseModel, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    body = orjson.dumps(model.model_dump(mode="json"))
    return web.Response(status=status, body=body, content_type="application/json", headers=headers)
