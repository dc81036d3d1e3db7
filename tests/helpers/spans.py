"""Spans that are kept in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from shared.tracing.contexts import SpanId, TraceContext, TraceId
from shared.tracing.export import Recorder


@dataclass(slots=True)
class Spans:
    """A recorder with what it has recorded."""

    exporter: InMemorySpanExporter = field(default_factory=InMemorySpanExporter)
    recorder: Recorder = field(init=False)

    def __post_init__(self) -> None:
        self.recorder = Recorder("tests", SimpleSpanProcessor(self.exporter))

    def all(self) -> tuple[ReadableSpan, ...]:
        return self.exporter.get_finished_spans()

    def named(self, name: str) -> ReadableSpan:
        (found,) = [span for span in self.all() if span.name == name]
        return found


@contextmanager
def recorded() -> Iterator[Spans]:
    yield Spans()


def context_of(span: ReadableSpan) -> TraceContext:
    return TraceContext(TraceId(span.context.trace_id), SpanId(span.context.span_id))


def parent_of(span: ReadableSpan) -> TraceContext | None:
    return span.parent and TraceContext(TraceId(span.parent.trace_id), SpanId(span.parent.span_id))


def links_of(span: ReadableSpan) -> list[TraceContext]:
    return [TraceContext(TraceId(link.context.trace_id), SpanId(link.context.span_id)) for link in span.links]
