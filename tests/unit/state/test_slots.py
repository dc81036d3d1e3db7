"""Which slot a command goes to, and whose view of a cluster is believed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

import pytest
from redis.crc import key_slot
from redis.exceptions import ConnectionError as RedisConnectionError

from shared.state.keys import CLUSTER_KEYS, watermark_key
from shared.state.redis_url import Address, Endpoint
from shared.state.slots import read_slots, slot_of
from tests.helpers.answering_redis import answering_redis


@pytest.mark.parametrize(
    ("command", "key"),
    [
        (("SET", "callfold:lock:a", b"x"), "callfold:lock:a"),
        (("HGETALL", CLUSTER_KEYS.open(3)), "3-102"),
        (("EVALSHA", "digest", 2, CLUSTER_KEYS.open(5), CLUSTER_KEYS.recent(5), "arg"), "5-242"),
        (("EVAL", "text", 1, CLUSTER_KEYS.open(0)), "0-67"),
        (("TIME",), watermark_key("members")),
        (("GET", b"callfold:{1}:x"), "1"),
    ],
)
def test_a_command_goes_to_the_slot_of_its_keys(command: Sequence[object], key: str) -> None:
    assert slot_of(command) == key_slot(key.encode())


def _node(epoch: int, state: bytes, master_port: int) -> AbstractAsyncContextManager[Address]:
    """Serve a node that sees one master, without a host, which then has that of the node."""
    info = b"cluster_state:%s\r\ncluster_current_epoch:%d\r\n" % (state, epoch)
    return answering_redis({"CLUSTER INFO": info, "CLUSTER SLOTS": [[0, 16383, [b"", master_port, b"id"]]]})


async def test_the_view_of_a_node_that_was_cut_off_is_not_believed() -> None:
    async with _node(7, b"ok", 1) as stale, _node(8, b"ok", 2) as current, _node(8, b"fail", 3) as lonely:
        for order in ([stale, current, lonely], [lonely, current, stale]):
            slots = await read_slots(Endpoint("redis"), order)
            assert slots.masters == [Address("127.0.0.1", 2)]


async def test_a_cluster_without_an_answer_is_away() -> None:
    with pytest.raises(RedisConnectionError, match=r"no node of the cluster answered: .*127\.0\.0\.1:1"):
        await read_slots(Endpoint("redis"), [Address("127.0.0.1", 1)])
