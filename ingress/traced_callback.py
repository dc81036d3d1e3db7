"""The spans of a callback: its request, and the creation of its raw event, whose context travels with it.

A request continues no trace of its sender. Its trace follows from its call, and only a request with a right secret gets a span.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from aiohttp import web

from shared.amqp.topology import CALLBACKS
from shared.domain.callback import Callback
from shared.domain.facts import call_key
from shared.domain.ids import SourceName
from shared.tracing import spans
from shared.tracing.contexts import CREATION_CONTEXTS, TraceContext, pack
from shared.tracing.conventions import STATUS, Operation, callback_request, messaging, published_to
from shared.tracing.spans import Position, Span

_CREATE = messaging(Operation.CREATE, published_to(CALLBACKS, ""))
_SERVER_ERRORS = 500


class TracedEvent(bytes):
    """An encoded event with the context in which it was created. It is like any other event to what joins and keeps events."""

    context: TraceContext


class TracedCallback:
    """A callback of a sampled call, from its check until it is durable."""

    def __init__(self, server: Span, create: Span) -> None:
        self._server = server
        self._create = create

    @classmethod
    def begin(cls, request: web.BaseRequest, source: SourceName, callback: Callback) -> Self | None:
        """Start the spans; None if the call is not sampled."""
        key = call_key(source, callback)
        root = spans.root_context(str(key))
        if root is None:
            return None
        described = callback_request(request.method, source, key.call, request.scheme)
        server = spans.start(described, Position(root))
        create = server and spans.start(_CREATE, Position(server.context))
        return cls(server, create) if server and create else None

    def event(self, encoded: bytes) -> TracedEvent:
        """Return the event with its context."""
        event = TracedEvent(encoded)
        event.context = self._create.context
        return event

    def end(self, status: int) -> None:
        """End the spans with the status of the answer."""
        self._server.set(STATUS, status)
        if status >= _SERVER_ERRORS:
            self._server.fail(str(status))
            self._create.fail(str(status))
        self._create.end()
        self._server.end()


def contexts_header(events: Sequence[bytes]) -> dict[str, str]:
    """Return the header of a message of callbacks, if one of them is traced."""
    contexts = {position: event.context for position, event in enumerate(events) if isinstance(event, TracedEvent)}
    return {CREATION_CONTEXTS: pack(contexts)} if contexts else {}
