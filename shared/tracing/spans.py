"""Records spans, if tracing is on. Otherwise each function here returns at once, and OpenTelemetry is not imported.

Only what belongs to a sampled call is recorded: a span needs a parent, or links.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol

from structlog.contextvars import bound_contextvars

from shared.log import get_logger
from shared.outage import Outage
from shared.tracing.contexts import SpanId, TraceContext, TraceId, root_of, trace_of
from shared.tracing.conventions import Described

log = get_logger(__name__)
_FAULTS = Outage(log, "spans_not_recorded", is_error=True)


class Span(Protocol):
    """A span that is being recorded."""

    @property
    def context(self) -> TraceContext: ...

    def set(self, name: str, value: str | int) -> None:
        """Set an attribute."""

    def fail(self, error: str) -> None:
        """Mark it as failed; `error` is one of few values, such as the name of an exception."""

    def end(self, at_ns: int | None = None) -> None: ...


class Recorder(Protocol):
    """Records spans with OpenTelemetry."""

    def is_sampled(self, trace_id: TraceId) -> bool: ...

    def start(self, described: Described, where: Position) -> Span: ...


@dataclass(frozen=True, slots=True)
class Position:
    """Parent, links, ids and begin of a span. Without a parent it begins a trace; without an id it gets a random one."""

    parent: TraceContext | None = None
    links: Sequence[TraceContext] = ()
    trace_id: TraceId | None = None
    span_id: SpanId | None = None
    start_ns: int | None = None


@dataclass(slots=True)
class _State:
    recorder: Recorder | None = None


_STATE = _State()
_CURRENT: ContextVar[Span | None] = ContextVar("span", default=None)


@contextmanager
def recording_with(recorder: Recorder | None) -> Iterator[None]:
    """Record spans while the body runs."""
    before, _STATE.recorder = _STATE.recorder, recorder
    try:
        yield
    finally:
        _STATE.recorder = before


def is_on() -> bool:
    """Return whether spans are recorded."""
    return _STATE.recorder is not None


def root_context(call: str) -> TraceContext | None:
    """Return the context of a call's own span, such as that of `acme/513`; None if the call is not sampled."""
    if _STATE.recorder is None:
        return None
    try:
        return root_of(call) if _STATE.recorder.is_sampled(trace_of(call)) else None
    except Exception as error:  # noqa: BLE001 - as below
        _FAULTS.failed(type(error).__name__)
        return None


def current() -> Span | None:
    """Return the span that is active in this task."""
    return _CURRENT.get()


def trace_id() -> str | None:
    """Return the id of the active trace, as exemplars of metrics have it."""
    span = _CURRENT.get()
    return None if span is None else f"{span.context.trace_id:032x}"


def start(described: Described, where: Position) -> Span | None:
    """Start a span that is not active; the caller ends it."""
    if _STATE.recorder is None:
        return None
    try:
        return _STATE.recorder.start(described, where)
    except Exception as error:  # noqa: BLE001 - no fault of a library may cost a callback, or stop the fold
        _FAULTS.failed(type(error).__name__)
        return None


def record(described: Described, where: Position, *, end_ns: int | None = None) -> None:
    """Record a span after the fact."""
    span = start(described, where)
    if span is not None:
        span.end(end_ns)


@contextmanager
def active(
    described: Described, *, parent: TraceContext | None = None, links: Sequence[TraceContext] = ()
) -> Iterator[Span | None]:
    """Record the body as a span, below the active one if it has neither parent nor links. Log lines have its trace.

    If the body raises, the span has the name of the exception. Its text is left out, which can quote anything.
    """
    above = _CURRENT.get()
    if parent is None and not links and above is not None:
        parent = above.context
    if _STATE.recorder is None or (parent is None and not links):
        yield None
        return
    span = start(described, Position(parent, links))
    if span is None:
        yield None
        return
    token = _CURRENT.set(span)
    try:
        with bound_contextvars(trace_id=f"{span.context.trace_id:032x}"):
            yield span
    except BaseException as error:
        span.fail(type(error).__name__)
        raise
    finally:
        _CURRENT.reset(token)
        span.end()


@contextmanager
def active_batch(described: Described, links: Sequence[TraceContext]) -> Iterator[Span | None]:
    """Record the body as a span about a batch, linked to each message. It is in their trace if that is only one."""
    is_one = len({link.trace_id for link in links}) == 1
    with active(described, parent=links[0] if is_one else None, links=links) as span:
        yield span


def now_ns() -> int:
    """Return the time of the clock by which spans begin and end."""
    return time.time_ns()
