"""The role of each server of Redis that this process has met: master, replica, or unreachable."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Final, cast

from redis.exceptions import RedisError

from shared.errors import StoreUnavailableError
from shared.masking import mask_credentials
from shared.state.locating import ask
from shared.state.redis_client import Node, RedisClient
from shared.state.replies import redis_reply

_MASTER, _REPLICA, _UNREACHABLE = "master", "replica", "unreachable"
# A server that was taken away for good is reported as unreachable for this long.
_REMEMBERED_S: Final = 3600.0


class ServerRoles:
    """Asks every server that the client names, and for a while those that it has named before."""

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis
        self._known: dict[str, tuple[Node, float]] = {}

    async def read(self) -> dict[str, str]:
        """Return the role of each known server by its address. An outage is a role, so nothing is raised."""
        now = time.monotonic()
        with suppress(StoreUnavailableError):  # each server that is known is asked in any case
            self._known |= {mask_credentials(node.address): (node, now) for node in await redis_reply(self._redis.nodes())}
        self._known = {name: (node, at) for name, (node, at) in self._known.items() if now - at < _REMEMBERED_S}
        roles = await asyncio.gather(*(_role(node) for node, _ in self._known.values()))
        return dict(zip(self._known, roles, strict=True))


async def _role(node: Node) -> str:
    try:
        (replication,) = await ask(node.url, ("INFO", "replication"))
    except (RedisError, OSError):
        return _UNREACHABLE
    return _MASTER if b"role:master" in cast("bytes", replication) else _REPLICA
