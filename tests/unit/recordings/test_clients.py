"""The client of a source follows its options, and keeps what the PBX asked of it when only its secrets change."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from shared.config.sources import Source, Sources, load_sources
from shared.domain.ids import SourceName
from worker.download.client import Client
from worker.download.clients import Clients
from worker.download.limits import HostSlots, Limits

ACME = SourceName("acme")
LIMITS = Limits(max_bytes=1_000_000, stall_s=1, min_bytes_per_second=1)


def _sources(tmp_path: Path, **tables: str) -> Sources:
    path = tmp_path / "sources.toml"
    path.write_text("".join(f'[sources.{name}]\nrecording_origin = "https://pbx"\n{keys}\n' for name, keys in tables.items()))
    return load_sources(path)


async def _client(clients: Clients, sources: Sources) -> Client:
    async with clients.of(sources[ACME], sources) as client:
        return client


@pytest.mark.parametrize(
    ("keys", "is_same"),
    [
        ('secret = "b"\nprevious_secrets = ["a"]', True),
        ('secret = "a"\nrecordings_per_second = 1', False),
        ('secret = "a"\nrecordings_at_once = 1', False),
        ('secret = "a"\ndial_url = "https://pbx/?a={agent}&n={number}"', False),
        ('secret = "a"\nrecording_networks = ["10.0.0.0/8"]', False),
    ],
)
async def test_a_client_is_replaced_if_an_option_of_downloads_changes(tmp_path: Path, keys: str, *, is_same: bool) -> None:
    async with Clients(LIMITS) as clients:
        before = await _client(clients, _sources(tmp_path, acme='secret = "a"'))
        after = await _client(clients, _sources(tmp_path, acme=keys))
        assert (after is before) == is_same
        assert (_is_closed(before), _is_closed(after)) == (not is_same, False)
    assert _is_closed(after)


async def test_a_download_in_progress_keeps_its_client(tmp_path: Path) -> None:
    before, after = _sources(tmp_path, acme='secret = "a"'), _sources(tmp_path, acme='secret = "a"\nrecordings_per_second = 1')
    async with Clients(LIMITS) as clients:
        async with clients.of(before[ACME], before) as client:
            assert await _client(clients, after) is not client
            assert not _is_closed(client)
        assert _is_closed(client)


def test_a_host_keeps_its_slots_unless_its_limit_changes(tmp_path: Path) -> None:
    slots = HostSlots()
    one = _sources(tmp_path, acme='secret = "a"', other='secret = "a"')
    two = _sources(tmp_path, acme='secret = "b"', other='secret = "a"')
    three = _sources(tmp_path, acme='secret = "b"', other='secret = "a"\nrecordings_at_once = 2')
    of_host = slots.of(one[ACME], one)
    assert slots.of(two[ACME], two) is of_host
    assert slots.of(three[ACME], three) is not of_host
    assert slots.of(one[ACME], _without(three)) is slots.of(three[SourceName("other")], _without(three))


def _without(sources: Mapping[SourceName, Source]) -> Sources:
    return {name: source for name, source in sources.items() if name != ACME}


def _is_closed(client: Client) -> bool:
    assert client._session is not None
    return client._session.closed
