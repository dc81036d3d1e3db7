"""A Redis that cannot be written is away: after a failover behind one name, the store goes on at the new master by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path

import pytest
import pytest_asyncio

from console.local.stack import Server
from shared.domain.ids import CallKey, CallRef, SourceName
from shared.errors import StoreReadOnlyError, StoreUnavailableError
from shared.state.keys import PLAIN_KEYS, partition
from shared.state.replies import until_redis_answers
from shared.state.store import Store
from tests.helpers.moving_name import MovingName, moving_name
from tests.helpers.pace import LIMIT_S
from tests.helpers.redis_servers import ask, demote, fail_over, info, promote, redis_server
from tests.helpers.scripted_redis import scripted_redis
from tests.helpers.servers import eventually

KEY = CallKey(SourceName("acme"), CallRef("513"))
FACTS = PLAIN_KEYS.facts(partition(KEY), KEY)


@pytest_asyncio.fixture
async def redis_pair(tmp_path: Path) -> AsyncIterator[tuple[Server, Server]]:
    async with redis_server(tmp_path / "one") as one, redis_server(tmp_path / "two") as two:
        yield one, two


async def _fail_over(name: MovingName, old: Server, new: Server, *, cut: bool) -> None:
    await fail_over(old, new)
    name.move(new.port, cut=cut)


async def _merge(store: Store, fact: tuple[str, str]) -> dict[str, str]:
    merged = await asyncio.wait_for(until_redis_answers(lambda: store.merge({KEY: [[fact]]})), LIMIT_S)
    return dict(merged.calls[KEY].facts)


@pytest.mark.parametrize("cut", [False, True], ids=["name", "virtual-address"])
async def test_the_store_goes_on_at_the_new_master_and_back_again(
    redis_pair: tuple[Server, Server],
    cut: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    one, two = redis_pair
    await demote(two, one)
    async with moving_name(one.port) as name, aclosing(Store(name.url)) as store:
        await asyncio.gather(*(_merge(store, ("a", "1")) for _ in range(8)))  # several connections
        await _fail_over(name, one, two, cut=cut)
        assert await _merge(store, ("b", "2")) == {"a": "1", "b": "2"}
        assert await ask(two, "HGET", FACTS, "b") == "2"
        await _fail_over(name, two, one, cut=cut)
        assert await _merge(store, ("c", "3")) == {"a": "1", "b": "2", "c": "3"}
        assert await ask(one, "HGET", FACTS, "c") == "3"


async def test_one_refused_write_sends_the_readers_to_the_new_master_too(
    redis_pair: tuple[Server, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader would otherwise stay with the old server for ever. A command on its way there is answered."""
    monkeypatch.setattr("shared.state.redis_client._SOCKET_TIMEOUT_S", LIMIT_S)
    one, two = redis_pair
    await demote(two, one)
    async with moving_name(one.port) as name, aclosing(Store(name.url)) as store:
        await asyncio.gather(*(store.read(KEY) for _ in range(8)))
        waiting = asyncio.ensure_future(store._redis.blpop(["nothing"], timeout=0))

        async def waiting_client() -> int | None:
            clients = [
                dict(field.split("=", 1) for field in line.split()) for line in str(await ask(one, "CLIENT", "LIST")).splitlines()
            ]
            return next((int(client["id"]) for client in clients if client["cmd"] == "blpop"), None)

        client = await eventually(waiting_client)
        await ask(one, "CONFIG", "SET", "min-replicas-to-write", 9)
        await promote(two)
        name.move(two.port)
        made = name.connections
        with pytest.raises(StoreReadOnlyError, match="NOREPLICAS"):
            await store.check()
        await ask(two, "HSET", FACTS, "where", "two")
        assert await asyncio.gather(*(store.read_facts([KEY]) for _ in range(8))) == [{KEY: {"where": "two"}}] * 8
        assert name.connections > made
        await ask(one, "CLIENT", "UNBLOCK", client)
        assert await waiting is None


async def test_a_replica_is_never_used_not_even_for_reading(redis_pair: tuple[Server, Server]) -> None:
    """One that can be written is worse: it would lose what it stores."""
    one, two = redis_pair
    await demote(two, one)
    await ask(two, "CONFIG", "SET", "replica-read-only", "no")
    expected = rf"^Redis at localhost:{two.port} \(127\.0\.0\.1:{two.port}\) is a replica \(role:slave\)$"
    async with aclosing(Store(f"redis://localhost:{two.port}/0")) as store:
        with pytest.raises(StoreUnavailableError, match=expected):
            await store.read(KEY)
        with pytest.raises(StoreUnavailableError, match=expected):
            await store.check()
        await promote(two)
        await store.check()


async def _full(server: Server, directory: Path) -> None:
    await ask(server, "CONFIG", "SET", "maxmemory", 1)


async def _unsaved(server: Server, directory: Path) -> None:
    """Let a snapshot fail, as on a full disk: a directory has its name."""
    await ask(server, "CONFIG", "SET", "save", "3600 1")
    (directory / "dump.rdb").mkdir()
    await ask(server, "BGSAVE")

    async def has_failed() -> bool:
        return (await info(server))["rdb_last_bgsave_status"] == "err"

    await eventually(has_failed)


async def _alone(server: Server, directory: Path) -> None:
    await ask(server, "CONFIG", "SET", "min-replicas-to-write", 1)


@pytest.mark.parametrize(("break_it", "code"), [(_full, "OOM"), (_unsaved, "MISCONF"), (_alone, "NOREPLICAS")])
async def test_a_master_that_refuses_writes_can_be_read_and_says_why(
    tmp_path: Path, break_it: Callable[[Server, Path], Awaitable[None]], code: str
) -> None:
    async with redis_server(tmp_path / "one") as one, aclosing(Store(f"redis://127.0.0.1:{one.port}/0")) as store:
        await store.merge({KEY: [[("a", "1")]]})
        await break_it(one, tmp_path / "one")
        for write in (store.check, lambda: store.flags.set("x", expires_in_s=9), lambda: store.dials.count("someone")):
            with pytest.raises(StoreReadOnlyError, match=rf"^Redis at 127\.0\.0\.1:{one.port} refuses writes .* \({code}\)$"):
                await write()
        assert (await store.read_facts([KEY]))[KEY] == {"a": "1"}


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (b"-LOADING Redis is loading the dataset in memory\r\n", "LOADING"),
        (b"-CLUSTERDOWN The cluster is down\r\n", "CLUSTERDOWN"),
        (b"-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.\r\n", "MASTERDOWN"),
        (b"-READONLY You can't write against a read only replica.\r\n", "READONLY"),
    ],
)
async def test_a_server_that_does_not_serve_is_away_and_says_why(reply: bytes, code: str) -> None:
    async with scripted_redis(reply) as fake, aclosing(Store(fake.url)) as store:
        for command in (store.check, lambda: store.merge({KEY: [[("b", "2")]]}), lambda: store.read(KEY)):
            made = fake.connections
            with pytest.raises(StoreUnavailableError, match=rf"^Redis at 127\.0\.0\.1:{fake.port} .* \({code}\)$") as raised:
                await command()
            assert not isinstance(raised.value, StoreReadOnlyError)
            assert fake.connections == made + 1, "the connection of the refused command was used again"
