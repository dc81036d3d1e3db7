"""A download reaches the configured origin and nothing else, whatever links, redirects and names say."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from shared.config.links import origin
from shared.config.sources import load_sources
from shared.domain.ids import SourceName
from shared.domain.recording_reasons import Reason
from shared.errors import ConfigError
from tests.helpers.pace import LIMIT_S
from tests.helpers.recordings import WAV, job
from tests.helpers.scripted_http import Scripted, head, scripted, whole
from worker.download.address_guard import REFUSED, AddressRefusedError, socket_factory
from worker.download.client import Client
from worker.download.connection_failures import are_all_refused
from worker.download.failures import FetchError
from worker.download.limits import Limits
from worker.download.partial_file import partial
from worker.download.targets import is_reachable, recording_links, redirect_target

LIMITS = Limits(max_bytes=1_000_000, stall_s=LIMIT_S, min_bytes_per_second=1)
SECTOK = "3511b272f4fb03ecf900b80b1cc5b8fe"


@pytest_asyncio.fixture
async def pbx() -> AsyncIterator[Scripted]:
    async with scripted() as script:
        script.answers = [whole(WAV)]
        yield script


@pytest_asyncio.fixture
async def elsewhere() -> AsyncIterator[Scripted]:
    async with scripted() as script:
        script.answers = [whole(WAV)]
        yield script
        assert script.asked == [], "nothing may have come here"


@asynccontextmanager
async def _client(tmp_path: Path, allowed: str, more: str = "") -> AsyncIterator[Client]:
    sources = tmp_path / "sources.toml"
    sources.write_text(f'[sources.acme]\nsecret = "x"\nrecording_origin = "{allowed}"\n{more}\n', encoding="utf-8")
    async with Client(load_sources(sources)[SourceName("acme")], LIMITS, asyncio.Semaphore(1)) as client:
        yield client


async def _fetch(client: Client, tmp_path: Path, link: str) -> bytes:
    with partial(tmp_path / "parts", "x", is_kept=False) as part:
        async with client.fetch(link, part, seen_bytes=None) as found:
            return found.file.read()


async def _reason(client: Client, tmp_path: Path, link: str) -> Reason:
    with pytest.raises(FetchError) as refused:
        await _fetch(client, tmp_path, link)
    assert SECTOK not in str(refused.value)
    return refused.value.reason


def _info(address: str) -> Any:  # noqa: ANN401 - what getaddrinfo gives
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return (family, socket.SOCK_STREAM, 6, "", (address, 80) if family == socket.AF_INET else (address, 80, 0, 0))


@pytest.mark.parametrize(
    ("host", "address", "networks"),
    [
        ("127.0.0.1", "127.0.0.1", ()),
        ("127.0.0.1", "::ffff:127.0.0.1", ()),
        ("10.0.0.5", "10.0.0.5", ("10.0.0.0/8",)),
        ("[fd00::5]", "fd00::5", ()),
        ("localhost", "127.0.0.1", ()),
        ("localhost", "::1", ()),
        ("100.100.100.200", "100.100.100.200", ()),
        ("pbx.example.com", "9.9.9.9", ()),
        ("pbx.example.com", "2620:fe::fe", ()),
        ("pbx.example.com", "9.9.9.9", ("9.0.0.0/8",)),
        ("pbx.example.com", "100.64.0.5", ("100.64.0.0/10",)),
        ("pbx.example.com", "fd00::5", ("fd00::/8",)),
        ("pbx.example.com", "10.0.0.5", ("10.0.0.0/8", "192.168.0.0/16")),
    ],
)
def test_the_origin_itself_is_reached_wherever_it_is(host: str, address: str, networks: tuple[str, ...]) -> None:
    socket_factory(host, [ip_network(network) for network in networks])(_info(address)).close()


@pytest.mark.parametrize(
    ("host", "address", "networks"),
    [
        ("127.0.0.1", "127.0.0.2", ()),
        ("10.0.0.5", "10.0.0.6", ()),
        ("10.0.0.5", "10.0.0.5", ("192.168.0.0/16",)),
        ("203.0.113.7", "127.0.0.1", ()),
        ("localhost", "10.0.0.5", ()),
        ("localhost.evil.com", "127.0.0.1", ()),
        ("localhost", "127.0.0.1", ("10.0.0.0/8",)),
        ("pbx.example.com", "10.1.0.5", ("10.0.0.0/16",)),
        ("pbx.example.com", "9.9.9.9", ("10.0.0.0/16",)),
        ("pbx.example.com", "127.0.0.1", ("127.0.0.0/8",)),
        ("pbx.example.com", "169.254.169.254", ("0.0.0.0/0",)),
        ("pbx.example.com", "100.100.100.200", ("100.64.0.0/10",)),
        ("pbx.example.com", "fd00:ec2::254", ("fd00::/8",)),
        *(
            ("pbx.example.com", address, ())
            for address in (
                "127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "169.254.169.254", "::ffff:169.254.169.254", "fe80::1%eth0",
                "0.0.0.0", "::", "224.0.0.1", "ff02::1", "240.0.0.1", "255.255.255.255",  # noqa: S104 - not bound to
                "10.0.0.5", "172.16.0.1", "192.168.1.1", "100.64.0.1", "100.100.100.200", "198.18.0.1", "192.0.0.192", "168.63.129.16",
                "fd00::5", "fd00:ec2::254", "fec0::1", "2002:7f00:1::", "2002:909:909::1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::a00:5",
                "2001:0:a00:5::1", "::127.0.0.1", "::ffff:10.0.0.5",
            )
        ),
    ],
)  # fmt: skip
def test_everything_that_is_not_it_is_refused_at_the_socket(host: str, address: str, networks: tuple[str, ...]) -> None:
    with pytest.raises(AddressRefusedError):
        socket_factory(host, [ip_network(network) for network in networks])(_info(address))


class Rebinding(AbstractResolver):
    """A name server that tells a harmless address to who looks, and another to who connects."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = list(addresses)

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:  # noqa: ARG002
        address = self.addresses.pop(0) if len(self.addresses) > 1 else self.addresses[0]
        return [ResolveResult(hostname=host, host=address, port=port, family=socket.AF_INET, proto=6, flags=0)]

    async def close(self) -> None:
        return


@pytest.mark.parametrize("rebound", ["127.0.0.1", "10.255.255.1"])
async def test_a_name_that_changes_its_address_before_the_connection_is_made_gets_nowhere(
    tmp_path: Path, elsewhere: Scripted, rebound: str
) -> None:
    allowed = f"http://pbx.example.com:{elsewhere.port}"
    async with _client(tmp_path, allowed) as client:
        resolver = Rebinding("9.9.9.9", rebound)
        client._session.connector._resolver = resolver  # type: ignore[union-attr]
        assert (await resolver.resolve("pbx.example.com"))[0]["host"] == "9.9.9.9", "who looked was content"
        assert await _reason(client, tmp_path, f"{allowed}/rec?sectok={SECTOK}") is Reason.ADDRESS_NOT_ALLOWED


async def test_redirects_out_of_the_origin_are_refused_before_anybody_is_asked(
    tmp_path: Path, pbx: Scripted, elsewhere: Scripted
) -> None:
    ours, port = f"127.0.0.1:{pbx.port}", elsewhere.port
    async with _client(tmp_path, pbx.origin) as client:
        for location in (
            elsewhere.origin, f"//127.0.0.1:{port}/", f"http://localhost:{pbx.port}/", "https://127.0.0.1/", f"https://{ours.upper()}@127.0.0.1/", f"http://{ours}@127.0.0.1:{port}/",
            f"http://127.0.0.1:{port}\\@{ours}/", f"http://{ours}:{port}/", f"http:\\\\127.0.0.1:{port}/", "ftp://127.0.0.1/", "file:///etc/passwd",
            f"http://[::ffff:127.0.0.1]:{pbx.port}/", f"http://127.1:{pbx.port}/", f"http://2130706433:{pbx.port}/", "http://[", "gopher://x",
        ):  # fmt: skip
            pbx.answers = [[head(302, "Content-Length: 0", f"Location: {location}")]]
            pbx.asked.clear()
            reason = await _reason(client, tmp_path, f"{pbx.origin}/rec?sectok={SECTOK}")
            # What one reading takes for a path of ours leads in a circle.
            assert reason is Reason.ORIGIN_NOT_ALLOWED or (reason is Reason.TOO_MANY_REDIRECTS and len(pbx.asked) == 4), location


async def test_redirects_inside_the_origin_are_followed(tmp_path: Path, pbx: Scripted) -> None:
    pbx.answers = [
        [head(302, "Content-Length: 0", "Location: /b?x=1")],
        [head(307, "Content-Length: 0", f"Location: {pbx.origin.upper().replace('HTTP', 'http')}/c")],
        [head(303, "Content-Length: 0", "Location: d")],
        whole(WAV),
    ]
    async with _client(tmp_path, pbx.origin) as client:
        assert await _fetch(client, tmp_path, f"{pbx.origin}/a") == WAV
    assert [asked["path"] for asked in pbx.asked] == ["/a", "/b?x=1", "/c", "/d"]


@pytest.mark.parametrize("status", [300, 302, 304, 308])
@pytest.mark.parametrize("lines", [(), ("Location: ",)])
async def test_a_redirect_to_nowhere_is_an_answer_of_an_unexpected_status(
    tmp_path: Path, pbx: Scripted, status: int, lines: tuple[str, ...]
) -> None:
    pbx.answers = [[head(status, "Content-Length: 0", *lines)]]
    async with _client(tmp_path, pbx.origin) as client:
        assert await _reason(client, tmp_path, f"{pbx.origin}/a") is Reason.UNEXPECTED_STATUS
    assert len(pbx.asked) == 1


async def test_a_redirect_that_brings_a_user_and_password_is_refused(tmp_path: Path, pbx: Scripted) -> None:
    pbx.answers = [[head(302, "Content-Length: 0", f"Location: http://joe:hunter2@127.0.0.1:{pbx.port}/b")], whole(WAV)]
    async with _client(tmp_path, pbx.origin) as client:
        assert await _reason(client, tmp_path, f"{pbx.origin}/a") is Reason.ORIGIN_NOT_ALLOWED
    assert [asked["path"] for asked in pbx.asked] == ["/a"]


@pytest.mark.parametrize(
    "keys",
    [
        'recording_origin = "http://joe:hunter2@{host}"',
        'recording_url = "http://joe:hunter2@{host}/a?nId={{call_id}}"',
        'recording_origin = "http://{host}"\nrecording_url = "http://joe:hunter2@{host}/a"',
        'recording_origin = "http://joe:hunter2@{host}"\nrecording_url = "http://{host}/a"',
    ],
)
async def test_the_user_and_password_of_the_source_go_to_its_origin_and_along_redirects(
    tmp_path: Path, pbx: Scripted, keys: str
) -> None:
    pbx.answers = [[head(302, "Content-Length: 0", "Location: /b")], whole(WAV)]
    path = tmp_path / "sources.toml"
    path.write_text('[sources.acme]\nsecret = "x"\n' + keys.format(host=f"127.0.0.1:{pbx.port}"))
    source = load_sources(path)[SourceName("acme")]
    link = recording_links(source, job(recording_url="https://localhost/a"))[0]
    assert "hunter2" not in f"{source!r} {link!r} {link.url} {source.recording_origin}"
    async with Client(source, LIMITS, asyncio.Semaphore(1)) as client:
        assert await _fetch(client, tmp_path, link.url) == WAV
    assert [asked["authorization"] for asked in pbx.asked] == ["Basic am9lOmh1bnRlcjI="] * 2


@pytest.mark.parametrize("allowed", ["https://pbx.müller.example", "https://pbx.xn--mller-kva.example:443"])
@pytest.mark.parametrize("location", ["https://PBX.XN--MLLER-KVA.example/b", "https://pbx.müller.example:443/b", "/b"])
def test_an_international_host_and_its_punycode_are_one_origin(allowed: str, location: str) -> None:
    target = redirect_target(allowed, f"{allowed}/a", location)
    assert is_reachable(URL(target), URL(allowed))
    with pytest.raises(FetchError, match="origin_not_allowed"):
        redirect_target(allowed, f"{allowed}/a", "https://pbx.muller.example/b")


async def test_no_proxy_no_cookie_and_no_credential_goes_anywhere(
    tmp_path: Path, pbx: Scripted, elsewhere: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, elsewhere.origin)
    pbx.answers = [[head(302, "Content-Length: 0", "Set-Cookie: sid=1", "Location: /b")], whole(WAV)]
    async with _client(tmp_path, pbx.origin) as client:
        assert await _fetch(client, tmp_path, f"{pbx.origin}/a") == WAV
    for asked in pbx.asked:
        assert not {"cookie", "authorization", "referer", "proxy-authorization"} & set(asked)


async def test_a_link_that_is_no_link_of_ours_is_refused(tmp_path: Path, pbx: Scripted, elsewhere: Scripted) -> None:
    async with _client(tmp_path, pbx.origin) as client:
        assert await _reason(client, tmp_path, f"{elsewhere.origin}/rec?sectok={SECTOK}") is Reason.ORIGIN_NOT_ALLOWED
        assert await _reason(client, tmp_path, f"http://127.0.0.1:x/?sectok={SECTOK}") is Reason.ORIGIN_NOT_ALLOWED
    assert pbx.asked == []


async def test_networks_of_the_source_narrow_its_own_origin(tmp_path: Path, elsewhere: Scripted) -> None:
    async with _client(tmp_path, elsewhere.origin, 'recording_networks = ["10.0.0.0/8"]') as client:
        assert await _reason(client, tmp_path, f"{elsewhere.origin}/rec") is Reason.ADDRESS_NOT_ALLOWED
    with pytest.raises(ConfigError, match=r"Source acme, recording_networks"):
        async with _client(tmp_path, elsewhere.origin, 'recording_networks = ["10.0.0.0/99"]'):
            pass


def test_an_origin_is_the_same_however_it_is_written() -> None:
    assert origin("https://PBX.example.com:443/a?b") == origin("https://user:secret@pbx.example.com") == "https://pbx.example.com"
    assert origin("http://[FD00::5]:80/") == "http://[fd00::5]"
    assert origin("http://pbx:8080") == "http://pbx:8080"
    with pytest.raises(ValueError, match="not an http"):
        origin("ftp://pbx/")


def test_a_name_of_which_one_address_is_allowed_and_silent_is_asked_again_later() -> None:
    refused, silent = f"{REFUSED}: ::1 for pbx", "[Errno 111] Connect call failed ('10.0.0.1', 443)"
    assert are_all_refused(refused)
    assert are_all_refused(f"Multiple exceptions: {refused}, {refused}")
    assert not are_all_refused(f"Multiple exceptions: {refused}, {silent}")
