"""A Redis Cluster on this machine: `async with redis_cluster(directory) as redis`."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from console.local.ports import free_port
from console.local.stack import REDIS_PROBE, Server
from tests.helpers.pace import PACE
from tests.helpers.redis_servers import ask, ask_running, info, started
from tests.helpers.servers import eventually

SLOTS = 16384
_NODE_TIMEOUT_MS = round(1000 * PACE)
_KEYS_A_MOVE = 100


@dataclass(frozen=True, slots=True)
class RedisCluster:
    """The nodes of a cluster: `masters` at the start, and the replicas of each.

    Each node can be paused, killed and started again; it keeps its port and configuration.
    """

    masters: Sequence[Server]
    replicas: Sequence[Server]

    @property
    def nodes(self) -> list[Server]:
        return [*self.masters, *self.replicas]

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.masters)

    async def master_of(self, slot: int) -> Server | None:
        """Return the node that serves a slot, as the first node that answers and knows it sees it."""
        for ranges in await ask_running(self.nodes, "CLUSTER", "SLOTS"):
            for first, last, master, *_ in cast("list[tuple[int, int, tuple[str, int]]]", ranges):
                if first <= slot <= last:
                    return self._at(master[1])
        return None

    async def replicas_of(self, master: Server) -> list[Server]:
        found = await info(master)
        return [self._at(int(cast("dict[str, int]", value)["port"])) for name, value in found.items() if _is_replica(name)]

    async def settle(self, *, replicas_each: int | None = None) -> None:
        """Wait until every node sees the whole cluster with its replicas, and each replica follows its master."""
        if replicas_each is None:
            replicas_each = len(self.replicas) // len(self.masters)

        async def is_settled() -> bool:
            for node in self.nodes:
                state = cast("str", await ask_plainly(node, "CLUSTER", "INFO"))
                if "cluster_state:ok" not in state or f"cluster_known_nodes:{len(self.nodes)}\r" not in state:
                    return False
                found = await info(node)
                if found["role"] == "slave" and found["master_link_status"] != "up":
                    return False
                ranges = cast("list[list[object]]", await ask_plainly(node, "CLUSTER", "SLOTS"))
                if replicas_each and any(len(row) < 3 + replicas_each for row in ranges):
                    return False
            return True

        await eventually(is_settled)

    def _at(self, port: int) -> Server:
        return next(node for node in self.nodes if node.port == port)


def _is_replica(name: str) -> bool:
    return name.startswith("slave") and name[5:].isdigit()


async def ask_plainly(server: Server, *command: str | int) -> object:
    """Send one command; the answer is as the server gives it, because the library reads those of `CLUSTER` its own way."""
    return await ask(server, *command, is_raw=True)


async def node_id(server: Server) -> str:
    return str(await ask_plainly(server, "CLUSTER", "MYID"))


@dataclass(frozen=True, slots=True)
class Move:
    """A slot that moves. Between `begin` and `finish` both nodes serve it: the old one sends clients on with ASK."""

    slot: int
    source: Server
    target: Server

    async def begin(self) -> None:
        await ask_plainly(self.target, "CLUSTER", "SETSLOT", self.slot, "IMPORTING", await node_id(self.source))
        await ask_plainly(self.source, "CLUSTER", "SETSLOT", self.slot, "MIGRATING", await node_id(self.target))

    async def move_keys(self, at_most: int = _KEYS_A_MOVE) -> int:
        """Move some keys and return how many."""
        names = cast("list[str]", await ask_plainly(self.source, "CLUSTER", "GETKEYSINSLOT", self.slot, at_most))
        if names:
            to = ("127.0.0.1", self.target.port)
            await ask_plainly(self.source, "MIGRATE", *to, "", 0, 60_000, "KEYS", *names)
        return len(names)

    async def finish(self) -> None:
        while await self.move_keys():
            pass
        owner = await node_id(self.target)
        for node in (self.target, self.source):
            await ask_plainly(node, "CLUSTER", "SETSLOT", self.slot, "NODE", owner)


async def move_slot(slot: int, source: Server, target: Server) -> None:
    move = Move(slot, source, target)
    await move.begin()
    await move.finish()


@asynccontextmanager
async def redis_cluster(
    directory: Path,
    *options: str,
    masters: int = 3,
    replicas_each: int = 1,
    has_tls: bool = False,
    program: str = "redis-server",
) -> AsyncIterator[RedisCluster]:
    """Start a cluster until the block ends; `options` are those of each node. With `has_tls` each listens on a second port.

    Masters have the slots that `redis-cli --cluster create` would give them. A replica takes over from a master that does not
    answer for a second.
    """
    directory.mkdir(exist_ok=True)
    count = masters * (1 + replicas_each)
    nodes = [_node(directory / f"node-{number}", program, options, has_tls=has_tls) for number in range(count)]
    redis = RedisCluster(nodes[:masters], nodes[masters:])
    async with started(nodes):
        begins = [round(number * SLOTS / masters) for number in range(masters)] + [SLOTS]
        for number, node in enumerate(nodes):
            await ask_plainly(node, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            if number < masters:
                await ask_plainly(node, "CLUSTER", "ADDSLOTSRANGE", begins[number], begins[number + 1] - 1)
            if number:
                await ask_plainly(node, "CLUSTER", "MEET", "127.0.0.1", nodes[0].port, _bus_port(nodes[0]))
        await redis.settle(replicas_each=0)
        ids = [await node_id(node) for node in redis.masters]
        for number, node in enumerate(redis.replicas):
            await ask_plainly(node, "CLUSTER", "REPLICATE", ids[number % masters])
        await redis.settle()
        yield redis


async def fail_over(redis: RedisCluster, master: Server) -> Server:
    """Freeze a master, and return the replica that took over; the master may go on later, as its replica."""
    (replica,) = await redis.replicas_of(master)
    master.pause()

    async def took_over() -> bool:
        return (await info(replica))["role"] == "master"

    await eventually(took_over)
    return replica


def tls_port(node: Server) -> int:
    return int(node.environment["TLS_PORT"])


def _node(directory: Path, program: str, options: Sequence[str], *, has_tls: bool) -> Server:
    directory.mkdir()
    port, bus_port, with_tls = free_port(), free_port(), free_port() if has_tls else 0
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(directory)]
    command += ["--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1", "--cluster-enabled", "yes"]
    command += ["--cluster-port", str(bus_port), "--cluster-node-timeout", str(_NODE_TIMEOUT_MS), *options]
    if has_tls:
        command += ["--tls-port", str(with_tls)]
    environment = os.environ | {"LC_ALL": "C", "BUS_PORT": str(bus_port), "TLS_PORT": str(with_tls)}
    return Server("redis", command, environment, port=port, log=directory / "log", probe=REDIS_PROBE)


def _bus_port(node: Server) -> int:
    return int(node.environment["BUS_PORT"])
