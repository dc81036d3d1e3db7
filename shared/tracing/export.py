"""Records spans with OpenTelemetry's SDK and exports them over OTLP. The only module that imports it.

The SDK queues spans and exports them in a separate thread. If the receiver is slow or away, the queue is full and spans are
lost, and nothing waits for them. What the SDK logs about it becomes one line.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import Final

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.environment_variables import OTEL_SPAN_LINK_COUNT_LIMIT
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Decision, ParentBased, Sampler, TraceIdRatioBased
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from shared.log import get_logger
from shared.outage import Outage
from shared.tracing.contexts import SpanId, TraceContext, TraceId
from shared.tracing.conventions import ERROR, Described
from shared.tracing.spans import Position

log = get_logger(__name__)
_EXPORTS = Outage(log, "traces_not_exported", "traces_exported")

# A batch of callbacks has a link to each. The SDK's default of 128 would drop most of them.
_MAX_LINKS: Final = 1024
# How long a process that stops waits for its last export.
_FLUSH_S: Final = 2.0
# What lines of the SDK are about, by their first word.
_DETAILS = {
    "Queue": "the queue is full, so spans are lost",
    "Transient": "the receiver cannot be reached",
    "Failed": "the receiver did not take spans in time, or refused them",
}
# Of a trace id; a ratio is a bound of these.
_RATIO_BITS = TraceIdRatioBased.TRACE_ID_LIMIT
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_KINDS = {kind.name: kind for kind in SpanKind}


@contextmanager
def exporting(role: str) -> Iterator[Recorder]:
    """Export what the recorder records while the body runs, and for a moment after it."""
    logger = logging.getLogger("opentelemetry")
    logger.handlers[:] = [_OneLine(role)]
    logger.propagate = False
    try:
        processor = BatchSpanProcessor(_Exporter(OTLPSpanExporter()))
        recorder = Recorder(role, processor)
        log.info("traces_started", sampler=recorder.sampler)
        try:
            yield recorder
        finally:
            # The shutdown waits for an export that hangs; this process does not.
            stopping = threading.Thread(target=processor.shutdown, daemon=True)
            stopping.start()
            stopping.join(_FLUSH_S)
    finally:
        logger.handlers[:] = [logging.NullHandler()]  # an export that hangs may log yet


class Recorder:
    """Records spans (implements `shared.tracing.spans.Recorder`)."""

    def __init__(self, role: str, processor: SpanProcessor) -> None:
        """Take what gets each span that has ended."""
        # The provider reads the standard variables. Its sampler decides about calls, and all that belongs to a call follows.
        self._sampler = TracerProvider(shutdown_on_exit=False).sampler
        self._bound = _bound_of(self._sampler)
        self._ids = _Ids()
        provider = TracerProvider(
            sampler=ALWAYS_ON,
            resource=_resource(role),
            id_generator=self._ids,
            span_limits=SpanLimits(max_links=None if OTEL_SPAN_LINK_COUNT_LIMIT in os.environ else _MAX_LINKS),
            shutdown_on_exit=False,
        )
        provider.add_span_processor(processor)
        self._tracer = provider.get_tracer("callfold", version("callfold"))

    @property
    def sampler(self) -> str:
        """A description of the sampler, for the log."""
        return self._sampler.get_description()

    def is_sampled(self, trace_id: TraceId) -> bool:
        if self._bound is not None:
            return trace_id & _RATIO_BITS < self._bound
        return self._sampler.should_sample(None, trace_id, "call", SpanKind.INTERNAL).decision is not Decision.DROP

    def start(self, described: Described, where: Position) -> Span:
        self._ids.next_trace_id, self._ids.next_span_id = where.trace_id, where.span_id
        parent = where.parent
        span = self._tracer.start_span(
            described.name,
            context=trace.set_span_in_context(NonRecordingSpan(_remote(parent))) if parent else _NO_PARENT,
            kind=_KINDS[described.kind],
            attributes=described.attributes,
            links=[Link(_remote(link)) for link in where.links],
            start_time=where.start_ns,
        )
        return Span(span)


class Span:
    """A span that is being recorded (implements `shared.tracing.spans.Span`)."""

    __slots__ = ("_has_failed", "_span", "context")

    def __init__(self, span: trace.Span) -> None:
        context = span.get_span_context()
        self._span = span
        self._has_failed = False
        self.context = TraceContext(TraceId(context.trace_id), SpanId(context.span_id))

    def set(self, name: str, value: str | int) -> None:
        self._span.set_attribute(name, value)

    def fail(self, error: str) -> None:
        if self._has_failed:  # what is known first is the cause
            return
        self._has_failed = True
        self._span.set_attribute(ERROR, error)
        self._span.set_status(Status(StatusCode.ERROR))

    def end(self, at_ns: int | None = None) -> None:
        self._span.end(at_ns)


_NO_PARENT = trace.set_span_in_context(trace.INVALID_SPAN)


def _bound_of(sampler: Sampler) -> int | None:
    """Return the bound below which a sampler takes a trace id; None if it decides otherwise. To ask it costs much more."""
    root = getattr(sampler, "_root", sampler) if isinstance(sampler, ParentBased) else sampler
    return root.bound if isinstance(root, TraceIdRatioBased) else None


def _remote(context: TraceContext) -> SpanContext:
    return SpanContext(context.trace_id, context.span_id, is_remote=True, trace_flags=_SAMPLED)


def _resource(role: str) -> Resource:
    ours = {"service.name": f"callfold-{role}", "service.namespace": "callfold", "service.version": version("callfold")}
    given = {name: value for name, value in Resource.create().attributes.items() if not str(value).startswith("unknown_service")}
    return Resource({**ours, **given})


class _Ids(RandomIdGenerator):
    """Ids that are chosen, or random ones. Only the event loop starts spans."""

    next_trace_id: TraceId | None = None
    next_span_id: SpanId | None = None

    def generate_trace_id(self) -> int:
        return self.next_trace_id or super().generate_trace_id()

    def generate_span_id(self) -> int:
        return self.next_span_id or super().generate_span_id()

    def is_trace_id_random(self) -> bool:
        return False


class _Exporter(SpanExporter):
    """An exporter that says when exports succeed."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        if result is SpanExportResult.SUCCESS:
            _EXPORTS.succeeded()
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return self._exporter.force_flush(timeout_millis)


class _OneLine(logging.Handler):
    """Logs an outage instead of each failure that the SDK logs, with the role of the process: a thread does not know it."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            # The text of the SDK changes with each attempt, so it would be another reason.
            detail = _DETAILS.get(str(record.msg).partition(" ")[0], record.name)
            _EXPORTS.failed(detail, exception=_name_of(record), process=self._role)


def _name_of(record: logging.LogRecord) -> str | None:
    """Return the type of the exception that a record has, whose text could quote the receiver's URL."""
    if isinstance(record.exc_info, tuple) and record.exc_info[0] is not None:
        return record.exc_info[0].__name__
    args = record.args if isinstance(record.args, tuple) else ()
    return next((type(each).__name__ for each in args if isinstance(each, BaseException)), None)
