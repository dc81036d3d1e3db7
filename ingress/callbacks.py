"""Handles `GET|POST /callbacks/{source}`: makes a callback durable, or rejects the request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace

from aiohttp import web
from multidict import CIMultiDict

from ingress.answers import (
    HEADERS,
    KEPT,
    PATH,
    TOO_LONG,
    UNAUTHORIZED,
    problem,
    reject,
    too_many,
    unavailable,
    unknown_source,
    wrong_secret,
)
from ingress.body_formats import UNKNOWN_FORMAT, UnreadableBodyError, find_body_secret, format_of, to_query
from ingress.forms import Body, read_body
from ingress.intake import Intake
from ingress.outgoing_message import OutgoingMessage
from ingress.request_lines import TARGET_BYTES
from ingress.source_secrets import SourceSecrets
from ingress.targets import is_odd, read_target, tidied, with_second_query
from shared import metrics
from shared.amqp.dead_letters import DeadLetterReason, dead_letter_headers
from shared.amqp.topology import CALLBACKS_DEAD
from shared.clock import utc_now
from shared.config.sources import Source, Sources
from shared.domain.adapter_link import find_secret, take_secret
from shared.domain.callback import parse_callback
from shared.domain.ids import SourceName
from shared.domain.raw_event import CallbackEvent, encode, join
from shared.domain.unread_body import UnreadCallback
from shared.errors import InvalidCallbackError, SpoolUnavailableError
from shared.log import get_logger
from shared.outage import Outage
from shared.runtime.http_protocol import MAX_BODY_BYTES

log = get_logger(__name__)

_ACCEPTED = CIMultiDict(HEADERS | {"Content-Type": "text/plain"})  # built once: this is the hot path
_LONG_QUERY = 1024
# What a dead letter counts beyond its bytes: its headers, and what RabbitMQ keeps of each message. Its queue has no limit.
_DEAD_LETTER_BYTES = 1024
_NO_BODY = Body()

Send = Callable[[OutgoingMessage], Awaitable[None]]


def _as_bytes(query: str) -> bytes:
    return query.encode("utf-8", "surrogateescape")


def _parsed(source: Source, event: CallbackEvent) -> CallbackEvent:
    """Check a callback; returns it with the query in the spelling that can be parsed.

    Raises:
        InvalidCallbackError: it cannot be folded.
    """
    try:
        parse_callback(source.adapter, event.query)
    except InvalidCallbackError:
        second = with_second_query(event.query, source.adapter.meanings)
        if second is None:
            raise
        with suppress(InvalidCallbackError):
            parse_callback(source.adapter, second)
            return replace(event, query=second)
        raise
    return event


class CallbackHandler:
    """Answers callbacks of known sources and rejects every other request."""

    def __init__(self, sources: Sources, intake: Intake, send: Send) -> None:
        """Take the sources, the intake for valid callbacks, and the function that dead-letters invalid ones."""
        self._sources = sources
        self._by_path = {f"{PATH}{name}": source for name, source in sources.items()}
        self._intake = intake
        self._send = send
        self._secrets = SourceSecrets(sources)
        self._unavailable = Outage(log, "callback_rejected_503", "callbacks_accepted", is_error=True)
        self._invalid = {name: Outage(log, "callback_rejected") for name in sources}
        self._refused: dict[tuple[SourceName, int], Outage] = {}
        self._accepted = {name: metrics.CALLBACKS.labels(name, "accepted") for name in sources}

    async def answer(self, request: web.BaseRequest) -> web.Response:
        """Answer one request; the answer is 200 only if the callback is durable."""
        target = request.raw_path
        if len(target) > TARGET_BYTES:
            return self.refuse_line(target)
        path, _, query = target.partition("?")
        source = self._by_path.get(path)
        if source is None:
            name, query = read_target(target)
            source = self._sources.get(SourceName(name))
            if source is None:
                return unknown_source(name)
        if is_odd(query):
            query = tidied(query)
        if request.method == "POST":
            return await self._answer_post(request, source, query)
        if request.method != "GET":
            response = reject(405, "Method Not Allowed", "Send callbacks as GET or POST requests.")
            response.headers["Allow"] = "GET, POST"
            return response
        return await self._accept(source, query)

    async def _answer_post(self, request: web.BaseRequest, source: Source, query: str) -> web.Response:
        """Judge the secret as soon as it is known: before the body is read, if the query has one, else before it is decoded."""
        secret = find_secret(_as_bytes(query))
        if secret is not None and self._secrets.is_wrong(source, secret):
            second = self._second_query(source, query)
            return await self._answer_post(request, source, second) if second else self._refuse_secret(source)
        is_trusted = not self._secrets.is_wrong(source, secret)
        body = await read_body(request, is_trusted=is_trusted)
        if not is_trusted:
            if body.problem:
                return self._refuse_body(source, body.problem)
            body_format = format_of(body.content_type, body.content)
            if body_format is None and not self._secrets.is_in_body(source.name, body.content):
                return self._refuse_body(source, UNKNOWN_FORMAT)
            if body_format and self._secrets.is_wrong(source, find_body_secret(body_format, body.content)):
                return self._refuse_secret(source)
        try:
            if not body.problem and body.content:
                query = "&".join(part for part in (query, to_query(body.content_type, body.content)) if part)
        except UnreadableBodyError as error:
            body = replace(body, problem=error)
        return await self._keep(source, take_secret(query)[1], body)

    async def _accept(self, source: Source, query: str) -> web.Response:
        """Judge the secret of a GET, and make its callback durable."""
        # For a long query it is cheaper to judge the secret before all parameters are split.
        if len(query) > _LONG_QUERY and self._secrets.is_wrong(source, find_secret(_as_bytes(query))):
            return await self._accept_second(source, query)
        secret, rest = take_secret(query)
        if self._secrets.is_wrong(source, secret):
            return await self._accept_second(source, query)
        return await self._keep(source, rest, _NO_BODY)

    async def _keep(self, source: Source, query: str, body: Body) -> web.Response:
        """Make a callback durable, given its query without the secret. A body with a problem is not in the query."""
        if refusal := self._intake.refusal(source.name):
            return too_many(source.name, *refusal)
        event = CallbackEvent(source.name, utc_now(), self._secrets.hide(source.name, query))
        try:
            event = _parsed(source, event)
        except InvalidCallbackError as error:
            return await (self._keep_body(event, body, body.problem) if body.problem else self._keep_invalid(event, error))
        encoded = encode(event)
        try:
            await self._intake.submit(source.name, encoded, self._intake.take(source.name, len(encoded)))
        except SpoolUnavailableError as error:
            return self._reject_for_now(source.name, error)
        self._unavailable.succeeded()
        self._accepted[source.name].inc()
        return web.Response(body=b"accepted\n", headers=_ACCEPTED)

    def _second_query(self, source: Source, query: str) -> str | None:
        """Return a query with a wrong secret as one that has a second query, if its secret is right then."""
        second = with_second_query(query, source.adapter.meanings)
        return None if second is None or self._secrets.is_wrong(source, find_secret(_as_bytes(second))) else second

    async def _accept_second(self, source: Source, query: str) -> web.Response:
        second = self._second_query(source, query)
        return await self._accept(source, second) if second else self._refuse_secret(source)

    async def _keep_invalid(self, event: CallbackEvent, error: InvalidCallbackError) -> web.Response:
        """Reject an invalid callback and dead-letter it: after a correction of the adapter link it can be redriven."""
        detail = f"{error} (value {error.shown_value})" if error.shown_value else str(error)
        members = {"parameter": error.parameter, "value": error.shown_value}
        answer = problem(400, "Invalid callback", f"The {error}. {KEPT}", members)
        self._invalid[event.source].failed(str(error), source=event.source, parameter=error.parameter, problem=error.problem)
        return await self._dead_letter(event, encode(event), (DeadLetterReason.INVALID_CALLBACK, detail), answer)

    async def _keep_body(self, event: CallbackEvent, body: Body, error: UnreadableBodyError) -> web.Response:
        """Reject a callback whose body cannot be understood, and dead-letter it with the bytes."""
        content = self._secrets.hide_in_body(event.source, body.content)
        is_cut = len(body.content) == MAX_BODY_BYTES and error.status == 413  # noqa: PLR2004 - Content Too Large
        unread = UnreadCallback(event.source, event.received_at, event.query, content, body.content_type, body.encoding, is_cut)
        self._invalid[event.source].failed(error.detail, source=event.source, parameter=None, problem=error.title)
        detail = f"{error.detail} It has {len(body.content)} bytes of type {body.content_type or 'unknown'}."
        answer = problem(error.status, error.title, f"{error.detail} The callback is kept as a dead letter.")
        return await self._dead_letter(event, unread.encode(), (DeadLetterReason.UNREADABLE_BODY, detail), answer)

    async def _dead_letter(
        self, event: CallbackEvent, encoded: bytes, why: tuple[DeadLetterReason, str], answer: web.Response
    ) -> web.Response:
        """Dead-letter a callback; returns the answer once it is durable."""
        body, (reason, detail) = join([encoded]), why
        self._intake.take(event.source, len(body) + _DEAD_LETTER_BYTES)  # it does not wait: the fold does not see it
        headers = dead_letter_headers(reason, detail, event.received_at)
        try:
            await self._send(OutgoingMessage("", CALLBACKS_DEAD, headers, body))
        except SpoolUnavailableError as unavailable:
            return self._reject_for_now(event.source, unavailable)
        self._unavailable.succeeded()
        metrics.CALLBACKS.labels(event.source, "invalid").inc()
        metrics.DEAD_LETTERS.labels(CALLBACKS_DEAD, reason).inc()
        return answer

    def refuse_line(self, target: str) -> web.Response:
        """Refuse a request line that is too long, given the target or its beginning."""
        source = self._sources.get(SourceName(read_target(target).name))
        if source is not None:
            self._log_refused(source, 414, TOO_LONG)
        return reject(414, "URI Too Long", TOO_LONG)

    def _refuse_body(self, source: Source, error: UnreadableBodyError) -> web.Response:
        self._log_refused(source, error.status, error.detail)
        return reject(error.status, error.title, error.detail)

    def _refuse_secret(self, source: Source) -> web.Response:
        self._log_refused(source, 401, UNAUTHORIZED)
        return wrong_secret(source.name)

    def _log_refused(self, source: Source, status: int, detail: str) -> None:
        """Log that a callback was refused and is kept nowhere; it can be anybody's, so the line quotes nothing of it."""
        outage = self._refused.setdefault((source.name, status), Outage(log, "callback_refused"))
        outage.failed(detail, source=source.name, status=status)

    def _reject_for_now(self, source: str, error: SpoolUnavailableError) -> web.Response:
        metrics.CALLBACKS.labels(source, "unavailable").inc()
        self._unavailable.failed(str(error), source=source)
        return unavailable()
