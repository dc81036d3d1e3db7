"""`openapi.json` is a valid document, and the running console keeps to it, whatever is thrown at it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import hypothesis
import orjson
import pytest
import pytest_asyncio
import schemathesis
from hypothesis import HealthCheck, Phase
from schemathesis.checks import CheckFunction
from schemathesis.specs.openapi import checks

from tests.recordings.support import job, serving, submit
from tests.support import VENDOR_LINES, Servers, next_events
from tests.web.support import AUTHORIZED, KEY, World, world

_EXAMPLES = 12
_GUID = "0f0f0f0f-0000-0000-0000-00000000000d"
_CHECKS: list[CheckFunction] = [
    schemathesis.checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]
_OPERATIONS = [
    ("POST", "/dial"),
    ("GET", "/calls"),
    ("GET", "/calls/{source}/{call}"),
    ("GET", "/recordings/{source}/{guid}"),
    ("GET", "/recordings/{source}/{guid}/waveform.svg"),
    ("GET", "/dead-letters"),
    ("POST", "/dead-letters"),
]


@pytest_asyncio.fixture(scope="module")
async def here(shared_servers: Servers) -> AsyncIterator[World]:
    """A console that has one call, one recording and one dead letter, and can dial."""
    async with serving() as pbx:
        text = f'[sources.acme]\nrecording_origin = "{pbx.url}"\n'
        text += 'dial_url = "http://127.0.0.1:{port}/dial?agent={agent}&number={number}"\n'
        more = {"CALLFOLD_CONSOLE_KEY": KEY, "CALLFOLD_DIALS_PER_MINUTE": "1000000"}
        async with world(shared_servers, text, "ingress", "worker", "console", **more) as made:
            async with shared_servers.subscribed("recording.#") as queue:
                await made.call_back(list(VENDOR_LINES))
                await submit(shared_servers, job(guid=_GUID).encode())
                while _GUID not in {event.body["data"]["guid"] for event in await next_events(queue, 1)}:
                    pass
            yield made


@pytest_asyncio.fixture(scope="module")
async def document(here: World) -> Any:  # noqa: ANN401
    status, told, headers = await here.get("/openapi.json")
    assert (status, headers["Content-Type"].partition(";")[0]) == (200, "application/json")
    return told


def test_the_document_is_valid_openapi_3_1(document: Any) -> None:  # noqa: ANN401
    assert document["openapi"].startswith("3.1")
    schemathesis.openapi.from_dict(document).validate()


def test_every_operation_is_described_and_tried(document: Any) -> None:  # noqa: ANN401
    described = {
        (method.upper(), path) for path, told in document["paths"].items() for method in told if method in {"get", "post"}
    }
    elsewhere = {("GET", "/events"), ("GET", "/callbacks/{source}"), ("POST", "/callbacks/{source}")}
    assert described == {*_OPERATIONS, *elsewhere}
    told = [told[method] for told in document["paths"].values() for method in told if method in {"get", "post"}]
    assert len({each["operationId"] for each in told}) == len(told)
    assert all(each["summary"] for each in told)


@pytest.mark.parametrize(("method", "path"), _OPERATIONS)
async def test_the_console_answers_as_the_document_says(here: World, document: Any, method: str, path: str) -> None:  # noqa: ANN401
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=here.console)
    operation = schema[path][method]

    @hypothesis.settings(
        max_examples=_EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(case=operation.as_strategy())
    def answers(case: schemathesis.Case) -> None:
        case.call_and_validate(headers=dict(AUTHORIZED), checks=_CHECKS, timeout=20)

    await asyncio.to_thread(answers)


async def test_what_is_there_is_as_the_document_says(here: World, document: Any) -> None:  # noqa: ANN401
    """What made-up values would hardly find."""
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=here.console)
    cases = [
        schema["/calls/{source}/{call}"]["GET"].Case(path_parameters={"source": "acme", "call": "513"}),
        schema["/calls"]["GET"].Case(query={"source": "acme", "number": "*", "since": "1h"}),
        schema["/calls"]["GET"].Case(headers={"Accept": "text/csv"}),
        schema["/recordings/{source}/{guid}"]["GET"].Case(path_parameters={"source": "acme", "guid": _GUID}),
        schema["/recordings/{source}/{guid}"]["GET"].Case(
            path_parameters={"source": "acme", "guid": _GUID}, headers={"Range": "bytes=5-9"}
        ),
        schema["/recordings/{source}/{guid}"]["GET"].Case(
            path_parameters={"source": "acme", "guid": _GUID}, headers={"Range": "bytes=-0"}
        ),
        schema["/recordings/{source}/{guid}/waveform.svg"]["GET"].Case(path_parameters={"source": "acme", "guid": _GUID}),
        schema["/dial"]["POST"].Case(
            body={"source": "acme", "agent": "1001", "number": "112"},
            media_type="application/json",
            headers={"Idempotency-Key": "k"},
        ),
        schema["/dead-letters"]["POST"].Case(body={"action": "drop", "ids": ["none-such"]}, media_type="application/json"),
    ]
    statuses = []
    for case in cases:
        answer = await asyncio.to_thread(case.call_and_validate, headers=dict(AUTHORIZED), checks=_CHECKS, timeout=20)
        statuses.append(answer.status_code)
    assert statuses == [200, 200, 200, 200, 206, 416, 200, 201, 200]


async def test_what_an_answer_holds_is_all_described(here: World, document: Any) -> None:  # noqa: ANN401
    schemas = document["components"]["schemas"]
    _, told, _ = await here.get("/calls", headers=AUTHORIZED)
    assert told["calls"]
    assert set(told["calls"][0]) == set(schemas["CallRow"]["properties"])
    _, told, _ = await here.get("/calls/acme/513", headers=AUTHORIZED)
    assert set(told) == set(schemas["CallDetail"]["properties"])
    assert b"agents" not in orjson.dumps(schemas)
