"""What ingress answers, over real HTTP, with real servers behind it."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import orjson
import pytest
import pytest_asyncio

from console.local.ports import free_port
from console.local.processes import Fleet
from tests.helpers.pace import LIMIT_S
from tests.helpers.servers import VENDOR_LINES, Servers, callfold, connected, eventually

SECRET = "hunter2-hunter2"
SOURCES = f"""
[sources.acme]
secret = "{SECRET}"
adapter = "https://hooks.example.com/callbacks/acme?token={SECRET}&t={{{{CallTypeName}}}}&e={{{{DialApiEventName}}}}&id={{{{CallID}}}}&r={{{{DialApiRequestID}}}}"

[sources.rotating]
secret = "env:ROTATING_SECRET"
"""
LINE = "t=API&e=pickup&id=77&r=513"


@pytest_asyncio.fixture
async def ingress(servers: Servers) -> AsyncIterator[tuple[str, Servers, Fleet]]:
    sources = servers.directory / "sources.toml"
    sources.write_text(SOURCES)
    port = free_port()
    async with servers.fleet(CALLFOLD_SOURCES=str(sources), ROTATING_SECRET="from-env") as fleet:
        fleet.add("ingress", "ingress", {"CALLFOLD_INGRESS_PORT": str(port)})
        await fleet.start_all()
        await connected(*fleet.processes)  # else it answers out of its spool
        yield f"http://127.0.0.1:{port}", servers, fleet


Ingress = tuple[str, Servers, Fleet]


async def _ask(url: str, method: str = "GET", **more: object) -> tuple[int, dict[str, object], aiohttp.ClientResponse]:
    async with aiohttp.ClientSession() as session, session.request(method, url, **more) as response:  # type: ignore[arg-type]
        body = await response.read()
        is_json = response.content_type == "application/problem+json"
        return response.status, orjson.loads(body) if is_json and body else {"text": body.decode()}, response


async def test_a_callback_is_accepted_and_its_secret_is_nowhere_in_the_message(ingress: Ingress) -> None:
    url, servers, _ = ingress
    status, _, _ = await _ask(f"{url}/callbacks/acme?token={SECRET}&{LINE}&foreign=1")
    assert status == 200
    (message,) = await servers.take_all("callbacks.fold")
    (event,) = orjson.loads(message.body)
    assert set(event) == {"v", "kind", "source", "received_at", "query"}
    assert (event["v"], event["kind"], event["source"]) == (1, "callback", "acme")
    assert event["query"] == LINE + "&foreign=1"
    assert event["received_at"].endswith("Z")
    assert len(event["received_at"]) == len("2026-11-23T07:44:00.123456Z")
    assert message.message_id
    assert message.delivery_mode == 2
    assert SECRET.encode() not in message.body


async def test_a_post_with_a_form_body_is_a_callback_too(ingress: Ingress) -> None:
    url, servers, _ = ingress
    form = dict(pair.split("=") for pair in f"token={SECRET}&{LINE}".split("&"))
    assert (await _ask(f"{url}/callbacks/acme", "POST", data=form))[0] == 200
    assert (await _ask(f"{url}/callbacks/acme?token={SECRET}&{LINE}", "POST"))[0] == 200
    events = [orjson.loads(message.body)[0] for message in await servers.take_all("callbacks.fold")]
    assert [event["query"] for event in events] == [LINE, LINE]


async def test_a_form_body_that_is_not_utf_8_is_refused_by_name_and_kept_as_the_bytes_it_is(ingress: Ingress) -> None:
    url, servers, _ = ingress
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    body = f"token={SECRET}&t=API&id=5&r=513&e=".encode() + b"J\xfcrgen"
    status, problem, _ = await _ask(f"{url}/callbacks/acme", "POST", data=body, headers=form)
    assert (status, problem["parameter"]) == (400, "e")
    (letter,) = await servers.take_all("callbacks.dead")
    assert orjson.loads(letter.body)[0]["query"].endswith("e=J%FCrgen")
    body = f"token={SECRET}&{LINE}&CallerID=".encode() + "Jürgen".encode()
    assert (await _ask(f"{url}/callbacks/acme", "POST", data=body, headers=form))[0] == 200
    (message,) = await servers.take_all("callbacks.fold")
    assert orjson.loads(message.body)[0]["query"].endswith("CallerID=J%C3%BCrgen")


async def test_a_body_that_is_no_form_is_refused_unless_the_callback_is_in_the_query(ingress: Ingress) -> None:
    url, servers, _ = ingress
    xml = {"Content-Type": "text/xml"}
    for token, kept in (("", 0), (f"?token={SECRET}", 1)):
        status, problem, _ = await _ask(f"{url}/callbacks/acme{token}", "POST", data="<a/>", headers=xml)
        assert (status, problem["title"]) == (415, "Unsupported Media Type")
        assert len(await servers.take_all("callbacks.dead")) == kept
    members = dict(pair.split("=") for pair in LINE.split("&"))
    assert (await _ask(f"{url}/callbacks/acme", "POST", json={"token": SECRET, **members}))[0] == 200
    assert (await _ask(f"{url}/callbacks/acme?token={SECRET}&{LINE}", "POST", json={}))[0] == 200
    assert len(await servers.take_all("callbacks.fold")) == 2


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"/callbacks/acme?{LINE}", 401),
        (f"/callbacks/acme?{LINE}&token=", 401),
        (f"/callbacks/acme?{LINE}&token={SECRET}x", 401),
        (f"/callbacks/rotating?{VENDOR_LINES[0]}&token={SECRET}", 401),
        (f"/callbacks/rotating?{VENDOR_LINES[0]}&token=from-env", 200),
        (f"/callbacks/nobody?{LINE}&token={SECRET}", 404),
        ("/", 404),
        ("/callbacks/", 404),
        ("/metrics", 404),
        (f"/callbacks/acme?token={SECRET}&{LINE}&x=" + "a" * 8192, 414),
        (f"/callbacks/acme?token={SECRET}&{LINE}&x=" + "a" * 100_000, 414),
        (f"/callbacks/acme?token={SECRET}&{LINE}&x=" + "a" * 7900, 200),
    ],
)
async def test_each_request_gets_its_status(ingress: Ingress, path: str, status: int) -> None:
    url, servers, _ = ingress
    assert (await _ask(url + path))[0] == status
    assert len(await servers.take_all("callbacks.fold")) == (status == 200)
    assert await servers.take_all("callbacks.dead") == []


async def test_a_callback_with_a_wrong_name_or_token_is_found_again_and_redriven(ingress: Ingress) -> None:
    url, servers, fleet = ingress
    environment = servers.environment(CALLFOLD_SOURCES=str(servers.directory / "sources.toml"), ROTATING_SECRET="from-env")
    assert (await _ask(f"{url}/callbacks/wrong-name?token={SECRET}&{LINE}"))[0] == 404
    assert (await _ask(f"{url}/callbacks/wrong-name?token=nothing&{LINE}"))[0] == 404

    async def are_listed() -> list[dict[str, object]] | None:
        _, out, _ = await callfold("quarantine", "list", "--source", "wrong-name", "--since", "1h", "--json", **environment)
        found = [orjson.loads(line) for line in out.splitlines()]
        return found if len(found) == 2 else None

    for found in await eventually(are_listed):
        assert (found["reason"], found["query"], found["peer"]) == ("unknown_source", LINE, "127.0.0.1")
    code, out, err = await callfold("quarantine", "redrive", "--source", "wrong-name", "--as", "acme", **environment)
    assert (code, out) == (0, "1 redriven\n")
    assert "1 not redriven: it did not have the secret of acme" in err
    code, _, err = await callfold("quarantine", "redrive", "--unverified", "--yes", **environment)
    assert (code, "Name them with --source" in err) == (2, True)
    (message,) = await servers.take_all("callbacks.fold")
    (event,) = orjson.loads(message.body)
    assert (event["source"], event["query"]) == ("acme", LINE)
    _, out, _ = await callfold("doctor", "--json", **environment)
    assert '"check":"refusals","ok":true' in out
    metrics = await _ask(f"http://127.0.0.1:{fleet.processes[0].metrics_port}/metrics")
    assert 'callfold_callbacks_refused_total{reason="unknown_source"} 2.0' in str(metrics[1])
    assert 'callfold_callbacks_refused_total{reason="headers_too_long"} 0.0' in str(metrics[1])


async def test_other_methods_are_refused_with_what_is_allowed(ingress: Ingress) -> None:
    url, _, _ = ingress
    for method in ("PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"):
        status, _, response = await _ask(f"{url}/callbacks/acme?token={SECRET}&{LINE}", method)
        assert (method, status, response.headers["Allow"]) == (method, 405, "GET, POST")


async def test_a_value_beyond_the_limits_is_refused_by_name_and_kept(ingress: Ingress) -> None:
    url, servers, _ = ingress
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    values = (f"id={'7' * 50_000}", f"t=%{'25' * 20_000}", "&".join(["x=1"] * 200))
    for value in values:
        body = f"token={SECRET}&{value}&{LINE}"
        status, problem, response = await _ask(f"{url}/callbacks/acme", "POST", data=body, headers=form)
        assert (status, response.content_type) == (400, "application/problem+json")
        assert problem["parameter"] == value[: value.index("=")]
        assert len(str(problem)) < 500
    letters = await servers.take_all("callbacks.dead")
    assert [orjson.loads(letter.body)[0]["query"] for letter in letters] == [f"{value}&{LINE}" for value in values]
    assert {letter.headers["reason"] for letter in letters} == {"invalid_callback"}
    assert all(len(str(letter.headers["detail"])) < 300 for letter in letters)


async def test_invalid_input_names_the_parameter_masks_its_value_and_is_kept_with_the_reason(ingress: Ingress) -> None:
    url, servers, _ = ingress
    status, problem, response = await _ask(f"{url}/callbacks/acme?token={SECRET}&t=API&e=pickup&id=twelve-and-more&r=513")
    assert (status, response.content_type) == (400, "application/problem+json")
    assert problem["parameter"] == "id"
    assert "id" in str(problem["detail"])
    assert problem["value"] == "twe***"
    (letter,) = await servers.take_all("callbacks.dead")
    assert letter.headers["reason"] == "invalid_callback"
    assert "id" in str(letter.headers["detail"])
    assert str(letter.headers["first_seen"]).endswith("Z")
    (event,) = orjson.loads(letter.body)
    assert event["query"] == "t=API&e=pickup&id=twelve-and-more&r=513"
    assert await servers.take_all("callbacks.fold") == []


async def test_bytes_that_are_not_percent_encoded_are_kept_as_they_are(ingress: Ingress) -> None:
    url, servers, _ = ingress
    target = f"/callbacks/acme?token={SECRET}&t=API&id=5&r=513&e=".encode() + b"J\xfcrgen"
    answer = await _raw(url, b"GET " + target + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400")
    (letter,) = await servers.take_all("callbacks.dead")
    assert "parameter e is not one of" in str(letter.headers["detail"])
    assert orjson.loads(letter.body)[0]["query"].endswith("e=J%FCrgen")


async def test_a_secret_that_is_sent_as_another_parameter_too_is_kept_nowhere(ingress: Ingress) -> None:
    url, servers, _ = ingress
    assert (await _ask(f"{url}/callbacks/acme?token={SECRET}&{LINE}&key={SECRET}"))[0] == 200
    assert (await _ask(f"{url}/callbacks/acme?token={SECRET}&t=API&e=pickup&id={SECRET}&r=5&key={SECRET}"))[0] == 400
    (message,), (letter,) = await servers.take_all("callbacks.fold"), await servers.take_all("callbacks.dead")
    assert orjson.loads(message.body)[0]["query"] == f"{LINE}&key=***"
    assert orjson.loads(letter.body)[0]["query"] == "t=API&e=pickup&id=***&r=5&key=***"


async def test_a_form_that_is_too_large_is_refused_with_problem_details(ingress: Ingress) -> None:
    url, _, _ = ingress
    form = {"data": io.BytesIO(b"a=" + b"a" * (1 << 20)), "headers": {"Content-Type": "application/x-www-form-urlencoded"}}
    status, problem, _ = await _ask(f"{url}/callbacks/acme", "POST", **form)
    assert (status, problem["status"]) == (413, 413)


async def test_no_answer_tells_the_version_of_a_library(ingress: Ingress) -> None:
    url, _, fleet = ingress
    private = f"http://127.0.0.1:{fleet.processes[0].metrics_port}"
    paths = (f"/callbacks/acme?token={SECRET}&{LINE}", "/callbacks/acme", "/callbacks/acme?" + "a" * 20_000)
    for address in (*(url + path for path in paths), f"{private}/healthz", f"{private}/nothing"):
        _, _, response = await _ask(address)
        assert response.headers.get("Server", "callfold") == "callfold"


async def test_a_callback_without_request_id_is_accepted(ingress: Ingress) -> None:
    url, servers, _ = ingress
    assert (await _ask(f"{url}/callbacks/acme?token={SECRET}&t=Incoming&e=start&id=5&r="))[0] == 200
    assert len(await servers.take_all("callbacks.fold")) == 1


async def _raw(url: str, request: bytes) -> bytes:
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    await writer.drain()
    try:
        return await asyncio.wait_for(reader.read(4096), LIMIT_S)
    finally:
        writer.close()
        await writer.wait_closed()


async def test_the_secret_is_in_no_answer_no_log_and_no_metric_whatever_is_sent(ingress: Ingress) -> None:
    url, servers, fleet = ingress
    target = f"/callbacks/acme?token={SECRET}&{LINE}".encode()
    broken = [
        b"GET " + target.replace(b"t=API", b"t=\xff\xfe") + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET " + target + b" HTTP/9.9\r\nHost: x\r\n\r\n",
        b"GET " + target + b" HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\nHost: x\r\n\r\n",
        b"GET " + target + b"&x=" + b"a" * 40_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET " + target + b" HTTP/1.1\r\n" + b"X: " + b"a" * 40_000 + b"\r\n\r\n",
        target + b"\r\n\r\n",
    ]
    role = fleet.processes[0]
    private = f"http://127.0.0.1:{role.metrics_port}"
    answers = [await _raw(url, request) for request in broken]
    answers += [await _raw(private, request) for request in broken if len(request) < 1000]
    assert all(answer.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4")) for answer in answers), answers
    assert b"aiohttp" not in b"".join(answers)
    for path in ("?token=wrong&" + LINE, f"?token={SECRET}&t=API&e=pickup&id={SECRET}", f"?TOKEN={SECRET}&{LINE}"):
        await _ask(f"{url}/callbacks/acme{path}")
    _, metrics, _ = await _ask(f"{private}/metrics")
    seen = b"".join(answers) + str(metrics).encode() + role.log_path.read_bytes()
    seen += b"".join(Path(f"/proc/{role.pid}/cmdline").read_bytes() for _ in range(1))
    assert b"callfold_callbacks_total" in seen
    assert SECRET.encode() not in seen
    assert b"Traceback" not in role.log_path.read_bytes()
    for letter in await servers.take_all("callbacks.dead"):
        assert SECRET not in str(letter.headers)


async def test_the_private_port_tells_alive_ready_and_metrics(ingress: Ingress) -> None:
    _, _, fleet = ingress
    private = f"http://127.0.0.1:{fleet.processes[0].metrics_port}"
    assert (await _ask(private + "/healthz"))[0] == 200
    assert (await _ask(private + "/readyz"))[0] == 200
    _, told, _ = await _ask(private + "/metrics")
    assert "callfold_publish_seconds_bucket" in str(told)


async def test_what_arrives_during_a_publish_leaves_together(ingress: Ingress) -> None:
    url, servers, _ = ingress
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=100)) as session:

        async def one(number: int) -> int:
            async with session.get(f"{url}/callbacks/acme?token={SECRET}&t=API&e=pickup&id={number}&r={number}") as response:
                return response.status

        assert set(await asyncio.gather(*(one(number) for number in range(1000)))) == {200}
    messages = await servers.take_all("callbacks.fold")
    events = [event for message in messages for event in orjson.loads(message.body)]
    assert len(events) == 1000
    assert len(messages) < 1000  # how many are together depends on who is the faster: tests of GroupCommit count them
    assert len({message.message_id for message in messages}) == len(messages)


async def test_without_a_secret_ingress_refuses_to_listen_beyond_loopback(servers: Servers) -> None:
    process = await asyncio.create_subprocess_exec(
        *("python", "-m", "ingress"),
        env={**_path(), **servers.environment(CALLFOLD_INGRESS_HOST="::", CALLFOLD_INGRESS_PORT="0")},
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await asyncio.wait_for(process.communicate(), LIMIT_S)
    assert process.returncode == 2
    assert "Source default has no secret" in said.decode()


def _path() -> dict[str, str]:
    import os  # noqa: PLC0415
    import sys  # noqa: PLC0415

    return {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


async def test_sigterm_finishes_what_is_in_flight(ingress: Ingress) -> None:
    url, servers, fleet = ingress
    answered: list[int] = []
    refused: list[str] = []

    async def one(session: aiohttp.ClientSession, number: int) -> None:
        try:
            async with session.get(f"{url}/callbacks/acme?token={SECRET}&t=API&e=pickup&id={number}&r={number}") as response:
                (answered.append(number) if response.status == 200 else refused.append(str(response.status)))
        except aiohttp.ClientError as error:
            refused.append(type(error).__name__)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=50)) as session, asyncio.TaskGroup() as group:
        for number in range(2000):
            group.create_task(one(session, number))
        await eventually(lambda: _at_least(answered, 200))
        await fleet.processes[0].stop()
    assert fleet.processes[0].returncode == 0
    events = [event for message in await servers.take_all("callbacks.fold") for event in orjson.loads(message.body)]
    taken = {int(event["query"].rpartition("=")[2]) for event in events}
    assert set(answered) <= taken


async def _at_least(some: list[int], count: int) -> bool:
    return len(some) >= count


async def test_a_connection_that_sends_no_whole_request_is_closed_and_one_that_has_sent_a_request_is_kept(
    ingress: Ingress,
) -> None:
    port = int(ingress[0].rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for pause in (True, False):
        writer.write(f"GET /callbacks/acme?token={SECRET}&{LINE} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split()[0]))
        if pause:  # time enough for this one to be closed as well
            await asyncio.gather(*(_is_closed_after(port, started) for started in (b"", b"GET /callbacks/acme?token=")))
    writer.close()
    await writer.wait_closed()


async def _is_closed_after(port: int, started: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(started)
    async with asyncio.timeout(LIMIT_S):
        assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()
