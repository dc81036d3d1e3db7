"""A replica confirms what must not be lost. A missing one is named, and stops nothing. Several addresses are one server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from console.local.stack import Server
from shared.domain.ids import CallKey, CallRef, SourceName
from shared.errors import StoreUnavailableError
from shared.state.keys import PLAIN_KEYS, partition
from shared.state.store import Store
from tests.helpers.redis_servers import ask, demote, promote, redis_server, replicas_confirm
from tests.helpers.servers import eventually

KEY = CallKey(SourceName("acme"), CallRef("513"))


@pytest_asyncio.fixture
async def pair(tmp_path: Path) -> AsyncIterator[tuple[Server, Server]]:
    async with redis_server(tmp_path / "one") as one, redis_server(tmp_path / "two") as two:
        await demote(two, one)
        yield one, two


async def test_a_frozen_replica_is_named_and_stops_nothing(pair: tuple[Server, Server]) -> None:
    one, two = pair
    store = Store(f"redis://127.0.0.1:{one.port}/0", replicas=1)
    try:
        await store.merge({KEY: [[("a", "1")]]})
        await eventually(lambda: replicas_confirm(store))
        two.pause()
        merged = await store.merge({KEY: [[("b", "2")]]})
        assert merged.calls[KEY].facts == {"a": "1", "b": "2"}
        assert store.handicaps == [f"Redis at 127.0.0.1:{one.port}: 0 of 1 replicas confirmed"]
        for write in (store.dials.begin("k", b"p"), store.dials.finish("k", b"r"), store.dials.keep("id", b"event")):
            await write
        two.resume()
        await eventually(lambda: replicas_confirm(store))
    finally:
        await store.aclose()


@pytest.mark.parametrize("write", ["merge", "begin", "finish", "keep"])
async def test_what_must_not_be_lost_is_confirmed(pair: tuple[Server, Server], write: str) -> None:
    one, two = pair
    two.pause()
    store = Store(f"redis://127.0.0.1:{one.port}/0", replicas=1)
    writes: dict[str, Callable[[], Awaitable[object]]] = {
        "merge": lambda: store.merge({KEY: [[("a", "1")]]}),
        "begin": lambda: store.dials.begin("k", b"p"),
        "finish": lambda: store.dials.finish("k", b"p"),
        "keep": lambda: store.dials.keep("id", b"event"),
    }
    try:
        await writes[write]()
        assert store.handicaps == [f"Redis at 127.0.0.1:{one.port}: 0 of 1 replicas confirmed"]
    finally:
        await store.aclose()


async def test_of_several_addresses_the_master_is_used(pair: tuple[Server, Server]) -> None:
    one, two = pair
    store = Store(f"redis://127.0.0.1:1,127.0.0.1:{two.port},127.0.0.1:{one.port}/0", replicas=1)
    try:
        await store.merge({KEY: [[("a", "1")]]})
        await eventually(lambda: ask(two, "EXISTS", PLAIN_KEYS.facts(partition(KEY), KEY)))
        await promote(two)
        await store.verify()
        assert store.unclear_master.endswith("are both masters. Make one a replica of the other.")
        await demote(one, two)
        with pytest.raises(StoreUnavailableError):
            await store.merge({KEY: [[("b", "2")]]})
        assert (await store.merge({KEY: [[("b", "2")]]})).calls[KEY].facts == {"a": "1", "b": "2"}
        assert await ask(two, "DBSIZE")
    finally:
        await store.aclose()
