"""Handles `GET|POST /callbacks/{source}`: makes a callback durable, or rejects the request."""

from __future__ import annotations

import hmac
import re
from collections.abc import Awaitable, Callable
from hashlib import sha256
from urllib.parse import unquote

import orjson
from aiohttp import web
from multidict import CIMultiDict

from ingress.forms import NoFormError, UnreadableFormError, percent_encoded, read_form
from ingress.intake import Intake
from ingress.outgoing_message import OutgoingMessage
from ingress.request_lines import LINE_BYTES, TARGET_BYTES
from shared import metrics
from shared.amqp.dead_letters import DeadLetterReason, dead_letter_headers
from shared.amqp.topology import CALLBACKS_DEAD
from shared.clock import utc_now
from shared.config.secret_strength import MIN_CHARACTERS
from shared.config.sources import Source, Sources
from shared.domain.adapter_link import find_secret, hide_values, spellings, take_secret
from shared.domain.callback import parse_callback
from shared.domain.ids import SOURCE_NAME, SourceName
from shared.domain.raw_event import CallbackEvent, encode, join
from shared.errors import InvalidCallbackError, SpoolUnavailableError
from shared.log import get_logger
from shared.outage import Outage
from shared.partial_values import mask

log = get_logger(__name__)

PATH = "/callbacks/"
_RETRY_AFTER_S = "2"
_RETRY_AFTER_LIMIT_S = "10"
# RFC 9112, 3.2.2: a server must accept the absolute form. The host in it is ignored.
_ABSOLUTE_FORM = re.compile(r"https?://[^/?]*", re.IGNORECASE)
_HEADERS = {"Server": "callfold"}  # the default value shows the version of the library
_ACCEPTED = CIMultiDict(_HEADERS | {"Content-Type": "text/plain"})  # built once: this is the hot path
_LONG_QUERY = 1024
_SEE = "See docs/settings.md."
# What a dead letter counts beyond its bytes: its headers, and what RabbitMQ keeps of each message. Its queue has no limit.
_DEAD_LETTER_BYTES = 1024

Send = Callable[[OutgoingMessage], Awaitable[None]]


def _as_bytes(query: str) -> bytes:
    return query.encode("utf-8", "surrogateescape")


def _digest(secret: str) -> bytes:
    return sha256(secret.encode("utf-8", "surrogatepass")).digest()


class CallbackHandler:
    """Answers callbacks of known sources and rejects every other request."""

    def __init__(self, sources: Sources, intake: Intake, send: Send) -> None:
        """Take the sources, the intake for valid callbacks, and the function that dead-letters invalid ones."""
        self._sources = sources
        self._intake = intake
        self._send = send
        # Digests have the same length, so the comparison takes the same time for every secret.
        self._digests = {name: _digest(s.secret.get_secret_value()) for name, s in sources.items() if s.secret}
        # An adapter link can contain the secret again under another name, and that copy must not be stored either.
        self._hidden = {name: spellings(s.secret.get_secret_value()) for name, s in sources.items() if s.secret}
        self._unavailable = Outage(log, "callback_rejected_503", "callbacks_accepted", is_error=True)
        self._invalid = {name: Outage(log, "callback_rejected") for name in sources}
        self._accepted = {name: metrics.CALLBACKS.labels(name, "accepted") for name in sources}

    async def answer(self, request: web.BaseRequest) -> web.Response:
        """Answer one request; the answer is 200 only if the callback is durable."""
        target = request.raw_path
        if len(target) > TARGET_BYTES:
            return too_long()
        if not target.startswith("/"):
            target = _ABSOLUTE_FORM.sub("", target, count=1)
        path, _, query = target.partition("?")
        source = self._source(path)
        if source is None:
            return unknown_source(path)
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
        if secret is not None and self._is_wrong(source, secret):
            return _wrong_secret(source)
        try:
            form = await read_form(request)
        except UnreadableFormError as error:
            if not query or not isinstance(error, NoFormError):
                return reject(error.status, error.title, error.detail)
            form = b""
        if secret is None and self._is_wrong(source, find_secret(form)):
            return _wrong_secret(source)
        return await self._accept(source, "&".join(part for part in (query, percent_encoded(form)) if part))

    def _source(self, path: str) -> Source | None:
        if not path.startswith(PATH):
            return None
        name = path[len(PATH) :]
        return self._sources.get(SourceName(unquote(name) if "%" in name else name))

    def _is_wrong(self, source: Source, secret: str | None) -> bool:
        expected = self._digests.get(source.name)
        return expected is not None and not hmac.compare_digest(_digest(secret or ""), expected)

    async def _accept(self, source: Source, query: str) -> web.Response:
        # For a long query it is cheaper to judge the secret before all parameters are split.
        if len(query) > _LONG_QUERY and self._is_wrong(source, find_secret(_as_bytes(query))):
            return _wrong_secret(source)
        secret, query = take_secret(query)
        if self._is_wrong(source, secret):
            return _wrong_secret(source)
        if self._intake.is_refused(source.name):
            return _too_many(source.name)
        if source.name in self._hidden:
            query = hide_values(query, self._hidden[source.name])
        event = CallbackEvent(source.name, utc_now(), query)
        try:
            parse_callback(source.adapter, query)
        except InvalidCallbackError as error:
            return await self._dead_letter(event, error)
        encoded = encode(event)
        try:
            await self._intake.submit(source.name, encoded, self._intake.take(source.name, len(encoded)))
        except SpoolUnavailableError as error:
            return self._reject_for_now(source.name, error)
        self._unavailable.succeeded()
        self._accepted[source.name].inc()
        return web.Response(body=b"accepted\n", headers=_ACCEPTED)

    async def _dead_letter(self, event: CallbackEvent, error: InvalidCallbackError) -> web.Response:
        """Reject an invalid callback and dead-letter it: after a correction of the adapter link it can be redriven."""
        detail = f"{error} (value {error.shown_value})" if error.shown_value else str(error)
        headers = dead_letter_headers(DeadLetterReason.INVALID_CALLBACK, detail, event.received_at)
        body = join([encode(event)])
        self._intake.take(event.source, len(body) + _DEAD_LETTER_BYTES)  # it does not wait: the fold does not see it
        try:
            await self._send(OutgoingMessage("", CALLBACKS_DEAD, headers, body))
        except SpoolUnavailableError as unavailable:
            return self._reject_for_now(event.source, unavailable)
        self._unavailable.succeeded()
        metrics.CALLBACKS.labels(event.source, "invalid").inc()
        metrics.DEAD_LETTERS.labels(CALLBACKS_DEAD, DeadLetterReason.INVALID_CALLBACK).inc()
        source = event.source
        self._invalid[source].failed(str(error), source=source, parameter=error.parameter, problem=error.problem)
        members = {"parameter": error.parameter, "value": error.shown_value}
        return _problem(400, "Invalid callback", f"The {error}.", members)

    def _reject_for_now(self, source: str, error: SpoolUnavailableError) -> web.Response:
        metrics.CALLBACKS.labels(source, "unavailable").inc()
        self._unavailable.failed(str(error), source=source)
        return _unavailable()


def reject(status: int, title: str, detail: str) -> web.Response:
    """Reject and count a request that is not a callback, because of its path, method or body."""
    metrics.REQUESTS_REFUSED.labels(str(status)).inc()
    return _problem(status, title, detail)


def too_long() -> web.Response:
    """Reject a request whose line, as received, is too long."""
    return reject(414, "URI Too Long", f"The request line is longer than {LINE_BYTES} bytes.")


def unknown_source(path: str) -> web.Response:
    """Reject a path that names no source. It quotes only what has the form of a name, and masks one as long as a secret."""
    name = unquote(path[len(PATH) :]) if path.startswith(PATH) else ""
    if not name:
        detail = "Send callbacks to /callbacks/<source>."
    elif SOURCE_NAME.fullmatch(name):
        shown = name if len(name) < MIN_CHARACTERS else mask(name)
        detail = f'Unknown source "{shown}". Correct the link, or configure it in CALLFOLD_SOURCES. {_SEE}'
    else:
        detail = f"The path names no source. A name has a to z, 0 to 9, _ and - only. {_SEE}"
    return reject(404, "Not Found", detail)


def _wrong_secret(source: Source) -> web.Response:
    metrics.CALLBACKS.labels(source.name, "wrong_secret").inc()
    return _problem(401, "Unauthorized", "The parameter token is missing or wrong.")


def _too_many(source: str) -> web.Response:
    metrics.CALLBACKS.labels(source, "limited").inc()
    response = _problem(429, "Too Many Requests", "This source has sent more than Callfold accepts from one source. Retry later.")
    response.headers["Retry-After"] = _RETRY_AFTER_LIMIT_S
    return response


def _unavailable() -> web.Response:
    response = _problem(503, "Service Unavailable", "Neither RabbitMQ nor the local spool accepts the callback now. Retry later.")
    response.headers["Retry-After"] = _RETRY_AFTER_S
    return response


def _problem(status: int, title: str, detail: str, members: dict[str, str] | None = None) -> web.Response:
    """Write an error as problem details (RFC 9457)."""
    body = orjson.dumps({"type": "about:blank", "title": title, "status": status, "detail": detail} | (members or {}))
    return web.Response(status=status, body=body, content_type="application/problem+json", headers=_HEADERS)
