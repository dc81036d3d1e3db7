"""Connections choose a random address first, so that they spread over the nodes of a cluster."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from shared.amqp import connection
from shared.amqp.connection import BrokerAddress, BrokerConnection
from shared.amqp.hosts import HostWatch, location
from shared.amqp.topology import Topology

URLS = tuple(f"amqp://u:p@node-{number}/" for number in (1, 2, 3))


async def test_each_connection_begins_with_a_random_address_and_then_tries_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    async def refuse(url: str, *_: object) -> None:
        tried.append(url)
        raise ConnectionError("refused")

    monkeypatch.setattr(connection, "open_session", refuse)
    monkeypatch.setattr(connection, "BACKOFF_S", (0,))
    first: Counter[str] = Counter()
    for _ in range(60):
        tried.clear()
        running = asyncio.ensure_future(BrokerConnection(BrokerAddress(URLS, Topology(), "tests"), "test").run())
        while len(tried) < 2 * len(URLS):
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait([running])
        first[tried[0]] += 1
        assert sorted(tried[:3]) == sorted(URLS)
        assert tried[3:6] == tried[:3]
    assert set(first) == set(URLS)  # by chance one is missing once in 10 thousand million runs


async def test_a_single_address_is_never_probed(monkeypatch: pytest.MonkeyPatch) -> None:
    probed: list[object] = []
    monkeypatch.setattr("shared.amqp.hosts.plain_connection", probed.append)
    running = asyncio.ensure_future(HostWatch(URLS[:1]).run())
    for _ in range(10):
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait([running])
    assert not probed


@pytest.mark.parametrize(
    ("url", "expected"), [("amqp://u:p@a/", "a:5672"), ("amqps://u:p@a/v", "a:5671"), ("amqp://a:1234/", "a:1234")]
)
def test_a_location_has_no_credentials(url: str, expected: str) -> None:
    assert location(url) == expected
