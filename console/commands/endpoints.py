"""`callfold endpoints`: webhooks, in the same way as the API of the console changes them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import orjson
from pydantic import BaseModel, ValidationError

from console.commands.common import cli_user
from console.endpoints.editor import Edited, EndpointEditor, Request
from console.endpoints.models import EndpointView, GivenEndpoint
from console.endpoints.reports import EndpointReports
from console.endpoints.trial import Trials
from console.history.location import DEFAULT_URL
from console.history.store import History
from console.safe_text import plain_line
from console.validation import first_mistake
from shared.amqp.queue_reader import QueueDepths
from shared.config.settings import Settings
from shared.config.source_options import resolved
from shared.errors import ConfigError
from shared.runtime.broker import broker_address, create_publisher
from shared.runtime.process import background
from shared.streams.connections import CONNECT_S, wait_until_connected
from shared.webhooks.live_endpoints import LiveEndpoints


@dataclass(frozen=True, slots=True)
class Options:
    """The options of `add`, as they are on the command line."""

    url: str
    filters: Sequence[str]
    where: str | None
    headers: Sequence[str]
    networks: Sequence[str]
    order: Literal["none", "call"]
    max_in_flight: int
    timeout_s: float
    enabled: bool
    secret_file: Path | None


class _Tools(NamedTuple):
    editor: EndpointEditor
    reports: EndpointReports


async def show_all(settings: Settings, *, as_json: bool) -> int:
    """Print all endpoints."""
    async with _tools(settings) as tools:
        listed = await tools.reports.all(shows_urls=True)
    for each in listed.endpoints:
        sys.stdout.write(_json(each) if as_json else _line(each))
    if not listed.endpoints and not as_json:
        sys.stderr.write("There is no webhook. `callfold endpoints add` adds one.\n")
    return 0


async def show(settings: Settings, name: str, *, as_json: bool) -> int:
    """Print one endpoint.

    Raises:
        UnknownEndpointError: there is none of this name.
    """
    async with _tools(settings) as tools:
        state = await tools.editor.read(name)
        (described,) = await tools.reports.describe([state], shows_urls=True)
    sys.stdout.write(_json(described) if as_json else _text(described))
    return 0


async def add(settings: Settings, name: str, options: Options, *, as_json: bool) -> int:
    """Add an endpoint, and print its new secret.

    Raises:
        ConfigError: an option is invalid.
        EndpointError: the name is taken, or a setting is invalid.
    """
    given = _given(options)
    async with _tools(settings) as tools:
        edited = await tools.editor.add(Request(name, cli_user()), given)
        return await _report_secret(tools, edited, as_json=as_json)


async def rotate(settings: Settings, name: str, secret_file: Path | None, *, finish: bool, as_json: bool) -> int:
    """Set a new secret and print it, or `finish` a rotation.

    Raises:
        ConfigError: the file cannot be read.
        EndpointError: the endpoint cannot be changed.
    """
    secret = _read_secret(secret_file)
    async with _tools(settings) as tools:
        request = Request(name, cli_user())
        if finish:
            return await _report(tools, await tools.editor.remove_previous_secrets(request), as_json=as_json)
        return await _report_secret(tools, await tools.editor.rotate(request, secret), as_json=as_json)


async def remove(settings: Settings, name: str, *, as_json: bool) -> int:
    """Remove an endpoint.

    Raises:
        EndpointError: it cannot be removed.
    """
    async with _tools(settings) as tools:
        await tools.editor.remove(Request(name, cli_user()))
    sys.stdout.write(orjson.dumps({"removed": name}).decode() + "\n" if as_json else f"{name} removed\n")
    return 0


async def switch(settings: Settings, name: str, *, is_on: bool, as_json: bool) -> int:
    """Enable or disable an endpoint.

    Raises:
        EndpointError: it cannot be changed.
    """
    async with _tools(settings) as tools:
        edited = await tools.editor.switch(Request(name, cli_user()), is_on=is_on)
        return await _report(tools, edited, as_json=as_json)


async def test(settings: Settings, name: str, *, as_json: bool) -> int:
    """Send a test event and print the result; returns 1 if it was not delivered.

    Raises:
        UnknownEndpointError: there is none of this name.
    """
    async with _tools(settings) as tools:
        state = await tools.editor.read(name)
        result = await Trials().send(state.endpoint)
        await tools.editor.record_test(Request(name, cli_user()), result.status)
    if as_json:
        sys.stdout.write(_json(result))
    else:
        outcome = "delivered" if result.delivered else f"not delivered: {result.error}"
        status = "no answer" if result.status is None else f"status {result.status}"
        answer = f"  {plain_line(result.answer)}" if result.answer else ""
        sys.stdout.write(f"{plain_line(f'{outcome}  ({status}, {result.seconds:.3f} s)')}{answer}\n")
    return 0 if result.delivered else 1


async def attempts(settings: Settings, name: str, *, limit: int, failed: bool, as_json: bool) -> int:
    """Print the attempts at an endpoint, newest first.

    Raises:
        CallfoldError: there is no history.
        UnknownEndpointError: there is no endpoint of this name.
    """
    async with _tools(settings) as tools:
        listed = await tools.reports.attempts(name, limit=limit, failed=failed)
    for each in listed.attempts:
        if as_json:
            sys.stdout.write(_json(each))
            continue
        status = "-" if each.status is None else str(each.status)
        what = each.error or each.answer
        line = f"{each.at}  {each.result:<9}  {status:>3}  {each.seconds:7.3f} s  {each.event_id:<28}  {each.attempt:>2}  {what}"
        sys.stdout.write(plain_line(line).rstrip() + "\n")
    return 0


@asynccontextmanager
async def _tools(settings: Settings) -> AsyncIterator[_Tools]:
    """Connect to RabbitMQ, and to the history if there is one."""
    address = broker_address(settings, "endpoints")
    live, publisher, depths = (
        LiveEndpoints(settings.endpoints_file, address),
        create_publisher(settings, "cli"),
        QueueDepths(address),
    )
    editor = EndpointEditor(settings, live, publisher)
    async with AsyncExitStack() as closing:
        history = await _history(settings, closing)
        await closing.enter_async_context(background(*editor.tasks(), publisher.run(), depths.run()))
        await wait_until_connected(publisher, live.follower.consumer)
        async with asyncio.timeout(CONNECT_S):
            await depths.wait_until_up()
        yield _Tools(editor, EndpointReports(editor, depths, history, settings.forward_retry_seconds))


async def _history(settings: Settings, closing: AsyncExitStack) -> History | None:
    url = settings.history_url.get_secret_value() if settings.history_url else DEFAULT_URL
    has_file = await asyncio.to_thread(Path(url.removeprefix("sqlite:///")).exists)
    if not settings.history_url and not has_file:
        return None
    return await closing.enter_async_context(aclosing(History(url)))


async def _report(tools: _Tools, edited: Edited, *, as_json: bool) -> int:
    (described,) = await tools.reports.describe([edited.state], shows_urls=True)
    sys.stdout.write(_json(described) if as_json else _line(described))
    return 0


async def _report_secret(tools: _Tools, edited: Edited, *, as_json: bool) -> int:
    if edited.new_secret is None:
        return await _report(tools, edited, as_json=as_json)
    (described,) = await tools.reports.describe([edited.state], shows_urls=True)
    if as_json:
        sys.stdout.write(orjson.dumps({**described.model_dump(mode="json"), "new_secret": edited.new_secret}).decode() + "\n")
    else:
        sys.stdout.write(f"{_line(described)}{edited.new_secret}\n")
        sys.stderr.write("This is its signing secret. It is not shown again.\n")
    return 0


def _given(options: Options) -> GivenEndpoint:
    """Read the options.

    Raises:
        ConfigError: one is invalid.
    """
    try:
        return GivenEndpoint(
            url=resolved(options.url),
            filter=list(options.filters),
            where=options.where,
            headers=_headers(options.headers),
            networks=list(options.networks),
            order=options.order,
            enabled=options.enabled,
            max_in_flight=options.max_in_flight,
            timeout_s=options.timeout_s,
            secret=_read_secret(options.secret_file),
        )
    except ValidationError as error:
        raise ConfigError(first_mistake(error, GivenEndpoint)[1]) from None
    except ValueError as error:
        raise ConfigError(f"An option is invalid: {error}.") from None


def _headers(written: Sequence[str]) -> dict[str, str | None]:
    headers: dict[str, str | None] = {}
    for each in written:
        name, colon, value = each.partition(":")
        if not colon:
            raise ConfigError("--header must be 'Name: value'.")
        headers[name.strip()] = resolved(value.strip())
    return headers


def _read_secret(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"Cannot read the secret file {path}: {type(error).__name__}.") from error


def _line(each: EndpointView) -> str:
    waiting = "?" if each.waiting is None else str(each.waiting)
    last = each.last_attempt
    attempt = f"{last.result} {last.at}" if last else "never attempted"
    line = f"{each.name:<20}  {_state(each):<22}  {waiting:>6} waiting  {attempt:<38}  {each.settings.url}"
    return plain_line(line) + "\n"


def _state(each: EndpointView) -> str:
    if each.disabled is not None:
        return "disabled by answer 410"
    if not each.settings.enabled:
        return "disabled"
    return "enabled, no forwarder" if each.has_forwarder is False else "enabled"


def _text(each: EndpointView) -> str:
    settings = each.settings
    rows = {
        "url": settings.url,
        "state": _state(each),
        "filter": ", ".join(settings.filter),
        "where": settings.where or "every event",
        "headers": ", ".join(settings.headers) or "none",
        "networks": ", ".join(settings.networks) or "public addresses",
        "order": settings.order,
        "max_in_flight": str(settings.max_in_flight),
        "timeout_s": f"{settings.timeout_s:g}",
        "secret": f"set, fingerprint {each.secret.fingerprint}",
        "previous": ", ".join(previous.fingerprint for previous in each.previous_secrets) or "none",
        "managed in": each.file or "the API",
        "waiting": "unknown" if each.waiting is None else str(each.waiting),
    }
    return "".join(plain_line(f"{name:<14}{value}") + "\n" for name, value in {"name": each.name, **rows}.items())


def _json(model: BaseModel) -> str:
    return orjson.dumps(model.model_dump(mode="json")).decode() + "\n"
