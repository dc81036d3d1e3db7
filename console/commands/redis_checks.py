"""What `callfold doctor` finds at each server of Redis or Valkey."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from console.commands.doubt import DoubtError
from shared.errors import ConfigError
from shared.state.node_settings import NodeSettings
from shared.state.redis_url import Kind

_MODES: Final = {Kind.SERVER: "one server and its replicas", Kind.SENTINEL: "Sentinel", Kind.CLUSTER: "cluster"}


def redis_finding(kind: Kind, nodes: Sequence[NodeSettings], handicaps: Sequence[str]) -> str:
    """Return the servers with their versions.

    Raises:
        ConfigError: a server is too old, or can lose data.
        DoubtError: a replica does not answer, or `handicaps` says what is wrong.
    """
    is_one = len(nodes) == 1
    for node in nodes:
        problem = "" if node.problem else _problem(node)
        if problem:
            raise ConfigError(problem if is_one else f"{node.node.address}: {problem}")
    if is_one and not handicaps:
        return f"{nodes[0].server}; AOF with fsync always, noeviction"
    servers = f"{_MODES[kind]}: {', '.join(map(_shown, nodes))}"
    away = [f"{node.node.address} does not answer ({node.problem})" for node in nodes if node.problem]
    if doubts := [*away, *handicaps]:
        raise DoubtError(f"{'; '.join(doubts)}. Found: {servers}")
    return f"{servers}; all with AOF with fsync always, noeviction"


def _shown(node: NodeSettings) -> str:
    return f"{'master' if node.node.is_master else 'replica'} {node.node.address} {'' if node.problem else node.server}".rstrip()


def _problem(node: NodeSettings) -> str:
    server, settings = node.server, node.settings
    if server.problem:
        return server.problem
    if (policy := settings.get("maxmemory-policy")) != "noeviction":
        return f"{server.name} may evict calls: its maxmemory-policy is {policy}. Set it to noeviction."
    if settings.get("appendonly") != "yes":
        return f"{server.name} loses its data on a restart: appendonly is off. Set it to yes."
    if (fsync := settings.get("appendfsync")) != "always":
        return f"{server.name} can lose the last second of data: its appendfsync is {fsync}. Set it to always."
    return ""
