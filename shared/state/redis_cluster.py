"""The client of a Redis Cluster: each command goes to the node of its slot, on connections that check as everywhere else.

redis-py has a cluster client. Its pipelines refuse EVALSHA, and its nodes do not wait for a free connection. A `WAIT` can reach
another connection there than the writes before it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any, Final

from redis.exceptions import AskError, MovedError, RedisError, TryAgainError
from redis.exceptions import TimeoutError as RedisTimeoutError

from shared.state.keys import CLUSTER_KEYS, PROBE_KEY, watermark_key
from shared.state.redis_client import PROBE_KEPT_MS, STEP_S, Batch, Node, RedisClient, raised
from shared.state.redis_url import Address, RedisUrl
from shared.state.replicas import Confirm, Replicas
from shared.state.slots import Slots, read_slots, slot_of

# While the keys of a slot move, a script that needs several of them must wait for the last one.
_TRY_AGAIN_S: Final = 0.05
_PAUSES_S: Final = (0, 0, 0.01)
_PROBES: Final = (PROBE_KEY, watermark_key("probe"), *map(CLUSTER_KEYS.probe, range(len(CLUSTER_KEYS.tags))))

Command = tuple[tuple[Any, ...], Mapping[str, Any]]


@dataclass(slots=True)
class _Sent:
    """A command on its way: where it goes, whether the node gets it by ASK, and the reply."""

    command: Command
    slot: int
    to: Address | None = None
    is_asking: bool = False
    failure: Exception | None = None
    reply: object = None
    is_done: bool = False


class RedisCluster(RedisClient):
    """A client of all masters of a cluster."""

    key_names = CLUSTER_KEYS

    def __init__(self, url: RedisUrl, replicas: Replicas) -> None:
        """Prepare without opening a connection. The addresses of the URL are asked for the others, again after each failure."""
        super().__init__(url, replicas)
        self._nodes: dict[Address, RedisClient] = {}
        self._slots: Slots | None = None
        self._is_stale = True
        self._reading = asyncio.Lock()

    async def execute_command(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - the library's signature
        (reply,) = raised(await self.run([(args, options)], Confirm.NO))
        return reply

    @property
    def incarnation(self) -> int:
        return sum(node.incarnation for node in self._nodes.values())

    def batch(self, confirm: Confirm = Confirm.NO) -> Batch:
        return _ClusterBatch(self, confirm)

    async def run(self, commands: Sequence[Command], confirm: Confirm) -> list[Any]:
        """Send commands to their nodes at the same time, and follow slots that moved; returns replies and errors in order.

        Raises:
            RedisError: a node did not answer, or a slot moved for too long. Some of the commands may have run.
        """
        sent = [_Sent(command, slot_of(command[0])) for command in commands]
        try:
            async with asyncio.timeout(STEP_S):
                pauses_s = chain(_PAUSES_S, repeat(_TRY_AGAIN_S))
                while pending := [each for each in sent if not each.is_done]:
                    await self._send_round(pending, confirm)
                    if not all(each.is_done for each in pending):
                        await asyncio.sleep(next(pauses_s))
        except TimeoutError as error:
            raise RedisTimeoutError(f"the cluster did not answer all of {len(commands)} commands within {STEP_S} s") from error
        return [each.reply for each in sent]

    async def _send_round(self, pending: Sequence[_Sent], confirm: Confirm) -> None:
        slots = await self._current()
        groups: dict[tuple[Address, bool], list[_Sent]] = {}
        for each in pending:
            to = each.to if each.is_asking and each.to else slots.master(each.slot)
            if each.failure and to == each.to:  # the cluster still names the node that failed
                raise each.failure
            each.to, each.failure = to, None
            groups.setdefault((to, each.is_asking), []).append(each)
        await asyncio.gather(*(self._send(to, group, confirm, is_asking=is_asking) for (to, is_asking), group in groups.items()))

    async def _send(self, to: Address, group: Sequence[_Sent], confirm: Confirm, *, is_asking: bool) -> None:
        batch = self._node(to).batch(confirm)
        for each in group:
            args, options = each.command
            if is_asking:
                batch.execute_command("ASKING")
            batch.execute_command(*args, **options)
        try:
            replies = await batch.execute(raise_on_error=False)
        except (RedisError, OSError) as error:
            self._is_stale = True
            for each in group:
                each.failure, each.is_asking = error, False
            return
        except asyncio.CancelledError:  # a frozen node can take the time of the whole step
            self._is_stale = True
            raise
        for each, reply in zip(group, replies[1::2] if is_asking else replies, strict=True):
            self._take(each, reply, to)

    def _take(self, each: _Sent, reply: object, sender: Address) -> None:
        """Take a reply, or see where the slot is now."""
        each.reply, each.is_asking = reply, False
        if isinstance(reply, AskError):  # MovedError is one
            each.to = Address(reply.host or sender.host, reply.port)
            each.is_asking = not isinstance(reply, MovedError)
            if not each.is_asking and self._slots:
                self._slots.move(each.slot, each.to)
                self._is_stale = True
        elif not isinstance(reply, TryAgainError):
            each.is_done = True

    async def _current(self) -> Slots:
        """Return the slots; they are read again after a node failed or a slot moved."""
        if self._slots is None or self._is_stale:
            async with self._reading:
                if self._slots is None or self._is_stale:
                    self._slots = await self._read()
        return self._slots

    async def _read(self) -> Slots:
        known = self._slots
        addresses = {*self.url.addresses, *self._nodes, *(known.masters + known.replicas if known else ())}
        self._is_stale = False
        try:
            slots = await read_slots(self.url.servers, sorted(addresses))
        except BaseException:
            self._is_stale = True
            raise
        for address in set(self._nodes) - set(slots.masters):
            self.replicas.forget(str(address))
            await self._nodes[address].connection_pool.disconnect(inuse_connections=False)
        return slots

    def _node(self, address: Address) -> RedisClient:
        if address not in self._nodes:
            self._nodes[address] = RedisClient(self.url, self.replicas, address=address)
        return self._nodes[address]

    async def probe(self) -> None:
        await self._probe(Confirm.NO)

    async def verify(self) -> None:
        if self.replicas.are_required:
            await self._probe(Confirm.FULLY)

    async def _probe(self, confirm: Confirm) -> None:
        batch = self.batch(confirm)
        for name in _PROBES:
            batch.set(name, b"", px=PROBE_KEPT_MS)
        await batch.execute()

    async def nodes(self) -> list[Node]:
        self._is_stale = True
        slots = await self._current()
        servers = [*((address, True) for address in slots.masters), *((address, False) for address in slots.replicas)]
        return [Node(str(address), self.url.servers.url(address), is_master) for address, is_master in servers]

    async def aclose(self, close_connection_pool: bool | None = None) -> None:  # noqa: FBT001 - the library's signature
        for node in self._nodes.values():
            await node.aclose()
        await super().aclose(close_connection_pool)


class _ClusterBatch(Batch):
    """Commands for any nodes. Those of one node are sent in one round trip."""

    def __init__(self, client: RedisCluster, confirm: Confirm) -> None:
        super().__init__(client, confirm)
        self._cluster = client

    async def execute(self, raise_on_error: bool = True) -> list[Any]:  # noqa: FBT001, FBT002 - the library's signature
        commands, self.command_stack = self.command_stack, []
        replies = await self._cluster.run(commands, self._confirm)
        return raised(replies) if raise_on_error else replies
