"""The pages of webhooks: the list, and one webhook with its settings, attempts and test event."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web
from multidict import MultiMapping
from pydantic import ValidationError
from yarl import URL

from console.endpoints.editor import Edited, Request
from console.endpoints.errors import EndpointConflictError, EndpointError, InvalidEndpointError, UnknownEndpointError
from console.endpoints.models import GivenEndpoint, NewEndpoint
from console.endpoints.views import etag
from console.page import render
from console.page.models import Notice
from console.page.urls import webhook_url
from console.page.webhook_models import KEPT, WebhookPage, WebhooksPage, form_of
from console.validation import first_mistake
from console.web.endpoints_api import EndpointsApi
from console.web.keys import IDENTITY
from console.web.page_responses import error_page, html, viewer_of
from console.web.parameters import read_form
from shared.errors import HistoryUnavailableError

_MAX_ATTEMPTS = 50
_DONE = {
    "saved": "Saved.",
    "enabled": "Enabled. Its events are delivered.",
    "disabled": "Disabled. Its events wait.",
    "finished": "The previous secrets are removed.",
    "removed": "Removed.",
}
_FIELDS = ("name", "url", "filter", "where", "headers", "networks", "order", "max_in_flight", "timeout_s")


class WebhookPages:
    """Shows, adds, changes and tests webhooks."""

    def __init__(self, api: EndpointsApi) -> None:
        self._api = api

    async def list(self, request: web.Request) -> web.Response:
        return await self._listed(request)

    async def show(self, request: web.Request) -> web.Response:
        return await self._shown(request, request.match_info["name"])

    async def add(self, request: web.Request) -> web.Response:
        """Add a webhook, and show its new secret."""
        form = _values(await read_form(request))
        try:
            given = NewEndpoint.model_validate({**_settings(form, enabled=True), "name": form["name"].strip()})
            edited = await self._api.editor.add(Request(given.name, request[IDENTITY].name), given)
        except (ValidationError, EndpointError) as error:
            return await self._listed(request, form, _errors(error))
        return await self._shown(request, given.name, edited=edited)

    async def act(self, request: web.Request) -> web.Response:
        """Do what a button of the page of a webhook says."""
        posted, name = await read_form(request), request.match_info["name"]
        form, change = _values(posted), Request(name, request[IDENTITY].name)
        editor = self._api.editor
        try:
            match str(posted.get("action", "save")):
                case "test":
                    result = await self._api.trials.send((await editor.read(name)).endpoint)
                    await editor.record_test(change, result.status)
                    return await self._shown(request, name, trial=result)
                case "enable" | "disable" as action:
                    await editor.switch(change, is_on=action == "enable")
                    done = f"{action}d"
                case "rotate":
                    return await self._shown(request, name, edited=await editor.rotate(change, None))
                case "finish":
                    await editor.remove_previous_secrets(change)
                    done = "finished"
                case "remove":
                    if str(posted.get("confirm", "")).strip() != name:
                        raise InvalidEndpointError("endpoint", "It was not removed: the name is not the one of this webhook.")
                    await editor.remove(change)
                    raise web.HTTPSeeOther(URL("/webhooks").with_query(done="removed"))
                case _:
                    settings = _settings(form, enabled=posted.get("enabled") != "no")
                    # The form has every setting, so it must not replace what was changed since it was shown.
                    change = change._replace(if_match=str(posted.get("etag") or "") or None)
                    await editor.replace(change, GivenEndpoint.model_validate(settings))
                    done = "saved"
        except (ValidationError, EndpointError) as error:
            return await self._shown(request, name, form=form, errors=_errors(error))
        raise web.HTTPSeeOther(URL(webhook_url(name)).with_query(done=done))

    async def _listed(
        self, request: web.Request, form: Mapping[str, str] | None = None, errors: Mapping[str, str] | None = None
    ) -> web.Response:
        listed = await self._api.reports.all(shows_urls=request[IDENTITY].may_change)
        page = WebhooksPage(listed.endpoints, listed.problem, form or {}, errors or {}, _notice(request))
        return html(render.webhooks_page(viewer_of(request), page), status=400 if errors else 200)

    async def _shown(
        self,
        request: web.Request,
        name: str,
        *,
        form: Mapping[str, str] | None = None,
        errors: Mapping[str, str] | None = None,
        edited: Edited | None = None,
        trial: object = None,
    ) -> web.Response:
        try:
            state = await self._api.editor.read(name)
        except UnknownEndpointError as error:
            return error_page(request, 404, "No such webhook", str(error))
        (view,) = await self._api.reports.describe([state], shows_urls=request[IDENTITY].may_change)
        problem = None
        try:
            attempts = (await self._api.reports.attempts(name, limit=_MAX_ATTEMPTS)).attempts
        except (EndpointError, HistoryUnavailableError) as error:
            attempts, problem = [], str(error)
        page = WebhookPage(
            endpoint=view,
            etag=etag(state),
            attempts=attempts,
            attempts_problem=problem,
            form=form if form and form.get("url") else form_of(view.settings),
            errors=errors or {},
            notice=_notice(request),
            new_secret=edited.new_secret if edited else None,
            trial=trial,  # type: ignore[arg-type]
        )
        return html(render.webhook_page(viewer_of(request), page), status=400 if errors else 200)


def _notice(request: web.Request) -> Notice | None:
    text = _DONE.get(request.query.get("done", ""))
    return Notice(text) if text and request.method == "GET" else None


def _values(posted: MultiMapping[object]) -> dict[str, str]:
    return {name: str(posted.get(name, "")) for name in _FIELDS}


def _settings(form: Mapping[str, str], *, enabled: bool) -> dict[str, object]:
    """Return the settings of a form. What is left empty gets its default."""
    settings: dict[str, object] = {"url": form["url"].strip(), "enabled": enabled, "headers": _headers(form["headers"])}
    settings |= {name: _lines(form[name]) for name in ("filter", "networks") if _lines(form[name])}
    settings |= {name: form[name].strip() for name in ("where", "order") if form[name].strip()}
    numbers = {"max_in_flight": int, "timeout_s": float}
    for name, read in numbers.items():
        if form[name].strip():
            try:
                settings[name] = read(form[name].strip())
            except ValueError:
                settings[name] = form[name]
    return settings


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _headers(text: str) -> dict[str, str | None]:
    headers: dict[str, str | None] = {}
    for line in _lines(text):
        name, colon, value = line.partition(":")
        if not colon:
            raise InvalidEndpointError("headers", "headers must have one `Name: value` on each line.")
        headers[name.strip()] = None if value.strip() == KEPT else value.strip()
    return headers


def _errors(error: ValidationError | EndpointError) -> dict[str, str]:
    """Return what is wrong by the name of the field; what concerns no field has the name `endpoint`."""
    match error:
        case ValidationError():
            parameter, sentence = first_mistake(error, NewEndpoint)
        case InvalidEndpointError():
            parameter, sentence = error.parameter, str(error)
        case EndpointConflictError():
            parameter, sentence = "endpoint", str(error)
        case _:
            parameter, sentence = "endpoint", str(error)
    name = parameter.partition(".")[0]
    return {name if name in _FIELDS else "endpoint": sentence}
