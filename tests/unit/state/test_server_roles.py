"""The roles of the servers of Redis: of those that the client names, and of those that it named before."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from shared.state import server_roles
from shared.state.redis_client import Node, RedisClient
from shared.state.server_roles import ServerRoles


class _World:
    """A master and its replicas by port; a role of '' means that the server does not answer."""

    def __init__(self, **roles: str) -> None:
        self.roles = roles

    async def nodes(self) -> list[Node]:
        """Name the servers as Redis does: the master, and the replicas that are connected to it."""
        if "master" not in self.roles.values():
            raise RedisConnectionError("no master answers")
        return [Node(name, f"redis://user:hunter2@{name}", role == "master") for name, role in self.roles.items() if role]

    async def ask(self, url: str, *_commands: Sequence[str]) -> list[object]:
        role = self.roles[url.rpartition("@")[2]]
        if not role:
            raise RedisConnectionError("no answer")
        return [f"# Replication\r\nrole:{role}\r\n".encode()]


async def test_a_server_that_fails_stays_known_as_unreachable_until_it_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    world = _World(a="master", b="slave")
    monkeypatch.setattr(server_roles, "ask", world.ask)
    roles = ServerRoles(cast("RedisClient", cast("Any", world)))
    assert await roles.read() == {"a": "master", "b": "replica"}
    world.roles = {"a": "", "b": "slave"}
    assert await roles.read() == {"a": "unreachable", "b": "replica"}, "before a failover"
    world.roles = {"a": "", "b": "master"}
    assert await roles.read() == {"a": "unreachable", "b": "master"}
    world.roles = {"a": "slave", "b": "master"}
    assert await roles.read() == {"a": "replica", "b": "master"}


async def test_a_server_that_was_taken_away_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    world = _World(a="master", b="slave")
    monkeypatch.setattr(server_roles, "ask", world.ask)
    roles = ServerRoles(cast("RedisClient", cast("Any", world)))
    await roles.read()
    world.roles = {"a": "master", "b": ""}
    monkeypatch.setattr(server_roles, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + 3500))
    assert await roles.read() == {"a": "master", "b": "unreachable"}
    monkeypatch.setattr(server_roles, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + 3700))
    assert await roles.read() == {"a": "master"}
