"""`openapi.json` is a valid document, and the running console keeps to it, whatever is thrown at it."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import hypothesis
import orjson
import pytest
import pytest_asyncio
import requests
import schemathesis
from hypothesis import HealthCheck, Phase
from schemathesis.checks import CheckFunction
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi import checks

from tests.helpers.console import AUTHORIZED, KEY, World, world
from tests.helpers.pace import LIMIT_S
from tests.helpers.recordings import job, serving, submit
from tests.helpers.servers import VENDOR_LINES, Servers, next_events
from tests.helpers.volume import sizes

_FEW = 4
_EXAMPLES = sizes(_FEW, 150)
_GUID = "0f0f0f0f-0000-0000-0000-00000000000d"
_CHECKS: list[CheckFunction] = [
    schemathesis.checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
]
_ENDPOINTS_PATH = "/endpoints/{name}"
ENDPOINTS = {
    ("GET", "/endpoints"),
    ("POST", "/endpoints"),
    ("GET", _ENDPOINTS_PATH),
    ("PUT", _ENDPOINTS_PATH),
    ("DELETE", _ENDPOINTS_PATH),
    ("POST", f"{_ENDPOINTS_PATH}/enable"),
    ("POST", f"{_ENDPOINTS_PATH}/disable"),
    ("POST", f"{_ENDPOINTS_PATH}/secret"),
    ("DELETE", f"{_ENDPOINTS_PATH}/previous-secrets"),
    ("POST", f"{_ENDPOINTS_PATH}/test"),
    ("GET", f"{_ENDPOINTS_PATH}/attempts"),
}
_CHANGES = ENDPOINTS - {("GET", f"{_ENDPOINTS_PATH}/attempts")}
_CONSOLE = {
    ("POST", "/dial"),
    ("GET", "/calls"),
    ("GET", "/calls/{source}/{call}"),
    ("POST", "/calls/{source}/{call}/annotations"),
    ("GET", "/recordings/{source}/{guid}"),
    ("GET", "/recordings/{source}/{guid}/preview"),
    ("GET", "/recordings/{source}/{guid}/waveform.svg"),
    ("GET", "/dead-letters"),
    ("POST", "/dead-letters"),
    ("GET", "/openapi.json"),
    ("GET", "/schemas"),
    ("GET", "/schemas/{name}/{file}"),
    *ENDPOINTS,
    ("GET", "/schemas"),
    ("GET", "/schemas/{name}/{file}"),
}
_EVENTS = ("GET", "/events")
_INGRESS = {("GET", "/callbacks/{source}"), ("POST", "/callbacks/{source}")}
# What a schema cannot say: times and cursors, a revision without vCon, the forms that a source's numbers have, a callback's parameters.
_KNOWS_MORE = """
[[operations]]
include-name = [
    "GET /calls", "GET /calls/{source}/{call}", "GET /dead-letters", "POST /dial", "GET /callbacks/{source}", "POST /callbacks/{source}"
]
checks.positive_data_acceptance.enabled = false
"""
# Names in a path, some of them as they must not be.
_NAMES: tuple[str, ...] = (
    "acme",
    "a" * 63,
    "a" * 64,
    "Acme",
    "-a",
    "a_-",
    "a.1",
    "a.b",
    "513",
    "9" * 20,
    "9" * 21,
    "call-1",
    "call-",
    "call-x",
    "v1.json",
)
_NAMES += (
    "A" * 80,
    "A" * 81,
    f"{_GUID}.1",
    f"{_GUID}.",
    "a/b",
    "a b",
    "a\n",
    "513\n",
    "\u0663",
    "\u00e9",
    "%41",
    "a" * 80 + "." + "1" * 20,
    "v1.json",
    "v12345.json",
)


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
            await made.detail("acme/513", status="complete")
            yield made


@pytest_asyncio.fixture(scope="module")
async def document(here: World) -> Any:  # noqa: ANN401
    status, told, headers = await here.get("/openapi.json")
    assert (status, headers["Content-Type"].partition(";")[0]) == (200, "application/json")
    return told


def test_the_document_is_valid_openapi_3_1(document: Any) -> None:  # noqa: ANN401
    assert document["openapi"].startswith("3.1")
    schemathesis.openapi.from_dict(document).validate()


def _operations(document: Any) -> dict[tuple[str, str], Any]:  # noqa: ANN401
    methods = ("get", "post", "put", "patch", "delete")
    return {(name.upper(), path): told[name] for path, told in document["paths"].items() for name in methods if name in told}


def test_every_operation_is_described(document: Any) -> None:  # noqa: ANN401
    operations = _operations(document)
    assert set(operations) == {*_CONSOLE, _EVENTS, *_INGRESS}
    assert len({told["operationId"] for told in operations.values()}) == len(operations)
    assert all(told["summary"] for told in operations.values())


async def _schemathesis(directory: Path, document: Any, url: str, operations: set[tuple[str, str]], examples: int) -> None:  # noqa: ANN401
    """Run schemathesis with every check it has, without and with made-up mistakes, wrong methods, and no key."""
    (directory / "openapi.json").write_bytes(orjson.dumps(document))
    (directory / "schemathesis.toml").write_text(_KNOWS_MORE)
    options = f"--url {url} --phases coverage,fuzzing --max-examples {examples} --generation-deterministic"
    options += f" --request-timeout {LIMIT_S:g} --continue-on-failure --no-color --warnings off"
    only = [part for path in sorted({path for _, path in operations}) for part in ("--include-path", path)]
    running = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name("st"),
        *("--config-file", "schemathesis.toml", "run", "openapi.json", *options.split(), *only),
        *("--header", f"Authorization: {AUTHORIZED['Authorization']}"),
        cwd=directory,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(4 * LIMIT_S * max(1, examples / _FEW)):  # all its requests, not one wait
            told = (await running.communicate())[0].decode()
    finally:
        if running.returncode is None:
            running.kill()
    assert running.returncode == 0, told
    assert f"Tested: {len(operations)}\n" in told, told


@pytest.mark.parametrize("examples", _EXAMPLES)
async def test_the_console_answers_as_the_document_says(here: World, document: Any, tmp_path: Path, examples: int) -> None:  # noqa: ANN401
    # Changes of webhooks wait for RabbitMQ, and made-up ones would take minutes: test_endpoints.py tests them.
    await _schemathesis(tmp_path, document, here.console, _CONSOLE - _CHANGES, examples)


@pytest.mark.parametrize("examples", _EXAMPLES)
async def test_ingress_answers_as_the_document_says(here: World, document: Any, tmp_path: Path, examples: int) -> None:  # noqa: ANN401
    told = document | {"paths": {path: dict(told) for path, told in document["paths"].items()}}
    told["paths"]["/callbacks/{source}"].pop("servers")
    await _schemathesis(tmp_path, told, f"http://127.0.0.1:{here.ingress_port}", _INGRESS, examples)


@pytest.mark.parametrize("examples", _EXAMPLES)
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
async def test_the_stream_of_events_begins_as_the_document_says(
    here: World,
    document: Any,  # noqa: ANN401
    mode: GenerationMode,
    examples: int,
) -> None:
    """It has no end, so only how it begins is read."""
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=here.console)
    method, path = _EVENTS

    @hypothesis.settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(case=schema[path][method].as_strategy(generation_mode=mode))
    def begins(case: schemathesis.Case[Any]) -> None:
        asked = case.as_transport_kwargs(headers=dict(AUTHORIZED))
        with requests.Session() as session, session.request(**asked, stream=True, timeout=LIMIT_S) as response:
            # A schema cannot say which times and filters can be read.
            may_fail = mode is GenerationMode.NEGATIVE or {"since", "where"} & set(case.query or {})
            assert response.status_code in ({200, 400} if may_fail else {200})
            if response.status_code == 200:
                response._content = next(response.iter_content(1 << 16))
                assert response.content.startswith(b"retry: 2000\n\n")
            case.validate_response(response, checks=_CHECKS)

    await asyncio.to_thread(begins)


async def test_the_stream_of_events_needs_a_key_and_the_right_method(here: World) -> None:
    status, told, headers = await here.get("/events")
    assert (status, told["status"], headers["WWW-Authenticate"]) == (401, 401, "Bearer")
    for method in ("HEAD", "POST", "PUT", "PATCH", "DELETE"):
        status, _, headers = await here.ask(method, "/events", headers=AUTHORIZED)
        assert (status, headers["Allow"]) == (405, "GET")


async def test_names_in_a_path_are_those_that_the_document_describes(here: World, document: Any) -> None:  # noqa: ANN401
    for (method, path), told in _operations(document).items():
        if (method, path) in _INGRESS:
            continue
        patterns = {each["name"]: each["schema"]["pattern"] for each in told["parameters"] if each["in"] == "path"}
        good = {name: next(each for each in _NAMES if re.search(pattern, each)) for name, pattern in patterns.items()}
        for name, pattern in patterns.items():
            for value in _NAMES:
                asked = path.format(**{part: quote(each, safe="") for part, each in (good | {name: value}).items()})
                status, body, _ = await here.ask(method, asked, headers=AUTHORIZED)
                is_described = re.search(pattern.replace("$", r"\Z"), value) is not None
                is_refused = (status, body.get("parameter")) == (404, name)
                assert is_refused is not is_described, (path, value)


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
        schema["/recordings/{source}/{guid}/preview"]["GET"].Case(
            path_parameters={"source": "acme", "guid": _GUID}, headers={"Range": "bytes=5-9"}
        ),
        schema["/dial"]["POST"].Case(
            body={"source": "acme", "agent": "1001", "number": "112"},
            media_type="application/json",
            headers={"Idempotency-Key": "k"},
        ),
        schema["/dead-letters"]["POST"].Case(body={"action": "drop", "ids": ["none-such"]}, media_type="application/json"),
    ]
    statuses = []
    for case in cases:
        answer = await asyncio.to_thread(case.call_and_validate, headers=dict(AUTHORIZED), checks=_CHECKS, timeout=LIMIT_S)
        statuses.append(answer.status_code)
    assert statuses == [200, 200, 200, 200, 206, 416, 200, 206, 201, 200]


async def test_what_an_answer_holds_is_all_described(here: World, document: Any) -> None:  # noqa: ANN401
    schemas = document["components"]["schemas"]
    _, told, _ = await here.get("/calls", headers=AUTHORIZED)
    assert told["calls"]
    assert set(told["calls"][0]) == set(schemas["CallRow"]["properties"])
    _, told, _ = await here.get("/calls/acme/513", headers=AUTHORIZED)
    assert set(told) == set(schemas["CallDetail"]["properties"])
    assert b"agents" not in orjson.dumps(schemas)
