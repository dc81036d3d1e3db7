"""The answers of ingress to requests that it does not accept: problem details, counted by status."""

from __future__ import annotations

import orjson
from aiohttp import web

from ingress.request_lines import LINE_BYTES
from shared import metrics
from shared.config.secret_strength import MIN_CHARACTERS
from shared.domain.ids import SOURCE_NAME
from shared.partial_values import mask

PATH = "/callbacks/"
HEADERS = {"Server": "callfold"}  # the default value shows the version of the library
TOO_LONG = f"The request line is longer than {LINE_BYTES} bytes. Send it as a POST form, or shorten the link."
UNAUTHORIZED = "The parameter token is missing or wrong."
KEPT = "The callback is kept as a dead letter. Correct the link, then redrive it."
_RETRY_AFTER_S = "2"
_SEE = "See docs/settings.md."


def reject(status: int, title: str, detail: str) -> web.Response:
    """Reject and count a request that is not a callback, because of its path, method, size or body."""
    metrics.REQUESTS_REFUSED.labels(str(status)).inc()
    return problem(status, title, detail)


def not_http(status: int) -> web.Response:
    return reject(status, "Bad Request", "This is not a valid HTTP request.")


def wrong_method() -> web.Response:
    response = reject(405, "Method Not Allowed", "Send callbacks as GET or POST requests.")
    response.headers["Allow"] = "GET, POST"
    return response


def unknown_source(name: str) -> web.Response:
    """Reject a path that names no source. It quotes only what has the form of a name, and masks one as long as a secret."""
    if not name:
        detail = "Send callbacks to /callbacks/<source>."
    elif SOURCE_NAME.fullmatch(name):
        shown = name if len(name) < MIN_CHARACTERS else mask(name)
        detail = f'Unknown source "{shown}". Correct the link, or configure it in CALLFOLD_SOURCES. {_SEE}'
    else:
        detail = f"The path names no source. A name has a to z, 0 to 9, _ and - only. {_SEE}"
    return reject(404, "Not Found", detail)


def wrong_secret(source: str) -> web.Response:
    metrics.CALLBACKS.labels(source, "wrong_secret").inc()
    return problem(401, "Unauthorized", f"{UNAUTHORIZED} Compare with `callfold adapter-link {source}`.")


def too_many(source: str, reason: str, retry_after_s: int) -> web.Response:
    metrics.CALLBACKS.labels(source, "limited").inc()
    response = problem(429, "Too Many Requests", f"Source {source} is refused: {reason}. Retry later.")
    response.headers["Retry-After"] = str(retry_after_s)
    return response


def unavailable() -> web.Response:
    response = problem(503, "Service Unavailable", "Neither RabbitMQ nor the local spool accepts the callback now. Retry later.")
    response.headers["Retry-After"] = _RETRY_AFTER_S
    return response


def problem(status: int, title: str, detail: str, members: dict[str, str] | None = None) -> web.Response:
    """Write an error as problem details (RFC 9457)."""
    body = orjson.dumps({"type": "about:blank", "title": title, "status": status, "detail": detail} | (members or {}))
    return web.Response(status=status, body=body, content_type="application/problem+json", headers=HEADERS)
