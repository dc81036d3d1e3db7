"""Tags of the partitions: on one server those of the first release, in a cluster spread evenly over its masters."""

from __future__ import annotations

from binascii import crc_hqx
from collections import Counter

import pytest

from shared.domain.ids import CallKey, CallRef, SourceName
from shared.state.keys import CLUSTER_KEYS, PARTITIONS, PLAIN_KEYS, watermark_key

_SLOTS = 16384
KEY = CallKey(SourceName("acme"), CallRef("513"))


def _slot(name: str) -> int:
    """Return the slot of a key, as the specification of Redis Cluster has it."""
    tag = name.partition("{")[2].partition("}")[0]
    return crc_hqx((tag or name).encode(), 0) % _SLOTS


def _master(slot: int, masters: int) -> int:
    """Return the master of a slot in a cluster that `redis-cli --cluster create` made."""
    begins = [round(number * _SLOTS / masters) for number in range(masters)]
    return max(number for number, begin in enumerate(begins) if begin <= slot)


def test_one_server_has_the_names_of_the_first_release() -> None:
    assert PLAIN_KEYS.open(0) == "callfold:{0}:open"
    assert PLAIN_KEYS.recent(15) == "callfold:{15}:recent"
    assert PLAIN_KEYS.facts(7, KEY) == "callfold:{7}:facts:acme/513"
    assert PLAIN_KEYS.publication(7, KEY) == "callfold:{7}:publication:acme/513"


@pytest.mark.parametrize("masters", [1, 2, 3, 4, 6, 8, 16])
def test_masters_of_a_cluster_share_the_partitions(masters: int) -> None:
    of_master = Counter(_master(_slot(CLUSTER_KEYS.open(number)), masters) for number in range(PARTITIONS))
    assert len(of_master) == masters
    assert max(of_master.values()) - min(of_master.values()) <= 1


def test_the_keys_of_a_partition_share_a_slot() -> None:
    for number in range(PARTITIONS):
        names = [CLUSTER_KEYS.open(number), CLUSTER_KEYS.recent(number), *CLUSTER_KEYS.facts_and_publications(number, [KEY])]
        assert len({_slot(name) for name in names}) == 1


def test_each_partition_has_its_own_tag() -> None:
    for keys in (PLAIN_KEYS, CLUSTER_KEYS):
        assert len(set(keys.tags)) == len(keys.tags) == PARTITIONS


def test_the_reports_share_a_slot() -> None:
    assert len({_slot(watermark_key(what)) for what in ("members", "rounds", "spools")}) == 1
