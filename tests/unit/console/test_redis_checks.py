"""What `callfold doctor` says of each server of Redis."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from console.commands.doubt import DoubtError
from console.commands.redis_checks import redis_finding
from shared.errors import ConfigError
from shared.server_version import ServerVersion
from shared.state.node_settings import NodeSettings
from shared.state.redis_client import Node
from shared.state.redis_url import Kind

GOOD = {"maxmemory-policy": "noeviction", "appendonly": "yes", "appendfsync": "always"}
SERVER = ServerVersion("Redis", "7.0.15")


def _node(port: int, settings: Mapping[str, str] | None = None, *, is_master: bool = False, problem: str = "") -> NodeSettings:
    settings = GOOD | dict(settings or {})
    return NodeSettings(Node(f"10.0.0.1:{port}", "redis://", is_master), SERVER, {} if problem else settings, problem)


def test_one_server() -> None:
    assert redis_finding(Kind.SENTINEL, [_node(1, is_master=True)], []) == "Redis 7.0.15; AOF with fsync always, noeviction"


def test_every_server_is_listed() -> None:
    assert redis_finding(Kind.SENTINEL, [_node(1, is_master=True), _node(2)], []) == (
        "Sentinel: master 10.0.0.1:1 Redis 7.0.15, replica 10.0.0.1:2 Redis 7.0.15; all with AOF with fsync always, noeviction"
    )


@pytest.mark.parametrize("settings", [{"maxmemory-policy": "allkeys-lru"}, {"appendonly": "no"}, {"appendfsync": "everysec"}])
def test_a_replica_that_would_lose_data_is_named(settings: Mapping[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"^10\.0\.0\.1:2: Redis "):
        redis_finding(Kind.SENTINEL, [_node(1, is_master=True), _node(2, settings)], [])


def test_a_replica_that_is_away_is_a_doubt() -> None:
    with pytest.raises(DoubtError, match=r"^10\.0\.0\.1:2 does not answer \(refused\)\. Found: Sentinel: master 10\.0\.0\.1:1"):
        redis_finding(Kind.SENTINEL, [_node(1, is_master=True), _node(2, problem="refused")], [])


def test_a_handicap_is_a_doubt() -> None:
    with pytest.raises(DoubtError, match=r"^0 of 1 replicas confirmed\. Found: Sentinel: master"):
        redis_finding(Kind.SENTINEL, [_node(1, is_master=True)], ["0 of 1 replicas confirmed"])
