"""Version of a server of Redis, and its settings of persistence and eviction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, cast

from redis.exceptions import RedisError

from shared.server_version import ServerVersion, store_version
from shared.state.locating import ask
from shared.state.redis_client import Node

_SETTINGS: Final = ("maxmemory-policy", "appendonly", "appendfsync")


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """One server. `problem` says why it could not be asked, or is ''."""

    node: Node
    server: ServerVersion
    settings: Mapping[str, str]
    problem: str = ""


async def read_node(node: Node) -> NodeSettings:
    """Ask a server. A replica need not be asked, so its failure is a value."""
    try:
        info, *configs = await ask(node.url, ("INFO", "server"), *(("CONFIG", "GET", name) for name in _SETTINGS))
    except (RedisError, OSError) as error:
        if node.is_master:
            raise
        return NodeSettings(node, ServerVersion("Redis", "unknown"), {}, str(error) or type(error).__name__)
    lines = (line.partition(":")[::2] for line in cast("bytes", info).decode().splitlines() if ":" in line)
    pairs = cast("list[list[bytes]]", configs)
    return NodeSettings(node, store_version(dict(lines)), {row[0].decode(): row[1].decode() for row in pairs if row})
