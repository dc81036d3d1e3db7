"""How much a PBX is asked at a time, and how often."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from shared.config.sources import load_sources
from shared.errors import BusyError, ConfigError
from tests.helpers.pace import LIMIT_S
from tests.helpers.recordings import WAV
from tests.helpers.scripted_http import RESET, Scripted, head, rest, whole
from worker.download import client as client_module
from worker.download.client import Client
from worker.download.limits import HostSlots, Limits
from worker.download.partial_file import partial

LIMITS = Limits(max_bytes=1_000_000, stall_s=LIMIT_S, min_bytes_per_second=1)
HALF = len(WAV) // 2


@asynccontextmanager
async def _clients(tmp_path: Path, **tables: str) -> AsyncIterator[dict[str, Client]]:
    path = tmp_path / "sources.toml"
    path.write_text("".join(f'[sources.{name}]\nsecret = "x"\n{keys}\n' for name, keys in tables.items()))
    sources = load_sources(path)
    slots = HostSlots()
    clients = {name: Client(source, LIMITS, slots.of(source, sources)) for name, source in sources.items()}
    for client in clients.values():
        await client.__aenter__()
    yield {str(name): client for name, client in clients.items()}
    for client in clients.values():
        await client.__aexit__(None, None, None)


async def _fetch(client: Client, tmp_path: Path, origin: str, name: str = "x") -> None:
    with partial(tmp_path / "parts", name, is_kept=False) as part:
        async with client.fetch(f"{origin}/", part, seen_bytes=None) as found:
            assert found.file.read() == WAV


class Counting:
    """Counts who is served at once, and answers once enough are, or nobody more can come."""

    def __init__(self, enough: int) -> None:
        self.begun: list[float] = []
        self.most = self._at_work = 0
        self._wanted = enough
        self._enough = asyncio.Event()
        self.origin = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.begun.append(time.monotonic())
        self._at_work += 1
        self.most = max(self.most, self._at_work)
        if len(self.begun) == self._wanted:
            self._enough.set()
        await self._enough.wait()
        for _ in range(500):
            await asyncio.sleep(0)  # who may not come yet would come now: clients run in the same loop
        self._at_work -= 1
        writer.write(b"".join(piece for piece in whole(WAV) if isinstance(piece, bytes)))
        writer.close()


@pytest_asyncio.fixture
async def counting() -> AsyncIterator[Counting]:
    counted = Counting(2)
    server = await asyncio.start_server(counted.serve, "127.0.0.1", 0)
    counted.origin = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield counted


async def test_a_source_is_asked_no_more_at_once_and_no_faster_than_it_may_be(
    tmp_path: Path, counting: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "_SLOT_WAIT_S", LIMIT_S)
    keys = f'recording_origin = "{counting.origin}"\nrecordings_at_once = 2\nrecordings_per_second = 20'
    async with _clients(tmp_path, acme=keys) as clients:
        began = time.monotonic()
        await asyncio.gather(*(_fetch(clients["acme"], tmp_path, counting.origin, str(n)) for n in range(8)))
    assert counting.most == 2
    assert all(at - began > number / 20 - 0.01 for number, at in enumerate(counting.begun)), "a twentieth of a second apart"


async def test_sources_on_one_host_share_its_turns_and_the_smallest_number_counts(
    tmp_path: Path, counting: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "_SLOT_WAIT_S", LIMIT_S)
    keys = f'recording_origin = "{counting.origin}"\nrecordings_per_second = 1000\nrecordings_at_once'
    async with _clients(tmp_path, a=f"{keys} = 2", b=f"{keys} = 4") as clients:
        await asyncio.gather(
            *(_fetch(client, tmp_path, counting.origin, f"{name}{n}") for name, client in clients.items() for n in range(4))
        )
    assert counting.most == 2


def test_sources_on_other_hosts_have_their_own(tmp_path: Path) -> None:
    (tmp_path / "s").write_text(
        '[sources.a]\nsecret = "x"\nrecording_origin = "https://PBX.example.com"\n'
        '[sources.b]\nsecret = "x"\nrecording_origin = "http://pbx.example.com:8080"\n'
        '[sources.c]\nsecret = "x"\nrecording_origin = "https://other.example.com"\n[sources.d]\nsecret = "x"\n'
    )
    sources, hosts = load_sources(tmp_path / "s"), HostSlots()
    slots = {str(name): hosts.of(source, sources) for name, source in sources.items()}
    assert slots["a"] is slots["b"]
    assert slots["c"] is not slots["a"]


async def test_continuations_and_redirects_keep_the_pace(tmp_path: Path, server: Scripted) -> None:
    tag = 'ETag: "a"'
    server.answers = [
        [head(302, "Content-Length: 0", "Location: /b")],
        [*whole(WAV, tag, cut=HALF), RESET],
        [head(302, "Content-Length: 0", "Location: /b")],
        rest(WAV, HALF, tag),
    ]
    async with _clients(tmp_path, acme=f'recording_origin = "{server.origin}"\nrecordings_per_second = 10') as clients:
        began = time.monotonic()
        await _fetch(clients["acme"], tmp_path, server.origin)
    assert len(server.asked) == 4
    assert time.monotonic() - began > 0.3, "three times a tenth of a second"


async def test_who_would_wait_too_long_for_its_turn_comes_again_later(
    tmp_path: Path, server: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.download.client._RATE_LIMIT_WAIT_S", 0.1)
    server.answers = [whole(WAV)]
    async with _clients(tmp_path, acme=f'recording_origin = "{server.origin}"\nrecordings_per_second = 0.01') as clients:
        await _fetch(clients["acme"], tmp_path, server.origin)
        with pytest.raises(BusyError):
            await _fetch(clients["acme"], tmp_path, server.origin)
    assert len(server.asked) == 1
    with pytest.raises(ConfigError, match="recordings_per_second"):
        async with _clients(tmp_path, acme="recordings_per_second = 0.001"):
            pass
