"""Which spans the fold records for a revision, and what a span shows."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
from opentelemetry.trace import SpanKind
from structlog.contextvars import get_contextvars
from structlog.testing import capture_logs

from shared.amqp.publisher import Message
from shared.amqp.topology import CALLBACKS, CALLS, RECORDINGS
from shared.domain.ids import CallKey, CallRef, SourceName
from shared.domain.raw_event import CallbackEvent, TimerEvent, Undecodable, decode, encode, join
from shared.state.stored_call import Publication
from shared.tracing.contexts import SpanId, TraceContext, pack, parse_context, root_of, span_of, trace_of
from shared.tracing.conventions import Operation, messaging, published_to
from shared.tracing.spans import Position, Span, active, active_batch, current, recording_with, root_context, start, trace_id
from tests.helpers.spans import Spans, context_of, links_of, parent_of, recorded
from worker.folding.traces import record_publication, trace_of_publication, with_contexts, with_trace_headers

ACME = SourceName("acme")
KEY = CallKey(ACME, CallRef("513"))
AT = "2026-11-23T07:44:0{}.000000Z"
OF_513 = [TraceContext(trace_of("acme/513"), SpanId(number)) for number in range(1, 4)]
OTHER = TraceContext(trace_of("acme/514"), SpanId(9))
SEND = messaging(Operation.SEND, published_to(CALLBACKS, ""), is_batch=True, count=2)


def _event(traceparent: str, body: str = '"data":{"started_at":null,"ended_at":null,"outcome":"answered"}') -> Message:
    text = f'{{"time":"{AT.format(5)}","traceparent":"{traceparent}",{body}}}'
    return Message(CALLS, "call.completed.acme.answered", text.encode(), "acme/513/1", headers={"callfold-facts": "x"})


def _traced(number: int, context: TraceContext | None) -> CallbackEvent:
    return CallbackEvent(ACME, AT.format(number), "", traceparent=str(context or ""))


def test_the_parent_of_a_publication_is_the_callback_received_last_and_it_links_to_the_others() -> None:
    job = Message(RECORDINGS, RECORDINGS, b"{}", "acme/513/recording/7")
    with recorded() as spans, recording_with(spans.recorder):
        received = [_traced(2, OF_513[0]), _traced(4, OF_513[1]), _traced(3, OF_513[2]), _traced(5, None)]
        traceparent, causes = trace_of_publication(KEY, 1, [*received, TimerEvent(ACME, AT.format(9), KEY.call)])
        messages = with_trace_headers([_event(traceparent), job])
        publication = Publication(KEY, 1, b"", "", "1", causes=causes)
        with active_batch(SEND, [OTHER, OF_513[0]]) as batch:
            assert batch is not None
            record_publication(publication, messages, 1)
    assert causes == (str(OF_513[1]), str(OF_513[2]), str(OF_513[0]))
    published = spans.named("publish calls:call.completed.{source}.{outcome}")
    assert str(context_of(published)) == traceparent == messages[0].headers["traceparent"]
    assert messages[0].headers["callfold-facts"] == "x"
    assert context_of(published) == TraceContext(trace_of("acme/513"), span_of("acme/513/1"))
    assert parent_of(published) == OF_513[1]
    assert links_of(published) == [OF_513[2], OF_513[0], batch.context]
    sent_job = spans.named("publish recordings:recordings")
    assert (str(context_of(sent_job)), parent_of(sent_job)) == (messages[1].headers["traceparent"], context_of(published))
    call = spans.named("call")
    assert (context_of(call), call.parent) == (root_of("acme/513"), None)


def test_a_call_that_a_timer_closes_is_traced_below_itself() -> None:
    with recorded() as spans, recording_with(spans.recorder):
        traceparent, causes = trace_of_publication(KEY, 2, [TimerEvent(ACME, AT.format(9), KEY.call)])
        record_publication(Publication(KEY, 2, b"", "", "1", causes=causes), with_trace_headers([_event(traceparent)]), 1)
    (published,) = spans.all()  # the call was recorded with its first revision
    assert (causes, parent_of(published)) == ((), root_of("acme/513"))


def test_a_fault_in_the_trace_of_a_published_call_is_logged_and_stops_nothing() -> None:
    with recorded() as spans, recording_with(spans.recorder), capture_logs() as lines:
        traceparent, _ = trace_of_publication(KEY, 1, [])
        record_publication(Publication(KEY, 1, b"", "", "1"), with_trace_headers([_event(traceparent, '"data":7')]), 1)
    assert [(line["event"], line["id"]) for line in lines] == [("publication_not_traced", "acme/513/1")]


def test_a_fault_of_the_library_costs_no_callback_and_stops_no_fold() -> None:
    class _Faulty:
        def is_sampled(self, _: object) -> bool:
            raise ValueError("a sampler with a bug")

        def start(self, *_: object) -> Span:
            raise TypeError("an SDK with a bug")

    done: list[Span | None] = []
    with recording_with(_Faulty()), capture_logs() as lines:
        assert root_context("acme/513") is None
        assert start(SEND, Position()) is None
        with active(SEND, parent=root_of("acme/513")) as span:
            done.append(span)
    assert done == [None]
    assert {(line["event"], line["log_level"]) for line in lines} == {("spans_not_recorded", "error")}


def test_a_later_use_of_a_request_id_is_in_the_trace_of_its_callbacks() -> None:
    key = CallKey(ACME, CallRef("513.2"))
    with recorded() as spans, recording_with(spans.recorder):
        traceparent, _ = trace_of_publication(key, 1, [])
        record_publication(Publication(key, 1, b"", "", "1"), with_trace_headers([_event(traceparent)]), 1)
    call = spans.named("call")
    assert (context_of(call), parent_of(call)) == (TraceContext(trace_of("acme/513"), span_of("acme/513.2")), root_of("acme/513"))


@pytest.mark.parametrize("sampler", ["always_off", "parentbased_always_off", "traceidratio"])
def test_what_is_not_sampled_leaves_no_trace(sampler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0")
    with recorded() as spans, recording_with(spans.recorder):
        assert root_context("acme/513") is None
        assert trace_of_publication(KEY, 1, [_traced(1, None)]) == ("", ())
        with active(SEND) as span:
            assert (span, trace_id()) == (None, None)
        plain = [_event("")]
        assert with_trace_headers(plain) == plain
        record_publication(Publication(KEY, 1, b"", "", "1"), plain, 1)
    assert spans.all() == ()


def test_a_ratio_takes_calls_as_a_whole_and_about_as_many_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.25")
    with recorded() as here, recorded() as there:
        chosen = []
        for spans in (here, there):
            with recording_with(spans.recorder):
                chosen.append({number for number in range(2000) if root_context(f"acme/{number}")})
    by_the_sdk = TraceIdRatioBased(0.25)
    decisions = {number: by_the_sdk.should_sample(None, trace_of(f"acme/{number}"), "call").decision for number in range(2000)}
    assert chosen[0] == chosen[1] == {number for number, decision in decisions.items() if decision.is_sampled()}  # type: ignore[no-untyped-call]
    assert 400 < len(chosen[0]) < 600


def test_a_batch_of_one_call_is_in_its_trace_and_one_of_several_has_its_own_with_links_to_each() -> None:
    with recorded() as spans, recording_with(spans.recorder):
        with active_batch(SEND, OF_513[:2]):
            pass
        with active_batch(SEND, [OF_513[0], OTHER]):
            pass
        many = [TraceContext(trace_of(f"acme/{number}"), SpanId(7)) for number in range(500)]
        with active_batch(SEND, many):
            pass
    one, several, whole = spans.all()
    assert (parent_of(one), links_of(one), one.kind) == (OF_513[0], OF_513[:2], SpanKind.CLIENT)
    assert (several.parent, links_of(several)) == (None, [OF_513[0], OTHER])
    assert several.context.trace_id not in {OF_513[0].trace_id, OTHER.trace_id}
    assert links_of(whole) == many


def _raise_in_a_span(spans: Spans) -> None:
    with recording_with(spans.recorder), active(SEND, parent=OTHER):
        assert get_contextvars()["trace_id"] == trace_id() == f"{OTHER.trace_id:032x}"
        raise ConnectionError("https://user:hunter2@pbx.example.com/?sectok=3511b2")


def test_a_failed_span_has_the_name_of_the_exception_and_not_its_text() -> None:
    with recorded() as spans:
        with pytest.raises(ConnectionError):
            _raise_in_a_span(spans)
        (span,) = spans.all()
    assert span.attributes is not None
    assert span.attributes["error.type"] == "ConnectionError"
    assert (span.status.is_ok, span.status.description, span.events) == (False, None, ())
    assert "hunter2" not in span.to_json()
    assert "trace_id" not in get_contextvars()


async def test_tasks_have_active_spans_of_their_own() -> None:
    async def work(parent: TraceContext, both: asyncio.Barrier) -> TraceContext | None:
        with active(SEND, parent=parent), active(SEND) as inner:
            await both.wait()
            assert (current(), inner and inner.context.trace_id) == (inner, parent.trace_id)
            return None if inner is None else inner.context

    with recorded() as spans, recording_with(spans.recorder):
        both = asyncio.Barrier(2)
        async with asyncio.timeout(60):
            await asyncio.gather(work(OF_513[0], both), work(OTHER, both))
    assert len(spans.all()) == 4


def test_contexts_are_given_to_callbacks_alone_and_are_no_part_of_the_event() -> None:
    callback = CallbackEvent(ACME, AT.format(1), "a=1")
    body = join([encode(callback), b'{"v":9}', encode(TimerEvent(ACME, AT.format(1), KEY.call)), encode(callback)])
    header = pack(dict.fromkeys(range(4), OF_513[0]) | {499: OTHER})
    first, unknown, timer, last = with_contexts(decode(body), header)
    assert isinstance(first, CallbackEvent)
    assert isinstance(unknown, Undecodable)
    assert (parse_context(first.traceparent), timer) == (OF_513[0], TimerEvent(ACME, AT.format(1), KEY.call))
    assert first == callback == last
    assert encode(first) == encode(replace(callback))
