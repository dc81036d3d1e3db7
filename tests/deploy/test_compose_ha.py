"""The servers of compose.ha.yaml, started from its own files and commands: a cluster, a failover, and Callfold on both."""

from __future__ import annotations

import asyncio
import secrets
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import orjson
import pytest
import pytest_asyncio

from console.local.child_process import ChildProcess
from tests.helpers.compose import read
from tests.helpers.compose_services import Services
from tests.helpers.pace import LIMIT_S
from tests.helpers.servers import eventually

NODES = ("rabbitmq", "rabbitmq-2", "rabbitmq-3")
SERVERS = ("redis", "redis-2", "redis-3")
SENTINELS = ("sentinel-1", "sentinel-2", "sentinel-3")
CLIENT = "worker"
_DIRECTORIES = ("CALLFOLD_SPOOL_DIR", "CALLFOLD_RECORDING_DIR")


@pytest.fixture
def services(tmp_path: Path) -> Services:
    variables = {"RABBITMQ_PASSWORD": secrets.token_hex(12), "CONSOLE_KEY": secrets.token_hex(12)}
    found = Services(
        read("compose.yaml", "compose.ha.yaml"), (*NODES, *SERVERS, *SENTINELS, CLIENT, "rabbitmq-policies"), tmp_path, variables
    )
    found.secrets = {"erlang_cookie": secrets.token_hex(16), "sources.toml": "[sources.default]\n"}
    (tmp_path / "bin").mkdir()
    # What the image of RabbitMQ starts its server with.
    (tmp_path / "bin" / "docker-entrypoint.sh").write_text('#!/bin/sh\nexec "$@"\n', "utf-8")
    (tmp_path / "bin" / "docker-entrypoint.sh").chmod(0o755)
    return found


@pytest_asyncio.fixture
async def running(services: Services) -> AsyncIterator[dict[str, ChildProcess]]:
    """Start the services in the order of `depends_on`, each when those are healthy for whose health it waits.

    No node of RabbitMQ waits for another one, so the first is the last here.
    """
    processes: dict[str, ChildProcess] = {}

    async def begin(name: str) -> None:
        async def is_healthy() -> bool:
            return await asyncio.to_thread(services.is_healthy, name)

        processes[name] = services.process(name)
        closing.push_async_callback(processes[name].end, signal.SIGKILL, within_s=LIMIT_S)
        await processes[name].start_until(is_healthy, within_s=LIMIT_S)

    with services.network():
        async with AsyncExitStack() as closing:
            for together in ((*reversed(NODES), "redis"), SERVERS[1:], SENTINELS):
                async with asyncio.TaskGroup() as group:
                    for name in together:
                        group.create_task(begin(name))
            yield processes


def _callfold(services: Services, *arguments: str) -> str:
    """Run a command with the settings of the workers."""
    own = {"COLUMNS": "200", "CALLFOLD_ARCHIVE_URL": "file:///run/archive"} | dict.fromkeys(_DIRECTORIES, "/run")
    code, said = services.run(CLIENT, str(Path(sys.executable).with_name("callfold")), *arguments, environment=own)
    assert code == 0, said
    return said


async def test_three_nodes_form_one_cluster_and_three_servers_follow_their_sentinels_through_a_failover(
    services: Services, running: dict[str, ChildProcess]
) -> None:
    for name in NODES:
        status = orjson.loads(services.run(name, "rabbitmqctl", "-q", "cluster_status", "--formatter", "json")[1])
        assert set(status["running_nodes"]) == {f"rabbit@{node}" for node in NODES}
    _callfold(services, "broker", "declare")
    members = services.run("rabbitmq-3", "rabbitmqctl", "-q", "list_queues", "--formatter", "json", "name", "members")[1]
    assert {len(queue["members"]) for queue in orjson.loads(members)} == {3}
    assert _master(services, "sentinel-1") == _master(services, "sentinel-3") == "redis"
    _callfold(services, "doctor")

    for name in ("rabbitmq", "redis", "sentinel-1"):
        services.kill(name)
        await running[name].end(signal.SIGKILL, within_s=LIMIT_S)

    async def two_are_left() -> bool:
        status = services.run("rabbitmq-2", "rabbitmqctl", "-q", "cluster_status", "--formatter", "json")[1]
        return set(orjson.loads(status)["running_nodes"]) == {"rabbit@rabbitmq-2", "rabbit@rabbitmq-3"}

    await eventually(two_are_left)

    async def has_another_master() -> bool:
        return {_master(services, name) for name in SENTINELS[1:]} in ({"redis-2"}, {"redis-3"})

    await eventually(has_another_master)
    master = _master(services, "sentinel-2")
    _callfold(services, "doctor")

    # The old master comes back with the same command, and follows the new one.
    await running["redis"].start_until(lambda: asyncio.to_thread(services.is_healthy, "redis"), within_s=LIMIT_S)

    async def follows() -> bool:
        said = services.run("redis", "redis-cli", "info", "replication")[1]
        return "role:slave" in said and f"master_host:{master}" in said and "master_link_status:up" in said

    await eventually(follows)
    await running["redis"].end(signal.SIGTERM, within_s=LIMIT_S)
    file = services.directory / "volumes" / "redis" / "server.conf"
    assert f"replicaof {master} 6379" in file.read_text("utf-8")
    await running["redis"].start_until(lambda: asyncio.to_thread(services.is_healthy, "redis"), within_s=LIMIT_S)
    await eventually(follows)


async def test_all_nodes_start_again_after_all_were_stopped(services: Services, running: dict[str, ChildProcess]) -> None:
    for name in NODES:
        await running[name].end(signal.SIGTERM, within_s=LIMIT_S)
    async with asyncio.TaskGroup() as group:
        for name in NODES:
            health = partial(asyncio.to_thread, services.is_healthy, name)
            group.create_task(running[name].start_until(health, within_s=LIMIT_S))
    status = orjson.loads(services.run("rabbitmq", "rabbitmqctl", "-q", "cluster_status", "--formatter", "json")[1])
    assert set(status["running_nodes"]) == {f"rabbit@{node}" for node in NODES}


def _master(services: Services, sentinel: str) -> str:
    said = services.run(sentinel, "redis-cli", "-p", "26379", "sentinel", "get-master-addr-by-name", "calls")[1]
    return said.partition("\n")[0]
