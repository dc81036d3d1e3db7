"""The parts of a forwarder that decide: consequences of answers, the circuit breaker, the order of a call, one request."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, cast

import orjson
import pytest

from shared.amqp.delivery import Delivery
from shared.amqp.publisher import Message, Publisher
from shared.config.endpoints import parse_endpoint
from tests.helpers.forwarding import SECRET, events_of
from tests.helpers.webhook_receiver import WebhookReceiver, endless, hang, reset, status
from worker.forwarding.breaker import Breaker
from worker.forwarding.call_order import CallOrder
from worker.forwarding.consequence import Answer, Dead, Delivered, Disable, Retry, consequence_of
from worker.forwarding.outgoing_event import OutgoingEvent
from worker.forwarding.poster import Poster
from worker.forwarding.selection import Selection
from worker.forwarding.settlement import Settlement

SCHEDULE = (5.0, 30.0, 600.0)
EVENT = OutgoingEvent.of(orjson.dumps(events_of("acme", 1)[0]), {}, "call.completed.acme.answered", "crm")


def _answer(number: int | None, retry_after_s: float | None = None) -> Answer:
    return Answer(number, "" if number else "no answer", 0.1, b"", retry_after_s)


@pytest.mark.parametrize(
    ("answer", "attempt", "consequence"),
    [
        (_answer(200), 1, Delivered()),
        (_answer(204), 4, Delivered()),
        (_answer(299), 1, Delivered()),
        (_answer(410), 1, Disable()),
        (_answer(301), 1, Retry(5)),
        (_answer(400), 2, Retry(30)),
        (_answer(500), 3, Retry(600)),
        (_answer(500), 4, Dead()),
        (_answer(None), 1, Retry(5)),
        (_answer(429, 20), 1, Retry(30, 20)),
        (_answer(503, 1), 1, Retry(5)),
        (_answer(503, 3600), 1, Retry(600)),
        (_answer(500, 20), 1, Retry(5)),
        (_answer(429, 20), 4, Dead()),
    ],
)
def test_an_answer_has_its_consequence(answer: Answer, attempt: int, consequence: object) -> None:
    assert consequence_of(answer, attempt, SCHEDULE) == consequence


def test_the_breaker_opens_after_failures_in_a_row_probes_ever_more_rarely_and_closes_on_success() -> None:
    now = 0.0
    breaker = Breaker(failures=3, probe_s=(10, 20), clock=lambda: now)
    assert [breaker.failed(), breaker.failed(), breaker.succeeded()] == [False, False, False]
    assert [breaker.failed(), breaker.failed(), breaker.failed()] == [False, False, True]
    assert breaker.is_open
    assert 8 <= breaker.wait_s <= 10
    now = 10.0
    assert breaker.wait_s == 0
    assert not breaker.failed(), "it is open already"
    assert 16 <= breaker.wait_s <= 20
    now = 40.0
    assert breaker.succeeded()
    assert (breaker.is_open, breaker.wait_s) == (False, 0)
    assert not breaker.failed(retry_after_s=100)
    assert (breaker.is_open, breaker.wait_s) == (False, 100), "an endpoint that asks to wait works"


def test_an_answer_to_an_earlier_request_does_not_end_the_wait_that_an_endpoint_asks_for() -> None:
    now = 0.0
    breaker = Breaker(clock=lambda: now)
    breaker.failed(retry_after_s=100)
    breaker.succeeded()
    assert breaker.wait_s == 100
    now = 100.0
    assert breaker.wait_s == 0


def test_the_breaker_opens_sooner_without_any_answer_and_an_answer_begins_the_count_again() -> None:
    breaker = Breaker(failures=10, unanswered=3)
    failures = [False, False, True, False, False]
    assert not any(breaker.failed(is_answered=is_answered) for is_answered in failures)
    assert breaker.failed(is_answered=False)
    assert breaker.is_open


def _delivery(message: Any) -> Delivery:  # noqa: ANN401 - a message of the stream
    return Delivery(message.body, {"x-stream-offset": 1}, "", 1, None)  # type: ignore[arg-type]


def test_a_forwarder_that_takes_over_knows_from_the_stream_which_event_waits_for_which() -> None:
    now = 1000.0
    order, other = CallOrder(lambda: now), CallOrder(lambda: now)
    for record in (
        order.waits("crm", "acme/513", "a", 30),
        order.waits("crm", "acme/513", "b", 30),
        order.waits("crm", "acme/513", "a", 600),
    ):
        other.apply(_delivery(record))
    for each in (order, other):
        assert each.blocked_for("crm", "acme/513", "a") is None, "the first one waits for none"
        assert each.blocked_for("crm", "acme/513", "b") == 600
        assert each.blocked_for("crm", "acme/513", "c") == 30, "it waits in the queue of the one before it"
        assert each.blocked_for("crm", "acme/514", "c") is None
        assert each.blocked_for("erp", "acme/513", "c") is None
    other.apply(_delivery(order.ended("crm", "acme/513", "a")))
    assert [each.blocked_for("crm", "acme/513", "b") for each in (order, other)] == [None, None]
    now += 30 + 3601
    assert other.blocked_for("crm", "acme/513", "c") is None, "a record whose event was dropped from a full queue expires"


@pytest.mark.parametrize(("delay_s", "until"), [(30, 1e300), (30, 5000.0), (1e300, 1e300), (0, 5000), (-1, 5000), ("30", 5000)])
def test_a_record_that_is_damaged_or_of_a_clock_that_was_ahead_blocks_a_call_no_longer_than_others(
    delay_s: object, until: object
) -> None:
    now = 1000.0
    order = CallOrder(lambda: now)
    record = {"endpoint": "crm", "call": "acme/513", "event_id": "a", "delay_s": delay_s, "until": until}
    order.apply(_delivery(Message("", "", orjson.dumps(record), "1")))
    now += 30 + 3601
    assert order.blocked_for("crm", "acme/513", "b") is None


async def test_behind_an_event_whose_delay_is_no_longer_in_the_schedule_another_one_waits_for_the_shortest_delay() -> None:
    published: list[Message] = []

    class Recorder:
        async def publish(self, message: Message) -> None:
            published.append(message)

        async def publish_until_confirmed(self, messages: list[Message]) -> None:
            published.extend(messages)

    async def declare() -> None:
        raise AssertionError("its queue is there")

    endpoint = parse_endpoint("crm", {"url": "https://x.example", "secret": SECRET, "order": "call"})
    settlement = Settlement(endpoint, cast("Publisher", Recorder()), (30, 5, 600), CallOrder(lambda: 1000.0), declare)
    await settlement.park(EVENT, 600)
    await settlement.park(EVENT, 7200)
    assert [each.routing_key for each in published[::2]] == ["forward.crm.retry.600s", "forward.crm.retry.5s"]


def test_a_copy_keeps_bytes_routing_key_and_first_time_and_counts_attempts() -> None:
    copy = EVENT.retry("crm", 30, at_least_s=0, counts=True)
    assert copy.routing_key == "forward.crm.retry.30s"
    assert 24_000 <= (copy.expires_ms or 0) <= 30_000
    again = OutgoingEvent.of(copy.body, copy.headers, "forward.crm", "crm")
    assert again == replace(EVENT, attempts=1)
    asked = [EVENT.retry("crm", 30, at_least_s=20, counts=True).expires_ms or 0 for _ in range(50)]
    assert min(asked) >= 20_000
    assert max(asked) <= 30_000
    for wrong in (b"", b"[]", b"\xff", b'{"id": 1}'):
        with pytest.raises(ValueError, match=r".*"):
            OutgoingEvent.of(wrong, {}, "call.completed.acme.answered", "crm")


def test_a_binding_that_is_older_than_the_filters_delivers_nothing_wrong() -> None:
    keys = {"url": "https://crm.example/x", "secret": SECRET}
    completed = Selection(parse_endpoint("crm", {**keys, "filter": "call.completed.acme.#", "where": "talk_seconds > 1000"}))
    assert Selection(parse_endpoint("crm", keys)).takes(EVENT)
    assert not Selection(parse_endpoint("crm", {**keys, "filter": ["recording.#", "call.amended.#"]})).takes(EVENT)
    assert not completed.takes(EVENT)


async def _post(url: str, **keys: object) -> Answer:
    endpoint = parse_endpoint("crm", {"url": url, "secret": SECRET, "timeout_s": 5, **keys})
    async with Poster(endpoint) as poster:
        return await poster.post(EVENT)


async def test_whatever_an_endpoint_does_is_an_answer() -> None:
    async with WebhookReceiver() as receiver:
        for answering, wanted in (
            (status(200, text="x" * 5000), (200, 512)),
            (endless(200), (200, 512)),
            (endless(500, pause_s=0.05), (500, 512)),
            (receiver.redirect(), (302, 0)),
            (reset, (None, 0)),
            (status(503, retry_after="7"), (503, 0)),
        ):
            receiver.then = answering
            answer = await asyncio.wait_for(_post(receiver.url), 30)
            assert (answer.status, len(answer.body)) == wanted
            assert (answer.retry_after_s == 7) == (answer.status == 503)
        receiver.then = hang
        assert "no answer within 0.2 s" in (await _post(receiver.url, timeout_s=0.2)).error
    assert receiver.inward == 0
    assert "the connection failed" in (await _post(receiver.url)).error


async def test_the_trace_of_an_event_continues_at_its_receiver() -> None:
    context = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    traced = OutgoingEvent.of(EVENT.body, {"traceparent": context}, EVENT.routing_key, "crm")
    copy = traced.retry("crm", 30, counts=True)
    again = OutgoingEvent.of(copy.body, copy.headers, "forward.crm", "crm")
    async with WebhookReceiver() as receiver:
        async with Poster(parse_endpoint("crm", {"url": receiver.url, "secret": SECRET})) as poster:
            await poster.post(again)
            await poster.post(EVENT)
        first, second = receiver.received
    assert first.headers["traceparent"] == context
    assert "traceparent" not in second.headers
    first.verify(SECRET)


@pytest.mark.parametrize(
    ("url", "networks", "problem"),
    [
        ("http://127.0.0.1:1/x", [], "the connection failed"),
        ("http://localhost.localdomain.:1/x", ["127.0.0.0/8"], "not allowed"),
        ("http://127.0.0.1:1/x", ["10.0.0.0/8"], "not allowed"),
        ("http://169.254.169.254/latest/meta-data", [], "not allowed"),
        ("http://169.254.169.254/latest/meta-data", ["169.254.0.0/16"], "not allowed"),
        ("http://[::ffff:169.254.169.254]/latest", [], "not allowed"),
        ("http://0.0.0.0:1/x", [], "not allowed"),
        ("http://[::ffff:127.0.0.1]:1/x", ["10.0.0.0/8"], "not allowed"),
    ],
)
async def test_an_address_inside_is_refused_when_the_socket_is_created(
    url: str, networks: list[str], problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def resolve(*_: object, **__: object) -> Any:  # noqa: ANN401 - as the loop's own
        return [(2, 1, 6, "", ("127.0.0.1", 1))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve, raising=False)
    answer = await _post(url, networks=networks)
    assert answer.status is None
    assert problem in answer.error
