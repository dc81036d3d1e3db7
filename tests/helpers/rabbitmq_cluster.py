"""A private cluster of RabbitMQ nodes on the loopback address, with the shipped configuration.

`async with RabbitMQCluster(directory) as cluster` starts three nodes. Each keeps its port and its data when it is stopped, killed
or frozen and started again. The nodes share one Erlang port mapper, which is stopped with them.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self

import orjson

from console.local.ports import free_port
from console.local.rabbitmq_node import node_environment
from console.local.stack import RABBITMQ_PROBE, Server, find_program

_TOOLS = ("/usr/lib/rabbitmq/bin", "/opt/homebrew/sbin", "/usr/local/sbin", "/usr/sbin")
# RabbitMQ notices a frozen node, or one behind a cut link, after this time. The default is a minute.
_NET_TICK_S = 10
_FORMATION = ("peer_discovery_backend", "classic_config.nodes.1")


async def run_tool(environment: Mapping[str, str], tool: str, *arguments: str) -> str:
    """Run a program of RabbitMQ's command line for the node with this environment; returns its output."""
    program = shutil.which(tool, path=os.pathsep.join((*_TOOLS, environment["PATH"])))
    assert program, f"{tool} is not installed"
    process = await asyncio.create_subprocess_exec(
        program,
        "-q",
        "-n",
        environment["RABBITMQ_NODENAME"],
        *arguments,
        # The tool is an Erlang node too, and must neither preload the server nor become the second one with its port.
        env={**environment, "ERL_AFLAGS": "", "RABBITMQ_DIST_PORT": ""},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, f"{tool} {' '.join(arguments)}: {output.decode()}"
    return output.decode()


class Node(Server):
    """One node. `start`, `stop`, `kill`, `pause` and `resume` are those of every private server."""

    @property
    def amqp_url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    @property
    def erlang_name(self) -> str:
        return self.environment["RABBITMQ_NODENAME"]

    @property
    def distribution_port(self) -> int:
        """The port at which the other nodes reach it."""
        return int(self.environment["RABBITMQ_DIST_PORT"])

    async def run(self, tool: str, *arguments: str) -> str:
        """Run a program of RabbitMQ's command line for this node (`rabbitmqctl`, `rabbitmq-upgrade`); returns its output."""
        return await run_tool(self.environment, tool, *arguments)

    async def drain(self) -> None:
        """Put the node into maintenance: it closes its connections, takes no new ones, and gives its leaders away."""
        await self.run("rabbitmq-upgrade", "drain")

    async def revive(self) -> None:
        """End the maintenance."""
        await self.run("rabbitmq-upgrade", "revive")


class RabbitMQCluster:
    """Nodes of one cluster; the first one is started before the others join it."""

    def __init__(self, directory: Path, *, nodes: int = 3) -> None:
        mapper = free_port()
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.nodes = [self._node(number, mapper) for number in range(1, nodes + 1)]
        environment = self.nodes[0].environment
        epmd = ["epmd", "-port", str(mapper), "-address", "127.0.0.1"]
        self.mapper = Server("epmd", epmd, environment, port=mapper, log=directory / "epmd.log")
        self._closing = AsyncExitStack()

    def _node(self, number: int, mapper: int) -> Node:
        joins = ("classic_config", _name(1))
        more = [f"cluster_formation.{key} = {value}" for key, value in zip(_FORMATION, joins, strict=True)] if number > 1 else []
        port, data = free_port(), self._directory / "data"
        environment = {**node_environment(data, name=_name(number), port=port, mapper=mapper, more_config=more)}
        environment["RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS"] += f" -kernel net_ticktime {_NET_TICK_S}"
        name = f"rabbitmq-{number}"
        program = [find_program("rabbitmq-server") or "rabbitmq-server"]
        return Node(name, program, environment, port=port, log=self._directory / f"{name}.log", probe=RABBITMQ_PROBE)

    @property
    def amqp_url(self) -> str:
        """The addresses of all nodes, as `CALLFOLD_AMQP_URL` takes them."""
        return ",".join(node.amqp_url for node in self.nodes)

    @property
    def servers(self) -> Sequence[Server]:
        return [self.mapper, *self.nodes]

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as closing:
            closing.push_async_callback(self.mapper.stop)
            await self.mapper.start()
            closing.push_async_callback(self._stop)
            await self.nodes[0].start()
            async with asyncio.TaskGroup() as group:
                for node in self.nodes[1:]:
                    group.create_task(node.start())
            self._closing = closing.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._closing.aclose()

    async def _stop(self) -> None:
        """Kill every node: nothing is read from a cluster that is over, and an orderly end of all nodes waits for each other."""
        for node in self.nodes:
            await node.kill()

    async def leaders(self) -> Mapping[str, str]:
        """Return, for each quorum queue and stream, the Erlang name of the node with its leader."""
        node = next(node for node in self.nodes if node.is_running)
        listed = orjson.loads(await node.run("rabbitmqctl", "list_queues", "name", "type", "leader", "--formatter", "json"))
        return {queue["name"]: queue["leader"] for queue in listed if queue["type"] in {"quorum", "stream"}}

    async def connections(self) -> Counter[str]:
        """Count the client connections of each running node, by the node's Erlang name."""
        node = next(node for node in self.nodes if node.is_running)
        # As text: in JSON a pid has a number for its node.
        listed = await node.run("rabbitmqctl", "list_connections", "--no-table-headers", "pid")
        return Counter(pid.strip("<>").rsplit(".", 3)[0] for pid in listed.split())


def _name(number: int) -> str:
    return f"callfold{number}@localhost"
