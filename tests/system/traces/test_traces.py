"""Traces of a call, from its first callback to its recordings, as a collector receives them."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial

import aio_pika
import aiohttp
import orjson
import pytest

from console.local.ports import free_port
from console.local.processes import Fleet, ServiceProcess
from shared.tracing.contexts import root_of
from tests.helpers.otlp import Received, Receiver, receiving
from tests.helpers.recordings import Pbx, takes_jobs
from tests.helpers.servers import VENDOR_LINES, Servers, connected, eventually, taken_from

TOKEN = "correct-horse-battery"
NUMBER = "4520304050"
SECTOK = "3511b272f4fb03ecf900b80b1cc5b8fe"
FOREIGN = "00-11111111111111111111111111111111-2222222222222222-01"

MESSAGING = {
    "messaging.system",
    "messaging.operation.type",
    "messaging.operation.name",
    "messaging.destination.name",
}
KEY = "messaging.rabbitmq.destination.routing_key"
BATCH = "messaging.batch.message_count"
MESSAGE = "messaging.message.id"
TEMPLATE = "messaging.destination.template"
CALL = {"callfold.source", "callfold.call"}
HTTP = {"http.request.method", "http.response.status_code"}
# Name: kind, how many, attributes, type of the operation.
SPANS: dict[str, tuple[str, int, set[str], str]] = {
    "call": ("INTERNAL", 1, CALL | {"callfold.outcome"}, ""),
    "GET /callbacks/{source}": ("SERVER", 4, CALL | HTTP | {"http.route", "url.path", "url.scheme"}, ""),
    "create callbacks": ("PRODUCER", 4, MESSAGING, "create"),
    "publish callbacks": ("CLIENT", 4, MESSAGING | {BATCH}, "send"),
    "process callbacks:callbacks.fold": ("CONSUMER", 4, MESSAGING | {BATCH}, "process"),
    "ack callbacks:callbacks.fold": ("CLIENT", 4, MESSAGING | {BATCH}, "settle"),
    "publish calls:call.completed.{source}.{outcome}": (
        "PRODUCER",
        1,
        MESSAGING | CALL | {KEY, MESSAGE, TEMPLATE, "callfold.revision"},
        "send",
    ),
    "publish recordings:recordings": ("PRODUCER", 2, MESSAGING | CALL | {KEY, MESSAGE}, "send"),
    "process recordings:recordings": ("CONSUMER", 2, MESSAGING | CALL | {KEY}, "process"),
    "GET": ("CLIENT", 2, HTTP | {"url.full", "server.address", "server.port"}, ""),
    "store recording": ("INTERNAL", 2, {"callfold.recording.bytes"}, ""),
    "publish calls:recording.stored.{source}": ("PRODUCER", 2, MESSAGING | {KEY, MESSAGE, TEMPLATE}, "send"),
    "ack recordings:recordings": ("CLIENT", 2, MESSAGING | {KEY}, "settle"),
}


@asynccontextmanager
async def _site(
    servers: Servers, pbx: Pbx, *, ingress: Mapping[str, str], worker: Mapping[str, str]
) -> AsyncIterator[tuple[Fleet, str]]:
    sources = servers.directory / "sources.toml"
    sources.write_text(f'[sources.acme]\nsecret = "{TOKEN}"\nrecording_url = "{pbx.url}/rec?sectok={SECTOK}&nId={{call_id}}"\n')
    port = free_port()
    async with servers.fleet(CALLFOLD_SOURCES=str(sources), CALLFOLD_INGRESS_PORT=str(port)) as fleet:
        fleet.add("ingress", "ingress", ingress)
        process = fleet.add("worker", "worker", worker)
        await fleet.start_all()
        await connected(*fleet.processes)
        await takes_jobs(process)
        yield fleet, f"http://127.0.0.1:{port}/callbacks/acme?token={TOKEN}&CallerID={NUMBER}&"


async def _send_call(url: str, queue: aio_pika.abc.AbstractQueue) -> list[aio_pika.abc.AbstractIncomingMessage]:
    """Send the callbacks of a call; returns its event and those of its two recordings, once they are published."""
    async with aiohttp.ClientSession() as session:
        for line in VENDOR_LINES:
            async with session.get(f"{url}{line}", headers={"traceparent": FOREIGN}) as response:
                assert response.status == 200
    messages: list[aio_pika.abc.AbstractIncomingMessage] = []

    async def have_arrived() -> bool:
        while message := await taken_from(queue):
            messages.append(message)
        return len(messages) >= 3

    await eventually(have_arrived)
    return messages


async def _all_spans(receiver: Receiver) -> Sequence[Received]:
    """Wait for every span of the call. How many batches its callbacks came in is a matter of time."""
    await eventually(lambda: _have_arrived(receiver))
    return receiver.spans


async def _have_arrived(receiver: Receiver) -> bool:
    counted = Counter(span.name for span in receiver.spans)
    return all(counted[name] >= (1 if BATCH in attributes else count) for name, (_, count, attributes, _) in SPANS.items())


def _check_conventions(spans: Sequence[Received]) -> None:
    assert {span.name for span in spans} == SPANS.keys()
    for span in spans:
        kind, _, attributes, operation = SPANS[span.name]
        assert (span.kind, set(span.attributes), span.error) == (kind, attributes, ""), span.name
        if operation:
            assert span.attributes["messaging.operation.type"] == operation
            assert span.name.startswith(f"{span.attributes['messaging.operation.name']} ")
            assert span.attributes["messaging.system"] == "rabbitmq"
        assert span.resource["service.name"] in {"callfold-ingress", "callfold-worker"}


def _check_connections(spans: Sequence[Received]) -> None:
    """Check that each span has its parent in the one trace, and that those of batches link to creations."""
    root = root_of("acme/513")
    by_context = {span.context: span for span in spans}
    assert {span.context.trace_id for span in spans} == {root.trace_id}
    assert [span.name for span in spans if span.parent is None] == ["call"]
    assert by_context[root].name == "call"

    def above(span: Received) -> str:
        return by_context[span.parent].name if span.parent else ""

    parents = {(span.name, above(span)) for span in spans}
    assert parents == {
        ("call", ""),
        ("GET /callbacks/{source}", "call"),
        ("create callbacks", "GET /callbacks/{source}"),
        ("publish callbacks", "create callbacks"),
        ("process callbacks:callbacks.fold", "create callbacks"),
        ("ack callbacks:callbacks.fold", "process callbacks:callbacks.fold"),
        ("publish calls:call.completed.{source}.{outcome}", "create callbacks"),
        ("publish recordings:recordings", "publish calls:call.completed.{source}.{outcome}"),
        ("process recordings:recordings", "publish recordings:recordings"),
        ("GET", "process recordings:recordings"),
        ("store recording", "process recordings:recordings"),
        ("publish calls:recording.stored.{source}", "process recordings:recordings"),
        ("ack recordings:recordings", "process recordings:recordings"),
    }
    created = {span.context for span in spans if span.name == "create callbacks"}
    for name in ("publish callbacks", "process callbacks:callbacks.fold"):
        links = [link for span in spans if span.name == name for link in span.links]
        assert sorted(links) == sorted(created), name
        assert sum(int(str(span.attributes[BATCH])) for span in spans if span.name == name) == len(created)


@pytest.mark.volume
async def test_receivers_that_are_away_or_never_answer_affect_no_call(servers: Servers, pbx: Pbx) -> None:
    away = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}", "OTEL_BSP_SCHEDULE_DELAY": "100"}
    async with receiving() as receiver, servers.subscribed() as queue:
        receiver.is_stuck = True
        stuck = receiver.settings(OTEL_EXPORTER_OTLP_TIMEOUT="1", OTEL_BSP_SCHEDULE_DELAY="100")
        async with _site(servers, pbx, worker=away, ingress=stuck) as (fleet, url):
            event, *stored = await _send_call(url, queue)
            for process in fleet.processes:
                await eventually(partial(_has_logged, process, "traces_not_exported"))
            lines = [orjson.loads(line) for line in _logged(fleet).splitlines() if line.startswith("{")]
    assert (event.routing_key, len(stored)) == ("call.completed.acme.answered", 2)
    assert len([line for line in lines if line["event"] == "traces_not_exported"]) <= 8
    assert {line["level"] for line in lines} <= {"info", "warning"}
    assert receiver.requests


async def _has_logged(process: ServiceProcess, event: str) -> bool:
    return event in process.log_path.read_text()


def _logged(fleet: Fleet) -> str:
    return "".join(process.log_path.read_text() for process in fleet.processes)


async def test_a_call_is_one_trace_from_its_callbacks_to_its_recordings_and_shows_no_secret(servers: Servers, pbx: Pbx) -> None:
    async with receiving() as receiver, servers.subscribed() as queue:
        settings = receiver.settings()
        async with _site(servers, pbx, ingress=settings, worker=settings) as (fleet, url):
            event, *stored = await _send_call(url, queue)
            spans = await _all_spans(receiver)
            logged = _logged(fleet)
    _check_conventions(spans)
    _check_connections(spans)
    (publication,) = (span for span in spans if span.name.startswith("publish calls:call."))
    assert orjson.loads(event.body)["traceparent"] == event.headers["traceparent"] == str(publication.context)
    recorded = {str(span.context) for span in spans if span.name.startswith("publish calls:recording.")}
    assert {message.headers["traceparent"] for message in stored} == recorded
    for span in spans:
        assert not any(secret in span.whole for secret in (TOKEN, SECTOK, NUMBER, "nId=", FOREIGN[3:35])), span
    lines = [orjson.loads(line) for line in logged.splitlines() if line.startswith("{")]
    published = [line for line in lines if line["event"] in {"call_published", "recording_published"}]
    assert {line.get("trace_id") for line in published} == {f"{publication.context.trace_id:032x}"}
    assert len(published) == 3
