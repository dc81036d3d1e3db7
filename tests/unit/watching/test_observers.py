"""What workers observe for operator events: the archive, dead letters, certificates and lost state."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import pytest_asyncio

from shared.archive.deadlines import ArchiveUnavailableError
from shared.archive.storage import Archive
from shared.config.live_sources import LiveSources
from shared.domain.certificate import end_of_validity
from shared.domain.condition import Observation
from shared.domain.times import rfc3339
from shared.errors import StoreUnavailableError
from shared.runtime.tls_probe import certificate_end
from shared.state.positions import Positions
from shared.state.stored_position import PartitionState
from tests.helpers.certificates import Authority
from tests.helpers.settings import settings_here
from worker.watching.archive import ArchiveWatch
from worker.watching.certificates import CertificateWatch, _observation, tls_servers
from worker.watching.growth import WINDOW_S, Growth
from worker.watching.lost_state import LostState
from worker.watching.watcher import Watcher

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)


def _states(observations: list[Observation]) -> list[tuple[str, bool, str]]:
    return [(seen.subject, seen.is_bad, seen.at) for seen in observations]


def test_dead_letters_grow_from_the_first_that_is_added_until_none_was_for_a_while() -> None:
    growth = Growth()
    for second, depth in [(0, 5), (15, 5), (30, 2)]:  # what was there before is no growth, and a redrive is none
        growth.sample(depth, second, str(second))
        assert not growth.is_growing
    for second, depth in [(45, 3), (60, 3), (75, 7)]:
        growth.sample(depth, second, str(second))
    assert (growth.is_growing, growth.since, growth.added, growth.depth) == (True, "45", 5, 7)
    growth.sample(7, 75 + WINDOW_S - 1, "later")
    assert growth.is_growing
    growth.sample(7, 75 + WINDOW_S, "over")
    assert (growth.is_growing, growth.last_at) == (False, "75")


async def test_an_archive_is_away_after_two_failed_checks_from_the_first_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter(str(number) for number in range(100))
    archive = Archive((tmp_path / "archive").as_uri())
    watch = ArchiveWatch(archive, lambda: next(times))
    assert _states(watch.observations()) == []
    await watch.check()
    await watch.check()
    assert _states(watch.observations()) == [("archive", False, "0")]

    async def fail() -> None:
        raise ArchiveUnavailableError("The archive cannot be written: no space left.")

    with monkeypatch.context() as patched:
        patched.setattr(archive, "check", fail)
        await watch.check()
        assert _states(watch.observations()) == []
        await watch.check()
        await watch.check()
    (seen,) = watch.observations()
    assert (seen.is_bad, seen.at, seen.detail) == (True, "2", "The archive cannot be written: no space left.")
    await watch.check()
    assert _states(watch.observations()) == [("archive", False, "5")]


async def test_an_archive_that_hangs_is_checked_by_one_thread_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.watching.archive._CHECK_S", 0.02)
    archive = Archive((tmp_path / "archive").as_uri())
    watch, released, started = ArchiveWatch(archive, lambda: "now"), asyncio.Event(), 0

    async def hang() -> None:
        nonlocal started
        started += 1
        await asyncio.shield(released.wait())  # a thread cannot be cancelled

    monkeypatch.setattr(archive, "check", hang)
    for _ in range(3):
        await watch.check()
    assert (_states(watch.observations()), started) == ([("archive", True, "now")], 1)
    released.set()
    await watch.check()
    assert _states(watch.observations()) == [("archive", False, "now")]


def test_a_short_rebuild_is_reported_although_it_is_over_before_the_next_look() -> None:
    positions = Positions("worker")
    lost = LostState(positions, lambda: "now")
    assert _states(lost.observations()) == [("redis", False, "now")]
    lost.began({"partitions": 2})
    lost.finished({"partitions": 2, "calls": 7})
    seen = lost.observations()
    assert [(each.is_bad, dict(each.figures)) for each in seen] == [
        (True, {"partitions": 2}),
        (False, {"partitions": 2, "calls": 7}),
        (False, {}),
    ]


def test_a_rebuild_that_could_not_be_stored_is_reported_again() -> None:
    lost = LostState(Positions("worker"), lambda: "now")
    lost.began({"partitions": 2})
    lost.finished({"partitions": 2, "calls": 7})
    first = lost.observations()
    lost.began({"partitions": 3})  # while Redis does not answer
    again = lost.observations()
    assert _states(again) == [*_states(first[:2]), ("redis", True, "now"), ("redis", False, "now")]
    lost.stored()
    assert _states(lost.observations()) == [("redis", False, "now")]


async def test_a_watcher_keeps_the_reports_of_a_rebuild_until_redis_has_them() -> None:
    watcher = Watcher.__new__(Watcher)
    watcher.lost_state = LostState(Positions("worker"), lambda: "now")
    stored: list[Observation] = []
    outages = [True]

    async def report(observations: list[Observation], **_: object) -> None:
        if outages and outages.pop():
            raise StoreUnavailableError("Redis is away")
        stored.extend(observations)

    none = SimpleNamespace(observations=list, servers=None)
    watcher._dead_letters = watcher._archive = watcher._certificates = none  # type: ignore[assignment]
    watcher._silences, watcher._sources = list, SimpleNamespace(current={})  # type: ignore[assignment]
    watcher._publisher = SimpleNamespace(is_up=True, is_blocked=False)  # type: ignore[assignment]
    watcher._reporter = SimpleNamespace(report=report)  # type: ignore[assignment]
    watcher.lost_state.began({"partitions": 2})
    for _ in range(3):
        await watcher.step()
    assert [each.is_bad for each in stored] == [True, False, False]


def test_a_partition_that_waits_is_lost_state(monkeypatch: pytest.MonkeyPatch) -> None:
    positions = Positions("worker")
    monkeypatch.setattr(positions, "not_ready", lambda: {3: PartitionState.REBUILDING})
    (seen,) = LostState(positions, lambda: "now").observations()
    assert (seen.is_bad, dict(seen.figures)) == (True, {"partitions": 1})


@pytest_asyncio.fixture
async def tls_port(tmp_path: Path) -> AsyncIterator[int]:
    """A server whose certificate no client trusts."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            await reader.read()
        writer.transport.abort()  # `close` would wait for an end of TLS that the client does not send

    context = Authority(tmp_path).server(days=(-30, 10.25))
    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_the_end_of_a_certificate_is_read_although_no_client_would_trust_it(tls_port: int) -> None:
    end = await certificate_end("127.0.0.1", tls_port)
    assert abs(end - datetime.now(UTC) - timedelta(days=10.25)) < timedelta(minutes=5)


async def test_a_certificate_expires_soon_from_two_weeks_before_its_end(tls_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime.now(UTC)
    settings = settings_here(
        monkeypatch, {"CALLFOLD_AMQP_URL": f"amqps://guest:hunter2@127.0.0.1:{tls_port}/,amqp://guest:guest@127.0.0.1:1/"}
    )
    watch = CertificateWatch(settings, LiveSources.load(None), lambda: now)
    assert (watch.servers, watch.observations()) == (None, [])
    assert await watch.read()
    (seen,) = watch.observations()
    end = await certificate_end("127.0.0.1", tls_port)
    assert (seen.subject, seen.is_bad, seen.at) == (f"127.0.0.1:{tls_port}", True, rfc3339(end - timedelta(days=14)))
    assert dict(seen.figures) == {"expires_at": rfc3339(end), "days_left": 10.2}
    now = end - timedelta(days=14, seconds=1)
    (seen,) = watch.observations()
    assert not seen.is_bad


def test_a_certificate_that_ended_in_the_year_1_is_expired() -> None:
    validity = b"\x30\x22" + 2 * (b"\x18\x0f" + b"00010101000000Z")
    fields = b"\x02\x01\x01" + 2 * b"\x30\x00" + validity
    inner = b"\x30" + bytes([len(fields)]) + fields
    seen = _observation("pbx.example:443", end_of_validity(b"\x30" + bytes([len(inner)]) + inner), NOW)
    assert seen.is_bad
    assert seen.at < rfc3339(NOW)


async def test_a_server_that_cannot_be_reached_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_here(monkeypatch, {"CALLFOLD_AMQP_URL": "amqps://guest:guest@127.0.0.1:1/"})
    watch = CertificateWatch(settings, LiveSources.load(None), lambda: NOW)
    assert not await watch.read()
    assert (watch.servers, watch.observations()) == (["127.0.0.1:1"], [])


def test_every_server_with_tls_that_is_configured_is_one_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "sources.toml"
    path.write_text(
        '[sources.acme]\ndial_url = "https://pbx.example/dial?agent={agent}&number={number}"\n'
        'recording_origin = "https://files.example:8443"\n[sources.plain]\nrecording_origin = "http://plain.example"\n'
    )
    variables = {
        "CALLFOLD_AMQP_URL": "amqps://a:b@rabbit-1/,amqps://a:b@rabbit-2:5673/,amqp://a:b@rabbit-3/",
        "CALLFOLD_REDIS_URL": "rediss://:secret@redis.example:6380/0",
    }
    settings = settings_here(monkeypatch, variables)
    servers = tls_servers(settings, LiveSources.load(path))
    assert list(servers) == ["rabbit-1:5671", "rabbit-2:5673", "redis.example:6380", "files.example:8443", "pbx.example:443"]


@pytest.mark.parametrize("der", [b"", b"\x30", b"\x30\x82\xff\xff", b"\x30\x03\x02\x01\x01", b"\x30\x80" * 20, bytes(range(256))])
def test_what_is_no_certificate_is_an_error(der: bytes) -> None:
    with pytest.raises(ValueError, match=r"no X\.509 certificate|does not match format|no sequence"):
        end_of_validity(der)
