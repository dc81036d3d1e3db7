"""A receiver of traces, as an OpenTelemetry collector is one: OTLP over HTTP in protobuf."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2

from shared.tracing.contexts import SpanId, TraceContext, TraceId

Value = str | int | bool | float | None


@dataclass(frozen=True, slots=True)
class Received:
    """One span, and the attributes of the process that recorded it."""

    name: str
    kind: str
    context: TraceContext
    parent: TraceContext | None
    links: tuple[TraceContext, ...]
    attributes: Mapping[str, Value]
    resource: Mapping[str, Value]
    error: str
    start_ns: int
    end_ns: int
    whole: str


@dataclass(slots=True)
class Receiver:
    """What arrived. While `is_stuck`, requests arrive and get no answer."""

    url: str = ""
    spans: list[Received] = field(default_factory=list)
    requests: int = 0
    is_stuck: bool = False
    _let_go: asyncio.Event = field(default_factory=asyncio.Event)

    def named(self, name: str) -> list[Received]:
        return [span for span in self.spans if span.name == name]

    async def handle(self, request: web.Request) -> web.Response:
        self.requests += 1
        body = await request.read()
        if self.is_stuck:
            await self._let_go.wait()
        assert request.content_type == "application/x-protobuf"
        self.spans += _spans(ExportTraceServiceRequest.FromString(body))
        return web.Response(body=ExportTraceServiceResponse().SerializeToString(), content_type="application/x-protobuf")

    def let_go(self) -> None:
        self._let_go.set()

    def settings(self, **more: str) -> dict[str, str]:
        """The variables of a process that sends its spans here, soon."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": self.url, "OTEL_BSP_SCHEDULE_DELAY": "200", **more}


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application(client_max_size=64 << 20)
    app.add_routes([web.post("/v1/traces", receiver.handle)])
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield receiver
    finally:
        receiver.let_go()
        await runner.cleanup()


def _spans(request: ExportTraceServiceRequest) -> Iterator[Received]:
    for of_process in request.resource_spans:
        resource = _attributes(of_process.resource.attributes)
        for scope in of_process.scope_spans:
            for span in scope.spans:
                yield _received(span, resource)


def _received(span: trace_pb2.Span, resource: Mapping[str, Value]) -> Received:
    attributes = _attributes(span.attributes)
    is_error = span.status.code == trace_pb2.Status.STATUS_CODE_ERROR
    return Received(
        span.name,
        trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        _context(span.trace_id, span.span_id),
        _context(span.trace_id, span.parent_span_id) if span.parent_span_id else None,
        tuple(_context(link.trace_id, link.span_id) for link in span.links),
        attributes,
        resource,
        str(attributes.get("error.type", "?")) if is_error else "",
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        f"{span}{resource}",
    )


def _context(trace_id: bytes, span_id: bytes) -> TraceContext:
    return TraceContext(TraceId(int.from_bytes(trace_id)), SpanId(int.from_bytes(span_id)))


def _attributes(pairs: Sequence[KeyValue]) -> dict[str, Value]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Value:
    kind = value.WhichOneof("value")
    return None if kind is None else getattr(value, kind)
