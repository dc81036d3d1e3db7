"""Which node of a cluster serves which slot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, cast

from redis.crc import key_slot
from redis.exceptions import ConnectionError as RedisConnectionError

from shared.state.keys import watermark_key
from shared.state.locating import answers_of, ask
from shared.state.redis_url import Address, Endpoint

_SCRIPTS: Final = frozenset({"EVAL", "EVALSHA"})
# The clock of Redis is that of the node with the reports, by which the timers run.
_WITHOUT_KEY: Final = {"TIME": key_slot(watermark_key("").encode())}


def slot_of(command: Sequence[object]) -> int:
    """Return the slot of the keys of a command."""
    name = str(command[0])
    if name in _WITHOUT_KEY:
        return _WITHOUT_KEY[name]
    key = command[3 if name in _SCRIPTS else 1]
    return key_slot(key if isinstance(key, bytes) else str(key).encode())


class Slots:
    """The masters of a cluster with their slots, as one node saw them.

    Attributes:
        masters: addresses of the nodes that serve slots.
        replicas: addresses of the nodes that follow them.
    """

    def __init__(self, ranges: Sequence[tuple[int, int, Address]], replicas: Sequence[Address]) -> None:
        self._at: dict[int, Address] = {slot: master for first, last, master in ranges for slot in range(first, last + 1)}
        self.masters = sorted({master for _, _, master in ranges})
        self.replicas = sorted(set(replicas) - set(self.masters))

    def master(self, slot: int) -> Address:
        """Return the node that serves a slot.

        Raises:
            RedisConnectionError: no node serves it.
        """
        if slot not in self._at:
            raise RedisConnectionError(f"no node of the cluster serves slot {slot}")
        return self._at[slot]

    def move(self, slot: int, master: Address) -> None:
        self._at[slot] = master


async def read_slots(endpoint: Endpoint, addresses: Sequence[Address]) -> Slots:
    """Ask nodes of a cluster for its slots, and believe the one that knows of the latest failover.

    Raises:
        RedisConnectionError: no node answered.
    """
    views, reasons = await answers_of((_view(endpoint, address) for address in addresses), enough=len(addresses) // 2 + 1)
    if not views:
        raise RedisConnectionError(f"no node of the cluster answered: {'; '.join(sorted(set(reasons)))}")
    _, _, slots = max(views, key=lambda view: view[:2])
    return slots


async def _view(endpoint: Endpoint, address: Address) -> tuple[int, bool, Slots]:
    """Return the number of the latest failover that a node knows, whether it is part of the majority, and the slots it sees."""
    info, rows = await ask(endpoint.url(address), ("CLUSTER", "INFO"), ("CLUSTER", "SLOTS"))
    fields = dict(line.partition(":")[::2] for line in cast("bytes", info).decode().split())
    ranges, replicas = [], []
    for first, last, master, *others in cast("list[tuple[int, int, list[object], *tuple[list[object], ...]]]", rows):
        ranges.append((first, last, _address(master, address)))
        replicas += [_address(other, address) for other in others]
    return int(fields["cluster_current_epoch"]), fields["cluster_state"] == "ok", Slots(ranges, replicas)


def _address(row: Sequence[object], asked: Address) -> Address:
    """Return the address of a node. One that does not know its own host leaves it out."""
    host = row[0].decode() if isinstance(row[0], bytes) else ""
    return Address(asked.host if host in {"", "?"} else host, int(cast("int", row[1])))
