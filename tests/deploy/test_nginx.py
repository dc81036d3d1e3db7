"""Ingress behind a real nginx with the configuration that ships: rolling restart, what it lets through, what it writes."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import aiohttp
import orjson
import pytest
import pytest_asyncio

from console.local.child_process import kill_with_parent
from console.local.ports import free_port
from tests.helpers.balanced_ingress import MORE, SECRET, SENDERS, Site, Stream, load_balancer, raw, two_ingresses
from tests.helpers.certificates import Authority
from tests.helpers.pace import LIMIT_S, paced
from tests.helpers.raw_http import post
from tests.helpers.servers import Servers, connected, eventually, lines_of

CONFIG = Path(__file__).resolve().parents[2] / "deploy" / "nginx.conf"
# A line of the access log has the servers that were tried: more than one if nginx tried again.
RETRIED = re.compile(r'"127\.0\.0\.1:\d+, ')
FORBIDDEN = (SECRET, "token", "?", "RequestID", "RecordingURL", "10.9.8.7", "elsewhere")

Sites = Callable[..., AbstractAsyncContextManager[Site]]


def configured(directory: Path, public: int, ports: list[int], **changed: str) -> Path:
    """Copy the shipped configuration with addresses and directories of the test; `changed` replaces values of directives."""
    text = CONFIG.read_text("utf-8")
    replaced = {
        "10.0.0.11:8080": f"127.0.0.1:{ports[0]}",
        "10.0.0.12:8080": f"127.0.0.1:{ports[1]}",
        "listen 443 ssl default_server": f"listen 127.0.0.1:{public} ssl default_server",
        "        listen [::]:443 ssl default_server;\n": "",
        "/etc/callfold/tls/fullchain.pem": str(directory / "server.pem"),
        "/etc/callfold/tls/privkey.pem": str(directory / "server.pem"),
        "/var/log/nginx/": f"{directory}/",
        "worker_processes auto": f"pid {directory}/nginx.pid;\ndaemon off;\nworker_processes 2",
        "http {": "http {\n" + "".join(f"{name}_temp_path {directory}/{name};\n" for name in ("client_body", "proxy")),
        **changed,
    }
    for old, new in replaced.items():
        assert old in text, old
        text = text.replace(old, new)
    path = directory / "nginx.conf"
    path.write_text(text)
    return path


@pytest_asyncio.fixture
async def sites(servers: Servers) -> AsyncIterator[Sites]:
    """Two ingresses behind an nginx whose own certificate the clients check."""

    @asynccontextmanager
    async def site(*, drain_s: str = "0", **changed: str) -> AsyncIterator[Site]:
        directory = servers.directory / "nginx"
        directory.mkdir()
        directory.chmod(0o755)  # the workers of nginx have another user
        authority = Authority(directory)
        authority.server()
        async with two_ingresses(servers, drain_s=drain_s, log=directory / "callfold.log") as built:
            built.tls = authority.trusting()
            config = configured(directory, built.public, built.ports, **changed)
            async with load_balancer(["nginx", "-c", str(config)], {}, directory / "output", built.url, built.tls):
                yield built

    yield site


def test_nginx_takes_the_configuration_without_a_warning(tmp_path: Path) -> None:
    Authority(tmp_path).server()
    config = configured(tmp_path, 1, [2, 3])
    check = subprocess.run(["/usr/sbin/nginx", "-t", "-q", "-c", config], capture_output=True, text=True, check=False)
    assert (check.returncode, check.stderr) == (0, "")


async def test_ingress_processes_are_restarted_one_after_the_other_without_a_failed_or_lost_callback(sites: Sites) -> None:
    async with sites(drain_s=paced(1)) as site:
        stream = Stream(site)
        async with asyncio.TaskGroup() as group:
            for number in range(SENDERS):
                group.create_task(stream.send(keep_alive=number % 3 != 0))
            await stream.more()
            for role in site.fleet.processes:
                await role.stop()
                assert role.returncode == 0
                await stream.more()  # by the other one alone
                await role.start()
                await connected(role)
                await stream.more()
            stream.done.set()
        assert set(stream.answers) == {200}, (stream.answers, site.log_lines()[-5:])
        assert stream.answers[200] == len(stream.sent) >= 4 * MORE
        events = [event for message in await site.servers.take_all("callbacks.fold") for event in orjson.loads(message.body)]
        assert {event["query"] for event in events} == stream.sent
        for port in site.ports:  # both were used, and so again after their restart
            assert any(f'"127.0.0.1:{port}" "200"' in line for line in site.log_lines()[-300:])


async def test_an_ingress_that_is_killed_fails_no_callback_and_both_serve_at_once_after_both_were_away(sites: Sites) -> None:
    # With passive checks alone, nginx would refuse for as long as this, once both have failed.
    async with sites(**{"fail_timeout=2s": f"fail_timeout={round(LIMIT_S) + 10}s"}) as site:
        stream = Stream(site)
        first, second = site.fleet.processes
        async with asyncio.TaskGroup() as group:
            for number in range(SENDERS):
                group.create_task(stream.send(keep_alive=number % 3 != 0))
            await stream.more()
            await first.stop(signal.SIGKILL)
            await stream.more()
            stream.done.set()
        assert set(stream.answers) == {200}
        assert any(RETRIED.search(line) for line in site.log_lines())
        await second.stop(signal.SIGKILL)
        assert await _post_one(site, 1) == 502
        await second.start()
        await connected(second)
        # A POST is repeated too: the first is still away.
        assert [await _post_one(site, number) for number in range(10, 30)] == [200] * 20


@pytest.mark.parametrize(
    "failure",
    [b"", b"HTTP/1.1 503 x\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 200 x\r\nBro\0ken: x\r\n\r\n"],
    ids=["end", "503", "broken header"],
)
async def test_what_one_ingress_does_not_accept_is_repeated_at_the_other_also_a_post(tmp_path: Path, failure: bytes) -> None:
    tmp_path.chmod(0o755)
    authority = Authority(tmp_path)
    authority.server()
    requests: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """The first request of all fails, at whichever ingress it arrives."""
        requests.append(await reader.readuntil(b"\r\n\r\n") + await reader.readexactly(4))
        writer.write(failure if len(requests) % 2 else b"HTTP/1.1 401 x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    servers = [await asyncio.start_server(answer, "127.0.0.1", 0) for _ in range(2)]
    ports = [server.sockets[0].getsockname()[1] for server in servers]
    public = free_port()
    config = configured(tmp_path, public, ports)
    request = post("/callbacks/acme", "Connection: close", body=b"a=b ")
    command = ["/usr/sbin/nginx", "-c", str(config)]
    process = await asyncio.create_subprocess_exec(*kill_with_parent(), *command)
    try:
        await eventually(partial(_listens, public, authority))
        assert (await raw(public, request, authority.trusting())).startswith(b"HTTP/1.1 401")
        assert len(requests) == 2
        assert requests[0] == requests[1]
        assert b"X-Forwarded-For: 127.0.0.1\r\n" in requests[0]
    finally:
        process.terminate()
        await process.wait()
        for server in servers:
            server.close()


async def _listens(port: int, authority: Authority) -> bool:
    with suppress(ConnectionError):
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=authority.trusting())
        writer.close()
        return True
    return False


async def _post_one(site: Site, request_id: int) -> int:
    async with aiohttp.ClientSession() as session:
        data = f"token={SECRET}&{lines_of(request_id)[0]}"
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        async with session.post(f"{site.url}/callbacks/acme", data=data, headers=form, ssl=site.tls or True) as response:
            return response.status


async def test_no_file_and_no_line_of_nginx_holds_a_query_a_secret_or_the_path_of_a_wrong_link(sites: Sites) -> None:
    changed = {"client_header_timeout 10s": "client_header_timeout 1s", "rate=1000r/s": "rate=1r/s", "burst=5000": "burst=10"}
    async with sites(**changed, **{"client_body_timeout   10s": "client_body_timeout   1s"}) as site:
        good = f"/callbacks/acme?token={SECRET}&{lines_of(1)[0]}"
        forged = {"X-Forwarded-For": f"{SECRET}, 10.9.8.7", "Referer": f"https://x/?token={SECRET}", "User-Agent": SECRET}
        seen: Counter[int] = Counter()

        async def get(*targets: str) -> None:
            async with aiohttp.ClientSession(headers=forged) as session:
                for target in targets:
                    async with session.get(site.url + target, ssl=site.tls or True) as response:
                        seen[response.status] += 1

        async def send(*requests: bytes) -> None:
            for request in requests:
                seen[int((await raw(site.public, request, site.tls)).split()[1])] += 1

        close = "Connection: close"
        await get(good, f"/callbacks/acme&token={SECRET}", f"/elsewhere?token={SECRET}")
        await send(
            f"GET {good}\x01 x HTTP/9\r\n\r\n".encode(),
            f"GET {good}{'a' * 20_000} HTTP/1.1\r\nHost: x\r\n\r\n".encode(),
            f"GET {good} HTTP/1.1\r\nHost: x\r\nX: {'a' * 20_000}\r\n\r\n".encode(),
            f"{SECRET} {good} HTTP/1.1\r\nHost: x\r\n\r\n".encode(),
            post(good, close, body=b"a" * 70_000),
            post(good, close, body=f"token={SECRET}&x={'a' * 60_000}".encode()),
            post(good, "Transfer-Encoding: chunked", close, body=f"token={SECRET} is no length".encode()),
        )
        await raw(site.public, f"GET {good} HTTP/1.1\r\nHos".encode(), site.tls)  # the head never ends
        await raw(site.public, post(good, length=100, body=f"token={SECRET}".encode()), site.tls)  # the body never ends
        await _leave_at_once(site, f"GET {good} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert b" 400 " in await raw(site.public, f"GET {good} HTTP/1.1\r\nHost: x\r\n\r\n".encode())  # without TLS
        for role in site.fleet.processes:
            await role.stop(signal.SIGKILL)
        await get(good)  # refused by both
        await get(*[good] * 20)
        assert {200, 400, 404, 413, 414, 429, 502} <= set(seen), seen
        await eventually(lambda: _has_line(site, " 429 GET /callbacks/acme "))
        assert await _has_line(site, " other ")
        files = [path for path in (site.servers.directory / "nginx").rglob("*") if path.is_file()]
        assert {"callfold.log", "error.log", "output"} <= {path.name for path in files}
        for path in files:
            if path.name != "nginx.conf" and path.suffix != ".pem":
                text = path.read_text("utf-8", errors="replace")
                assert [forbidden for forbidden in FORBIDDEN if forbidden in text] == [], (path, text[-2000:])
        for role in site.fleet.processes:
            assert SECRET not in role.log_path.read_text("utf-8")


async def _has_line(site: Site, part: str) -> bool:
    return any(part in line for line in site.log_lines())


async def _leave_at_once(site: Site, request: bytes) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", site.public, ssl=site.tls)
    writer.write(request)
    writer.transport.abort()


async def test_what_ingress_takes_passes_and_nothing_else_does(sites: Sites) -> None:
    async with sites(**{"client_header_timeout 10s": "client_header_timeout 1s"}) as site:
        start, end = f"GET /callbacks/acme?token={SECRET}&{lines_of(4)[0]}&x=", " HTTP/1.1"
        rest = "\r\nHost: x\r\nConnection: close\r\n\r\n"

        async def line_of(size: int) -> bytes:
            return await raw(site.public, f"{start}{'a' * (size - len(start) - len(end))}{end}{rest}".encode(), site.tls)

        assert (await line_of(8192)).startswith(b"HTTP/1.1 200")
        head, _, body = (await line_of(9000)).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 414")
        assert orjson.loads(body)["title"] == "URI Too Long"  # the answer of ingress

        target = f"/callbacks//acme?token={SECRET}&{lines_of(3)[0]}&ResponderAgent=Jørgen".replace("//", "/")
        answer = await raw(site.public, f"GET {target} HTTP/1.1{rest}".encode(), site.tls)
        assert answer.startswith(b"HTTP/1.1 200")
        assert [name for name in answer.lower().split(b"\r\n") if name.startswith((b"x-", b"via"))] == []
        assert b"Server: nginx\r\n" in answer  # without a version

        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=site.tls or True)) as session:
            for path in ("/", "/metrics", "/readyz", "/hooks/callbacks/acme", "/callbacksx/acme"):
                async with session.get(site.url + path) as response:
                    assert (response.status, await response.text()) == (404, "Not Found"), path
            async with session.put(f"{site.url}/callbacks/acme") as response:
                assert (response.status, response.headers["Allow"]) == (405, "GET, POST")
        for size, status in ((64 * 1024, b"401"), (64 * 1024 + 1, b"413")):
            request = post("/callbacks/acme?token=wrong", "Connection: close", body=b"a" * size)
            assert (await raw(site.public, request, site.tls)).startswith(b"HTTP/1.1 " + status)
        await _check_slow_head(site)
        queries = [
            event["query"] for message in await site.servers.take_all("callbacks.fold") for event in orjson.loads(message.body)
        ]
        assert [query for query in queries if query.endswith("&ResponderAgent=J%C3%B8rgen")]


async def _check_slow_head(site: Site) -> None:
    began = time.monotonic()
    assert await raw(site.public, b"GET /callbacks/acme?CallType=API HTTP/1.1\r\nHos", site.tls) == b""
    assert time.monotonic() - began >= 0.9


async def test_ingress_knows_the_address_of_the_sender_and_believes_no_header_of_it(sites: Sites) -> None:
    async with sites() as site:
        request = b"GET /callbacks/acme?token=wrong HTTP/1.1\r\nX-Forwarded-For: 10.9.8.7\r\nX-Real-IP: 10.9.8.7\r\nHost: x\r\n"
        assert b" 401 " in await raw(site.public, request + b"Connection: close\r\n\r\n", site.tls)
        logs = "".join(role.log_path.read_text("utf-8") for role in site.fleet.processes)
        assert '"peer": "127.0.0.1"' in logs
        assert "10.9.8.7" not in logs


async def test_a_pbx_in_full_flow_is_never_limited(sites: Sites) -> None:
    """2,000 callbacks as fast as they go: the shipped rate lets 5,000 more than 1,000 a second pass."""
    async with sites() as site:
        stream = Stream(site)

        async def sender(first: int) -> None:
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=site.tls or True)) as session:
                for number in range(50):
                    await stream.send_one(session, lines_of(first + number)[0])

        await asyncio.gather(*(sender(10_000 + 50 * number) for number in range(40)))
        assert stream.answers == Counter({200: 2000})
