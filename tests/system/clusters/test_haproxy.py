"""Ingress behind a real HAProxy with the configuration that ships: rolling restart, what it lets through, what it writes."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import aiohttp
import orjson
import pytest_asyncio

from console.local.ports import free_port
from console.local.processes import ServiceProcess
from tests.helpers.balanced_ingress import MORE, SECRET, SENDERS, Site, Stream, load_balancer, raw, two_ingresses
from tests.helpers.pace import PACE, paced
from tests.helpers.raw_http import connected_to, post
from tests.helpers.servers import Servers, connected, eventually, lines_of

CONFIG = Path(__file__).resolve().parents[3] / "deploy" / "haproxy.cfg"
# The last of the counters in a log line: how often HAProxy tried again.
RETRIED = re.compile(r"/\+?[1-9][0-9]* GET ")
REQUEST_S = min(9, round(5 * PACE))  # less than `timeout client`, which would cut a slow client first


@pytest_asyncio.fixture
async def site(servers: Servers) -> AsyncIterator[Site]:
    async with _site(servers, drain_s="0") as running:
        yield running


@pytest_asyncio.fixture
async def draining_site(servers: Servers) -> AsyncIterator[Site]:
    """A site whose ingress processes announce to HAProxy that they will end, and go on for a while."""
    async with _site(servers, drain_s=paced(5)) as running:
        yield running


@asynccontextmanager
async def _site(servers: Servers, *, drain_s: str) -> AsyncIterator[Site]:
    log = servers.directory / "haproxy.log"
    async with (
        two_ingresses(servers, drain_s=drain_s, log=log) as site,
        _haproxy(site.fleet.processes, site.ports, site.public, log),
    ):
        yield site


@asynccontextmanager
async def _haproxy(roles: list[ServiceProcess], ports: list[int], public: int, log: Path, **more: str) -> AsyncIterator[None]:
    settings = {"LB_BIND": f"127.0.0.1:{public}", "LB_REQUEST_TIMEOUT": f"{REQUEST_S}s", **more}
    for number, (role, port) in enumerate(zip(roles, ports, strict=True), start=1):
        settings[f"LB_INGRESS_{number}"] = f"127.0.0.1:{port}"
        settings[f"LB_INGRESS_{number}_CHECK_PORT"] = str(role.metrics_port)
    async with load_balancer(["haproxy", "-f", str(CONFIG)], settings, log, f"http://127.0.0.1:{public}"):
        yield


async def test_ingress_processes_are_restarted_one_after_the_other_without_a_failed_or_lost_callback(draining_site: Site) -> None:
    site = draining_site
    stream = Stream(site)

    async def seen_up(name: str, since_line: int) -> bool:
        return any(f"Server ingress/{name} is UP" in line for line in site.log_lines()[since_line:])

    async with asyncio.TaskGroup() as group:
        for number in range(SENDERS):
            group.create_task(stream.send(keep_alive=number % 3 != 0))
        await stream.more()
        for role in site.fleet.processes:
            await role.stop()
            assert role.returncode == 0
            stopped_at_line = len(site.log_lines())
            await stream.more()  # by the other one alone
            await role.start()
            await connected(role)
            await eventually(partial(seen_up, role.name, stopped_at_line))
        await stream.more()
        stream.done.set()
    assert set(stream.answers) == {200}, (stream.answers, site.log_lines()[-5:])
    assert stream.answers[200] == len(stream.sent) >= 4 * MORE
    events = [event for message in await site.servers.take_all("callbacks.fold") for event in orjson.loads(message.body)]
    assert {event["query"] for event in events} == stream.sent
    # HAProxy took each of them out before its port closed: no callback met a refused connection or a time-out. Where a check of
    # the other one was late, it had none left, tried all of them, and repeated what met the closed port.
    assert [line for line in site.log_lines() if RETRIED.search(line) and "-unchecked" not in line] == []
    for role in site.fleet.processes:
        assert any(f"Server ingress/{role.name} is DOWN" in line for line in site.log_lines())


async def test_no_log_line_holds_a_query_a_secret_or_the_path_of_a_wrong_link(site: Site) -> None:
    wrong_link = f"/callbacks/acme&token={SECRET}"  # & for ?: the secret is part of the path
    async with aiohttp.ClientSession(headers={"X-Forwarded-For": f"{SECRET}, 10.0.0.1"}) as session:
        for target in (f"/callbacks/acme?token={SECRET}&{lines_of(1)[0]}", wrong_link, f"/elsewhere?token={SECRET}"):
            async with session.get(site.url + target) as response:
                await response.read()
    # One that HAProxy itself refuses: a space in the target, and then no version that it knows.
    refused = await raw(site.public, f"GET /callbacks/acme?token={SECRET}\x01 x HTTP/9\r\n\r\n".encode())
    assert refused.startswith(b"HTTP/1.1 400")

    async def logged() -> bool:
        return sum(" GET " in line or " <BADREQ> " in line or " 400 " in line for line in site.log_lines()) >= 4

    await eventually(logged)
    text = site.log.read_text("utf-8")
    assert " GET /callbacks/acme" in text
    assert " GET other" in text
    for forbidden in (SECRET, "token", "?", "RequestID", "10.0.0.1", "elsewhere"):
        assert forbidden not in text, forbidden
    for role in site.fleet.processes:
        assert SECRET not in role.log_path.read_text("utf-8")


async def test_a_request_line_of_9000_bytes_gets_the_answer_of_ingress(site: Site) -> None:
    start, end = f"GET /callbacks/acme?token={SECRET}&x=", " HTTP/1.1"
    line = start + "a" * (9000 - len(start) - len(end)) + end
    head, _, body = (await raw(site.public, f"{line}\r\nHost: x\r\nConnection: close\r\n\r\n".encode())).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 414")
    assert orjson.loads(body)["title"] == "URI Too Long"


async def test_bytes_that_are_not_ascii_reach_ingress(site: Site) -> None:
    target = f"/callbacks/acme?token={SECRET}&{lines_of(3)[0]}&ResponderAgent=Jørgen"
    answer = await raw(site.public, f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 200")
    (message,) = await site.servers.take_all("callbacks.fold")
    assert orjson.loads(message.body)[0]["query"].endswith("&ResponderAgent=J%C3%B8rgen")


async def test_only_callbacks_are_let_through_and_no_header_tells_what_stands_behind(site: Site) -> None:
    async with aiohttp.ClientSession() as session:
        for path in ("/", "/metrics", "/readyz", "/hooks/callbacks/acme", "/callbacksx/acme"):
            async with session.get(site.url + path) as response:
                assert (response.status, await response.text()) == (404, "Not Found"), path
        async with session.put(f"{site.url}/callbacks/acme") as response:
            assert (response.status, response.headers["Allow"]) == (405, "GET, POST")
        query = f"token={SECRET}&{lines_of(2)[0]}"
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        async with session.post(f"{site.url}/callbacks/acme", data=query, headers=form) as response:
            assert response.status == 200
            assert [name for name in response.headers if name.lower().startswith("x-") or name in {"Server", "Via"}] == []


async def test_forms_of_more_than_64_kib_are_refused_and_a_wrong_token_gets_its_answer_whatever_the_size(site: Site) -> None:
    wrong, large = "/callbacks/acme?token=wrong", b"a" * (1 << 20)
    requests = {
        "at the limit": (post(wrong, body=large[: 64 * 1024]), 401),
        "larger than the buffer": (post(wrong, body=large[: 40 * 1024]), 401),
        "too large": (post(wrong, body=large[: 64 * 1024 + 1]), 413),
        "far too large": (post(f"/callbacks/acme?token={SECRET}&{lines_of(2)[0]}", body=large), 413),
        "too large for 32 bits": (post(wrong, body=large, length=(1 << 32) + 1), 413),
        "chunks": (post("/callbacks/acme", "Transfer-Encoding: chunked", body=b"100000\r\n" + large + b"\r\n0\r\n\r\n"), 413),
    }
    statuses = {}
    for name, (request, _) in requests.items():
        async with connected_to(site.public) as connection:
            connection.writer.write(request)  # whether or not all of it is read
            statuses[name] = await connection.status()
    assert statuses == {name: status for name, (_, status) in requests.items()}

    async def are_logged() -> bool:
        return sum(" 413 " in line and "/<NOSRV> " in line for line in site.log_lines()) >= 3

    await eventually(are_logged)  # ingress received none with an announced size


async def test_a_client_that_sends_its_request_slowly_is_cut_by_haproxy(site: Site) -> None:
    started = time.monotonic()
    head = await raw(site.public, b"GET /callbacks/acme?CallType=API HTTP/1.1\r\nHos")
    form = b"POST /callbacks/acme HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nCallType="
    body = await raw(site.public, form)
    assert head.startswith(b"HTTP/1.1 408")
    assert body.startswith(b"HTTP/1.1 408")
    assert time.monotonic() - started >= 2 * REQUEST_S

    async def are_logged() -> bool:
        return sum(" 408 " in line and "/<NOSRV> " in line for line in site.log_lines()) == 2

    await eventually(are_logged)  # ingress heard of neither


async def test_callbacks_are_answered_when_the_health_checks_alone_fail_and_a_sender_has_a_rate(servers: Servers) -> None:
    port, public, log = free_port(), free_port(), servers.directory / "haproxy.log"
    sources = servers.directory / "sources.toml"
    sources.write_text(f'[sources.acme]\nsecret = "{SECRET}"\n')
    async with servers.fleet(CALLFOLD_SOURCES=str(sources)) as fleet:
        role = fleet.add("ingress", "ingress", {"CALLFOLD_INGRESS_PORT": str(port)})
        await role.start()
        deaf = [
            ServiceProcess(f"ingress-{number}", "", {}, metrics_port=free_port(), log=log) for number in (1, 2)
        ]  # nothing listens on these
        async with _haproxy(deaf, [port, free_port()], public, log):

            async def both_down() -> bool:
                text = log.read_text("utf-8")
                return all(f"Server ingress/{role.name} is DOWN" in text for role in deaf)

            await eventually(both_down)
            statuses = await _statuses(public, 20)
            assert statuses == [200] * 20
        async with _haproxy([role, deaf[0]], [port, free_port()], public, log, LB_REQUESTS_PER_10S="10"):
            # A sender may send so many in ten seconds, and the shipped limit is far above that.
            statuses = await _statuses(public, 20)
            assert statuses[:5] == [200] * 5
            assert statuses[-5:] == [429] * 5
            assert SECRET not in log.read_text("utf-8")


async def _statuses(public: int, number: int) -> list[int]:
    statuses = []
    async with aiohttp.ClientSession() as session:
        for request_id in range(number):
            target = f"/callbacks/acme?token={SECRET}&{lines_of(request_id)[0]}"
            async with session.get(f"http://127.0.0.1:{public}{target}") as response:
                statuses.append(response.status)
    return statuses
