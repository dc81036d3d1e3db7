"""Redis for a chaos run: the servers of each layout, and how each client reaches them through the links.

Sentinels and Cluster hand out addresses. Each server announces the port of a wire, so that every way to it can be broken. These wires
carry all its clients, its replicas and the Sentinels; only a single server has a link for each client.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from console.local.ports import free_port
from console.local.stack import REDIS_PROBE, Server
from tests.chaos.links import Links
from tests.helpers.pace import PACE
from tests.helpers.redis_clusters import SLOTS, ask_plainly, node_id
from tests.helpers.redis_sentinels import SERVICE
from tests.helpers.redis_servers import ask_running, info, started
from tests.helpers.servers import eventually

_CONFIG = Path(__file__).resolve().parents[2] / "deploy" / "redis.conf"
_DOWN_AFTER_MS = round(2000 * PACE)
_MASTERS = 3


@dataclass(slots=True)
class RedisServers:
    """The servers of one layout, and the URL of each client. `directories` holds the data of each server, by its name."""

    layout: str
    servers: list[Server]
    directories: dict[str, Path]
    urls: dict[str, str]
    sentinels: list[Server] = field(default_factory=list)

    async def primaries(self) -> list[Server]:
        """Return the servers that take writes and are not frozen."""
        found: dict[int, bool] = {}
        for number, server in enumerate(self.servers):
            answers = await ask_running([server], "ROLE") if server.is_running else []
            for role, _, replicas, *_ in cast("list[list[object]]", answers):
                if role == "master":
                    found[number] = bool(replicas)
        if self.layout == "sentinel" and any(found.values()):  # without replicas, it was one before it was killed
            found = {number: has_replicas for number, has_replicas in found.items() if has_replicas}
        return [self.servers[number] for number in found]


@asynccontextmanager
async def redis_servers(layout: str, directory: Path, links: Links, clients: Sequence[str]) -> AsyncIterator[RedisServers]:
    """Run the servers of a layout until the block ends."""
    layouts = {"single": _single, "sentinel": _sentinel, "cluster": _cluster}
    async with layouts[layout](directory, links, clients) as redis:
        yield redis


@asynccontextmanager
async def _single(directory: Path, links: Links, clients: Sequence[str]) -> AsyncIterator[RedisServers]:
    server = _server(directory / "redis", "redis")
    async with started([server]):
        ports = {client: await links.open("worker-redis", client, "redis", server.port) for client in clients}
        urls = {client: f"redis://127.0.0.1:{port}/0" for client, port in ports.items()}
        yield RedisServers("single", [server], {"redis": directory / "redis"}, urls)


@asynccontextmanager
async def _sentinel(directory: Path, links: Links, clients: Sequence[str]) -> AsyncIterator[RedisServers]:
    """Run a primary, two replicas and three Sentinels."""
    names = [f"redis-{number}" for number in (1, 2, 3)]
    wires = [free_port() for _ in names]
    servers: list[Server] = []
    for name, wire in zip(names, wires, strict=True):
        role = [f"replicaof 127.0.0.1 {wires[0]}"] if servers else []
        announced = ["replica-announce-ip 127.0.0.1", f"replica-announce-port {wire}", "repl-diskless-sync-delay 0"]
        servers.append(_server(directory / name, name, *role, *announced, "repl-ping-replica-period 1", "repl-timeout 10"))
    for server, wire in zip(servers, wires, strict=True):
        await links.open("worker-redis", "worker", server.name, server.port, port=wire)
    watchers, addresses = [], []
    for number in (1, 2, 3):
        wire = free_port()
        watchers.append(_watcher(directory / f"sentinel-{number}", wires[0], wire))
        await links.open("worker-sentinel", "worker", watchers[-1].name, watchers[-1].port, port=wire)
        addresses.append(f"127.0.0.1:{wire}")
    async with started(servers[:1]), started(servers[1:]), started(watchers):

        async def is_settled() -> bool:
            found = await info(servers[0])
            known = [await ask_plainly(watcher, "SENTINEL", "SENTINELS", SERVICE) for watcher in watchers]
            replicas = [await ask_plainly(watcher, "SENTINEL", "REPLICAS", SERVICE) for watcher in watchers]
            return found["connected_slaves"] == 2 and all(len(answer) == 2 for answer in (*known, *replicas))  # type: ignore[arg-type]

        await eventually(is_settled)
        url = f"redis+sentinel://{','.join(addresses)}/{SERVICE}/0"
        yield RedisServers("sentinel", servers, _directories(directory, servers), dict.fromkeys(clients, url), watchers)


def _watcher(directory: Path, primary: int, wire: int) -> Server:
    directory.mkdir(parents=True)
    port, file = free_port(), directory / "sentinel.conf"
    lines = [
        f"port {port}",
        "bind 127.0.0.1",
        f"dir {directory}",
        "sentinel announce-ip 127.0.0.1",
        f"sentinel announce-port {wire}",
        f"sentinel monitor {SERVICE} 127.0.0.1 {primary} 2",
        f"sentinel down-after-milliseconds {SERVICE} {_DOWN_AFTER_MS}",
        f"sentinel failover-timeout {SERVICE} {5 * _DOWN_AFTER_MS}",
    ]
    file.write_text("\n".join(lines) + "\n", "utf-8")
    command = ["redis-server", str(file), "--sentinel"]
    environment = os.environ | {"LC_ALL": "C"}
    return Server(directory.name, command, environment, port=port, log=directory / "log", probe=REDIS_PROBE)


@asynccontextmanager
async def _cluster(directory: Path, links: Links, clients: Sequence[str]) -> AsyncIterator[RedisServers]:
    """Run three masters with a replica each. The cluster bus has wires too."""
    nodes, wires, buses = [], [], []
    for number in range(1, 2 * _MASTERS + 1):
        name, wire, bus_wire, bus = f"redis-{number}", free_port(), free_port(), free_port()
        announced = [f"cluster-announce-port {wire}", f"cluster-announce-bus-port {bus_wire}", "cluster-announce-ip 127.0.0.1"]
        options = ["cluster-enabled yes", f"cluster-port {bus}", f"cluster-node-timeout {_DOWN_AFTER_MS}", *announced]
        node = _server(directory / name, name, *options, "repl-diskless-sync-delay 0", "repl-ping-replica-period 1")
        await links.open("worker-redis", "worker", name, node.port, port=wire)
        await links.open("redis-redis", "bus", name, bus, port=bus_wire)
        nodes.append(node)
        wires.append(wire)
        buses.append(bus_wire)
    async with started(nodes):
        begins = [round(number * SLOTS / _MASTERS) for number in range(_MASTERS)] + [SLOTS]
        for number, node in enumerate(nodes):
            await ask_plainly(node, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            if number < _MASTERS:
                await ask_plainly(node, "CLUSTER", "ADDSLOTSRANGE", begins[number], begins[number + 1] - 1)
            if number:
                await ask_plainly(node, "CLUSTER", "MEET", "127.0.0.1", wires[0], buses[0])
        await _settle(nodes)
        ids = [await node_id(node) for node in nodes[:_MASTERS]]
        for number, node in enumerate(nodes[_MASTERS:]):
            await ask_plainly(node, "CLUSTER", "REPLICATE", ids[number])
        await _settle(nodes)
        url = "redis+cluster://" + ",".join(f"127.0.0.1:{wire}" for wire in wires[:_MASTERS])
        yield RedisServers("cluster", nodes, _directories(directory, nodes), dict.fromkeys(clients, url))


async def _settle(nodes: Sequence[Server]) -> None:
    async def is_settled() -> bool:
        for node in nodes:
            state = str(await ask_plainly(node, "CLUSTER", "INFO"))
            if "cluster_state:ok" not in state or f"cluster_known_nodes:{len(nodes)}\r" not in state:
                return False
            found = await info(node)
            if found["role"] == "slave" and found["master_link_status"] != "up":
                return False
        return True

    await eventually(is_settled)


def _directories(directory: Path, servers: Sequence[Server]) -> dict[str, Path]:
    return {server.name: directory / server.name for server in servers}


def _server(data: Path, name: str, *options: str) -> Server:
    """Return a server with the shipped configuration, in a file that Sentinels may have it write again."""
    data.mkdir(parents=True)
    port, file = free_port(), data / "redis.conf"
    lines = [_CONFIG.read_text("utf-8"), f"port {port}", "bind 127.0.0.1", f"dir {data}", *options]
    file.write_text("\n".join(lines) + "\n", "utf-8")
    environment = os.environ | {"LC_ALL": "C"}
    return Server(name, ["redis-server", str(file)], environment, port=port, log=data / "log", probe=REDIS_PROBE)
