"""Answers what is refused and not kept, with its traces: a count, a log line, and for a callback a copy in the quarantine."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from aiohttp import web

from ingress.answers import (
    TOO_LONG,
    UNAUTHORIZED,
    not_http,
    reject,
    too_many,
    unavailable,
    unknown_source,
    wrong_method,
    wrong_secret,
)
from ingress.body_formats import UnreadableBodyError
from ingress.forms import Body
from ingress.intake import Refusal as LimitedRefusal
from ingress.quarantine import Quarantine, Suspect
from shared import metrics
from shared.clock import utc_now
from shared.domain.ids import SourceName
from shared.domain.quarantined import Refusal
from shared.domain.times import milliseconds
from shared.errors import SpoolUnavailableError
from shared.log import get_logger
from shared.outage import Outage
from shared.runtime.client_address import Proxies
from shared.runtime.http_protocol import header_problem

log = get_logger(__name__)

# Other log events report these.
_LOGGED_ELSEWHERE = frozenset({Refusal.LIMITED, Refusal.UNAVAILABLE, Refusal.FAULT})
_OF_BODIES = {400: Refusal.NOT_HTTP, 408: Refusal.BODY_TOO_SLOW, 413: Refusal.BODY_TOO_LARGE, 415: Refusal.BODY_UNREADABLE}
_NO_BODY = Body()
_NO_SOURCE = SourceName("")


class Refusals:
    """Answers what is refused, with its traces. Without a quarantine, these are counts and log lines.

    Attributes:
        last_accepted: when the last callback of a source was accepted, RFC 3339 UTC.
    """

    def __init__(self, proxies: Proxies, quarantine: Quarantine | None = None) -> None:
        self._proxies = proxies
        self._quarantine = quarantine
        self._counters = {reason: metrics.CALLBACKS_REFUSED.labels(reason) for reason in Refusal}
        self._outages: dict[tuple[Refusal, SourceName], Outage] = {}
        self._rejected: dict[SourceName, Outage] = {}
        self._unavailable = Outage(log, "callback_rejected_503", "callbacks_accepted", is_error=True)
        self.last_accepted: dict[SourceName, str] = {}

    def wrong_secret(self, request: web.BaseRequest, source: SourceName, query: str, body: Body = _NO_BODY) -> web.Response:
        peer = self._record(request, Refusal.WRONG_SECRET, (401, UNAUTHORIZED), source)
        self._keep(peer, Refusal.WRONG_SECRET, source, query, body)
        return wrong_secret(source)

    def unknown_source(self, request: web.BaseRequest, name: str, query: str, body: Body = _NO_BODY) -> web.Response:
        peer = self._record(request, Refusal.UNKNOWN_SOURCE, (404, "The path names no source."))
        self._keep(peer, Refusal.UNKNOWN_SOURCE, name, query, body)
        return unknown_source(name)

    def wrong_method(self, request: web.BaseRequest, source: SourceName) -> web.Response:
        self._record(request, Refusal.WRONG_METHOD, (405, "The method is neither GET nor POST."), source)
        return wrong_method()

    def body(self, request: web.BaseRequest, source: SourceName, error: UnreadableBodyError) -> web.Response:
        self._record(request, _OF_BODIES[error.status], (error.status, error.detail), source)
        return reject(error.status, error.title, error.detail)

    def line(self, request: web.BaseRequest, source: SourceName) -> web.Response:
        """Refuse a request line that is too long. `source` is '' if it names none."""
        self._record(request, Refusal.LINE_TOO_LONG, (414, TOO_LONG), source)
        return reject(414, "URI Too Long", TOO_LONG)

    def limited(self, request: web.BaseRequest, source: SourceName, limit: LimitedRefusal) -> web.Response:
        self._record(request, Refusal.LIMITED, (429, limit.reason), source)
        return too_many(source, *limit)

    def show_last_accepted(self, sources: Iterable[SourceName]) -> None:
        """Export when the last callback of each source was accepted. It is read when it is scraped, so a callback costs less."""
        for name in sources:
            metrics.LAST_CALLBACK.labels(name).set_function(partial(self._last_accepted_s, name))

    def _last_accepted_s(self, source: SourceName) -> float:
        at = self.last_accepted.get(source)
        return milliseconds(at) / 1000 if at else 0.0

    def accepted(self) -> None:
        """Record that a callback is durable, which ends an outage."""
        self._unavailable.succeeded()

    def rejected(self, source: SourceName) -> Outage:
        """Return the log of the callbacks of a source that are rejected and kept."""
        if source not in self._rejected:
            self._rejected[source] = Outage(log, "callback_rejected")
        return self._rejected[source]

    def unavailable(self, request: web.BaseRequest, source: SourceName, error: SpoolUnavailableError) -> web.Response:
        metrics.CALLBACKS.labels(source, "unavailable").inc()
        self._unavailable.failed(str(error), source=source)
        self._record(request, Refusal.UNAVAILABLE, (503, ""), source)
        return unavailable()

    def head(self, request: web.BaseRequest, status: int, error: BaseException | None) -> web.Response:
        """Refuse what the HTTP parser does not take, or what ingress itself failed on."""
        if headers := header_problem(error):
            self._record(request, Refusal.HEADERS_TOO_LONG, (431, headers))
            return reject(431, "Request Header Fields Too Large", f"{headers} A proxy in front may have added to them.")
        if status >= 500:  # noqa: PLR2004 - a fault of ingress
            self._record(request, Refusal.FAULT, (status, ""))
            return reject(status, "Internal Server Error", "The request failed. See the log of ingress.")
        self._record(request, Refusal.NOT_HTTP, (status, "This is not a valid HTTP request."))
        return not_http(status)

    def _record(self, request: web.BaseRequest, reason: Refusal, why: tuple[int, str], source: SourceName = _NO_SOURCE) -> str:
        """Count and log a refusal with its status and detail; returns the sender.

        A request can be anybody's, so the line quotes nothing of it.
        """
        self._counters[reason].inc()
        peer = self._proxies.client(request)
        if reason not in _LOGGED_ELSEWHERE:
            status, detail = why
            outage = self._outages.setdefault((reason, source), Outage(log, "callback_refused"))
            outage.failed(detail, key=peer, reason=reason, status=status, source=source or None, peer=peer)
        if self._quarantine is not None:
            self._quarantine.count(reason, source, peer)
        return peer

    def _keep(self, peer: str, reason: Refusal, source: str, query: str, body: Body) -> None:
        """Offer a callback to the quarantine; `source` is the name in its path."""
        size = len(query) + len(body.content)
        if self._quarantine is not None and size and self._quarantine.admits(peer, size):
            self._quarantine.offer(Suspect(reason, source, peer, utc_now(), query, body))
