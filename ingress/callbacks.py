"""Handles `GET|POST /callbacks/{source}`: makes a callback durable, or rejects the request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from ingress.accepted import ACCEPTED
from ingress.answers import KEPT, PATH, problem
from ingress.body_formats import UnknownFormatError, UnreadableBodyError
from ingress.forms import Body, is_form, query_of, read_body, secret_of
from ingress.intake import Intake
from ingress.outgoing_message import OutgoingMessage
from ingress.refusals import Refusals
from ingress.request_lines import TARGET_BYTES
from ingress.source_secrets import SourceSecrets, Which
from ingress.targets import is_odd, read_target, respelled, tidied, with_second_query
from ingress.traced_callback import TracedCallback
from shared import metrics
from shared.amqp.dead_letters import DeadLetterReason, dead_letter_headers
from shared.amqp.topology import CALLBACKS_DEAD
from shared.clock import utc_now
from shared.config.sources import Source, Sources
from shared.domain.adapter_link import find_secret, take_secret
from shared.domain.callback import Callback, parse_callback
from shared.domain.ids import SourceName
from shared.domain.raw_event import CallbackEvent, encode, join
from shared.domain.unread_body import UnreadCallback
from shared.errors import InvalidCallbackError, SpoolUnavailableError
from shared.percent_encoding import bytes_of
from shared.runtime.http_protocol import MAX_BODY_BYTES, header_problem
from shared.tracing.spans import is_on

_LONG_QUERY = 1024
# What a dead letter counts beyond its bytes: its headers, and what RabbitMQ keeps of each message. Its queue has no limit.
_DEAD_LETTER_BYTES = 1024
_NO_BODY = Body()

Send = Callable[[OutgoingMessage], Awaitable[None]]


class _Right(NamedTuple):
    """A query in the spelling in which its secret is right, and which secret of the source that is."""

    query: str
    which: Which


def _parsed(source: Source, event: CallbackEvent) -> tuple[CallbackEvent, Callback]:
    """Check a callback; returns its event, with the query in the spelling that can be parsed, and the callback.

    Raises:
        InvalidCallbackError: it cannot be folded.
    """
    try:
        return event, parse_callback(source.adapter, event.query)
    except InvalidCallbackError:
        second = with_second_query(event.query, source.adapter.meanings)
        if second is None:
            raise
        with suppress(InvalidCallbackError):
            callback = parse_callback(source.adapter, second)
            return replace(event, query=second), callback
        raise


class CallbackHandler:
    """Answers callbacks of known sources and rejects every other request, by one state of the sources: see `LiveHandler`."""

    def __init__(self, sources: Sources, intake: Intake, send: Send, refusals: Refusals) -> None:
        """Take the sources, the intake for valid callbacks, what dead-letters invalid ones, and what answers all others."""
        self._refusals = refusals
        refusals.show_last_accepted(sources)
        self._sources = sources
        self._by_path = {f"{PATH}{name}": source for name, source in sources.items()}
        self._intake = intake
        self._send = send
        self._secrets = SourceSecrets(sources)
        self._accepted = {name: metrics.CALLBACKS.labels(name, "accepted") for name in sources}
        self._used = {
            (name, which): metrics.CALLBACK_SECRETS.labels(name, which)
            for name, source in sources.items()
            for which in (Which if source.secret else ())
        }

    async def answer(self, request: web.BaseRequest) -> web.Response:
        """Answer one request; the answer is 200 only if the callback is durable."""
        target = request.raw_path
        if len(target) > TARGET_BYTES:
            return self.refuse_line(request, target)
        path, _, query = target.partition("?")
        source = self._by_path.get(path)
        if source is None:
            name, query = read_target(target)
            source = self._sources.get(SourceName(name))
            if source is None:
                return await self._answer_unknown(request, name, query)
        if is_odd(query):
            query = tidied(query)
        if request.method == "POST":
            return await self._answer_post(request, source, query)
        if request.method != "GET":
            return self._refusals.wrong_method(request, source.name)
        return await self._accept(request, source, query)

    async def _answer_unknown(self, request: web.BaseRequest, name: str, query: str) -> web.Response:
        """Refuse a request for no known source. If its path has the form of one, its body is read for the quarantine."""
        has_body = bool(name) and request.method == "POST"
        body = await read_body(request, is_trusted=False) if has_body else _NO_BODY
        return self._refusals.unknown_source(request, name, query, body)

    async def _answer_post(self, request: web.BaseRequest, source: Source, query: str) -> web.Response:
        """Judge the secret as soon as it is known: before the body is read, if the query has one, else before it is decoded."""
        right = self._right(source, query)
        if right is None and find_secret(bytes_of(query)) is not None:
            return self._refusals.wrong_secret(request, source.name, query)
        body = await read_body(request, is_trusted=right is not None)
        try:
            if right is None:
                if body.problem:
                    return self._refusals.body(request, source.name, body.problem)
                in_body = self._with_right_secret(source, body)
                if in_body is None:
                    return self._refusals.wrong_secret(request, source.name, query, body)
                sent, which = in_body
            else:
                sent = query_of(body) if body.content and not body.problem else ""
                query, which = right
        except UnreadableBodyError as error:
            which_sent = self._secrets.which_in_body(source.name, body.content) if right is None else right.which
            if which_sent is None:
                if isinstance(error, UnknownFormatError):
                    return self._refusals.body(request, source.name, error)
                return self._refusals.wrong_secret(request, source.name, query, body)
            sent, which, body = "", which_sent, replace(body, problem=error)
            query = query if right is None else right.query
        query = "&".join(part for part in (query, sent) if part)
        return await self._keep(request, source, _Right(take_secret(query)[1], which), body)

    def _right(self, source: Source, query: str) -> _Right | None:
        """Return a query in the spelling in which its secret is right; None if it is wrong in all."""
        which = self._secrets.which(source, find_secret(bytes_of(query)))
        if which is not None:
            return _Right(query, which)
        for each in respelled(query, source.adapter.meanings):
            which = self._secrets.which(source, find_secret(bytes_of(each)))
            if which is not None:
                return _Right(each, which)
        return None

    def _with_right_secret(self, source: Source, body: Body) -> _Right | None:
        """Return the query of a stranger's body with the right secret; None if that is wrong.

        Raises:
            UnreadableBodyError: the body cannot be understood.
        """
        if is_form(body):
            return self._right(source, query_of(body))
        which = self._secrets.which(source, secret_of(body))
        return None if which is None else _Right(query_of(body), which)

    async def _accept(self, request: web.BaseRequest, source: Source, query: str) -> web.Response:
        """Judge the secret of a GET, and make its callback durable."""
        # For a long query it is cheaper to judge the secret before all parameters are split.
        is_long = len(query) > _LONG_QUERY
        secret, rest = (None, "") if is_long else take_secret(query)
        which = None if is_long else self._secrets.which(source, secret)
        if which is None:
            right = self._right(source, query)
            if right is None:
                return self._refusals.wrong_secret(request, source.name, query)
            rest, which = take_secret(right.query)[1], right.which
        return await self._keep(request, source, _Right(rest, which), _NO_BODY)

    async def _keep(self, request: web.BaseRequest, source: Source, right: _Right, body: Body) -> web.Response:
        """Make a callback durable, given its query without the secret. A body with a problem is not in the query."""
        if refusal := self._intake.refusal(source.name):
            return self._refusals.limited(request, source.name, refusal)
        query, which = right
        if counter := self._used.get((source.name, which)):
            counter.inc()
        query = self._secrets.hide(source.name, query)
        event = CallbackEvent(source.name, utc_now(), query, has_previous_secret=which is Which.PREVIOUS)
        try:
            event, callback = _parsed(source, event)
        except InvalidCallbackError as error:
            if body.problem:
                return await self._keep_body(request, event, body, body.problem)
            return await self._keep_invalid(request, event, error)
        encoded = encode(event)
        traced = TracedCallback.begin(request, source.name, callback) if is_on() else None
        if traced is not None:
            encoded = traced.event(encoded)
        try:
            await self._intake.submit(source.name, encoded, self._intake.take(source.name, len(encoded)))
        except SpoolUnavailableError as error:
            if traced is not None:
                traced.end(503)
            return self._reject_for_now(request, source.name, error)
        if traced is not None:
            traced.end(200)
        self._refusals.accepted()
        self._accepted[source.name].inc()
        self._refusals.last_accepted[source.name] = event.received_at
        return ACCEPTED

    async def _keep_invalid(self, request: web.BaseRequest, event: CallbackEvent, error: InvalidCallbackError) -> web.Response:
        """Reject an invalid callback and dead-letter it: after a correction of the adapter link it can be redriven."""
        detail = f"{error} (value {error.shown_value})" if error.shown_value else str(error)
        members = {"parameter": error.parameter, "value": error.shown_value}
        answer = problem(400, "Invalid callback", f"The {error}. {KEPT}", members)
        self._refusals.rejected(event.source).failed(
            str(error), source=event.source, parameter=error.parameter, problem=error.problem
        )
        return await self._dead_letter(request, (event, encode(event)), (DeadLetterReason.INVALID_CALLBACK, detail), answer)

    async def _keep_body(
        self, request: web.BaseRequest, event: CallbackEvent, body: Body, error: UnreadableBodyError
    ) -> web.Response:
        """Reject a callback whose body cannot be understood, and dead-letter it with the bytes."""
        content = self._secrets.hide_in_body(event.source, body.content)
        content_type = self._secrets.hide(event.source, body.content_type)
        encoding = self._secrets.hide(event.source, body.encoding)
        is_cut = len(body.content) == MAX_BODY_BYTES and error.status == 413  # noqa: PLR2004 - Content Too Large
        unread = UnreadCallback(event.source, event.received_at, event.query, content, content_type, encoding, is_cut)
        self._refusals.rejected(event.source).failed(error.detail, source=event.source, parameter=None, problem=error.title)
        detail = f"{error.detail} It has {len(body.content)} bytes of type {content_type or 'unknown'}."
        answer = problem(error.status, error.title, f"{error.detail} The callback is kept as a dead letter.")
        return await self._dead_letter(request, (event, unread.encode()), (DeadLetterReason.UNREADABLE_BODY, detail), answer)

    async def _dead_letter(
        self,
        request: web.BaseRequest,
        callback: tuple[CallbackEvent, bytes],
        why: tuple[DeadLetterReason, str],
        answer: web.Response,
    ) -> web.Response:
        """Dead-letter a callback, given also as it is encoded; returns the answer once it is durable."""
        (event, encoded), (reason, detail) = callback, why
        body = join([encoded])
        self._intake.take(event.source, len(body) + _DEAD_LETTER_BYTES)  # it does not wait: the fold does not see it
        headers = dead_letter_headers(reason, detail, event.received_at)
        try:
            await self._send(OutgoingMessage("", CALLBACKS_DEAD, headers, body))
        except SpoolUnavailableError as unavailable:
            return self._reject_for_now(request, event.source, unavailable)
        self._refusals.accepted()
        metrics.CALLBACKS.labels(event.source, "invalid").inc()
        metrics.DEAD_LETTERS.labels(CALLBACKS_DEAD, reason).inc()
        return answer

    def refuse_line(self, request: web.BaseRequest, target: str) -> web.Response:
        """Refuse a request line that is too long, given the target or its beginning."""
        source = self._sources.get(SourceName(read_target(target).name))
        return self._refusals.line(request, source.name if source else SourceName(""))

    def refuse_head(self, request: web.BaseRequest, status: int, error: BaseException | None) -> web.Response:
        """Refuse what the HTTP parser does not take."""
        if isinstance(error, LineTooLong) and header_problem(error) is None:
            return self.refuse_line(request, error.args[0].decode("latin-1"))
        return self._refusals.head(request, status, error)

    def _reject_for_now(self, request: web.BaseRequest, source: SourceName, error: SpoolUnavailableError) -> web.Response:
        return self._refusals.unavailable(request, source, error)
