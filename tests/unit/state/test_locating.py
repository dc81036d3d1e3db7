"""Which server is the master: a majority of Sentinels decides, and of several addresses exactly one may be it."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager, AsyncExitStack

import pytest
import uvloop
from redis.asyncio import Connection

from shared.state.locating import Sentinels, SeveralAddresses, UnclearMasterError
from shared.state.redis_url import Address, parse_redis_url
from tests.helpers.answering_redis import answering_redis

OLD, NEW = Address("10.0.0.1", 6379), Address("10.0.0.2", 6379)
AWAY = Address("127.0.0.1", 1)


def _sentinel(master: Address, *, failover: int, others: int = 2) -> AbstractAsyncContextManager[Address]:
    address = [master.host.encode(), str(master.port).encode()]
    state = [b"config-epoch", str(failover).encode(), b"num-other-sentinels", str(others).encode()]
    return answering_redis({"SENTINEL GET-MASTER-ADDR-BY-NAME": address, "SENTINEL MASTER": state})


async def _find(*sentinels: Address) -> Address:
    return await Sentinels(parse_redis_url(f"redis+sentinel://{','.join(map(str, sentinels))}/calls")).find()


async def test_the_latest_failover_counts_though_most_sentinels_do_not_know_it_yet() -> None:
    async with _sentinel(OLD, failover=4) as one, _sentinel(NEW, failover=5) as two, _sentinel(OLD, failover=4) as three:
        assert await _find(one, two, three) == NEW


async def test_a_majority_of_the_sentinels_suffices() -> None:
    async with _sentinel(NEW, failover=5) as one, _sentinel(NEW, failover=5) as two:
        assert await _find(AWAY, one, two) == NEW


async def test_a_sentinel_whose_connection_closes_under_the_question_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """uvloop answers such a write with a `RuntimeError`, which redis-py passes on."""
    write = Connection._send_packed_command

    async def cut(connection: Connection, command: list[bytes]) -> None:
        if connection.port == one.port:
            assert connection._writer
            connection._writer.transport.abort()
            await asyncio.sleep(0)  # now it is closed
        await write(connection, command)

    monkeypatch.setattr(Connection, "_send_packed_command", cut)
    async with _sentinel(NEW, failover=5) as one, _sentinel(NEW, failover=5) as two, _sentinel(NEW, failover=5) as three:
        assert await asyncio.to_thread(uvloop.run, _find(one, two, three)) == NEW
        with pytest.raises(UnclearMasterError, match="the connection was lost before a command was written"):
            await asyncio.to_thread(uvloop.run, _find(one, AWAY, two))


async def test_one_of_three_sentinels_is_not_believed() -> None:
    async with _sentinel(OLD, failover=4) as one:
        with pytest.raises(UnclearMasterError, match=r"^1 of 3 Sentinels of calls answered, and 2 must agree .*127\.0\.0\.1:1"):
            await _find(one, AWAY, Address("127.0.0.1", 2))


async def test_one_sentinel_of_three_is_not_believed_if_the_url_lists_only_this_one() -> None:
    async with _sentinel(OLD, failover=4, others=2) as one:
        with pytest.raises(UnclearMasterError, match="list more of them in CALLFOLD_REDIS_URL"):
            await _find(one)


async def test_a_single_sentinel_without_others_decides_alone() -> None:
    async with _sentinel(OLD, failover=0, others=0) as one:
        assert await _find(one) == OLD


async def test_sentinels_that_contradict_each_other_are_not_believed() -> None:
    async with _sentinel(OLD, failover=4) as one, _sentinel(NEW, failover=4) as two, _sentinel(OLD, failover=4) as three:
        with pytest.raises(UnclearMasterError, match=r"10\.0\.0\.1:6379 and 10\.0\.0\.2:6379"):
            await _find(one, two, three)


@pytest.mark.parametrize("masters", [0, 1, 2])
async def test_exactly_one_of_several_addresses_may_be_a_master(masters: int) -> None:
    roles = [b"role:master\r\n"] * masters + [b"role:slave\r\n"] * (3 - masters)
    async with AsyncExitStack() as closing:
        servers = [await closing.enter_async_context(answering_redis({"INFO REPLICATION": role})) for role in roles]
        locator = SeveralAddresses(parse_redis_url(f"redis://{','.join(map(str, (AWAY, *servers)))}"))
        if masters == 1:
            assert await locator.locate() == servers[0]
            return
        with pytest.raises(UnclearMasterError, match=r"both masters" if masters else r"is a replica; .*127\.0\.0\.1:1"):
            await locator.locate()


async def test_a_server_that_failed_is_searched_again() -> None:
    async with answering_redis({"INFO REPLICATION": b"role:master\r\n"}) as master:
        locator = SeveralAddresses(parse_redis_url(f"redis://{AWAY},{master}"))
        locator.current = AWAY
        assert await locator.locate() == AWAY
        locator.lost(master)
        assert await locator.locate() == AWAY
        locator.lost(AWAY)
        assert await locator.locate() == master
