"""The servers of Redis themselves: their clock and settings, which one is the master, and whether they can be written."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from datetime import UTC, datetime
from typing import cast

from shared.state.locating import UnclearMasterError
from shared.state.node_settings import NodeSettings, read_node
from shared.state.redis_client import RedisClient
from shared.state.redis_clock import RedisClock
from shared.state.replies import redis_reply


class RedisServers:
    """The servers of a client. Every method raises StoreUnavailableError if Redis is not available; all can be repeated.

    Attributes:
        clock: that of Redis.
        unclear_master: why it is unclear which server is the master, as the last `verify` found it, or ''.
    """

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis
        self.clock = RedisClock()
        self.unclear_master = ""

    async def now(self) -> datetime:
        """Return the time by the clock of Redis. `clock` knows it from then on."""
        began = time.monotonic()
        second, microseconds = cast("tuple[int, int]", await redis_reply(cast("Awaitable[object]", self._redis.time())))
        at_s = second + microseconds / 1e6
        self.clock.measured(at_s, began=began, ended=time.monotonic())
        return datetime.fromtimestamp(at_s, UTC)

    async def server_settings(self) -> list[NodeSettings]:
        """Return each server that has data, with its settings of persistence and eviction; masters first."""

        async def read_nodes() -> list[NodeSettings]:
            return list(await asyncio.gather(*map(read_node, await self._redis.nodes())))

        return await redis_reply(read_nodes())

    @property
    def handicaps(self) -> list[str]:
        """Problems of the servers with which Redis can be written, as the last `verify` and the last writes found them."""
        return [*self._redis.replicas.problems, *filter(None, [self.unclear_master])]

    async def verify(self) -> None:
        """Find out again which server is the master and whether replicas confirm; `handicaps` knows it then.

        Raises:
            StoreUnavailableError: Redis did not answer.
        """

        async def unclear_master() -> str:
            try:
                await self._redis.verify()
            except UnclearMasterError as error:
                return str(error)
            return ""

        self.unclear_master = await redis_reply(unclear_master())

    async def check(self) -> None:
        """Check that Redis can be written.

        Raises:
            StoreReadOnlyError: Redis refuses writes for now and can be read.
            StoreUnavailableError: Redis or a master of a cluster does not answer, or cannot be written.
        """
        await redis_reply(self._redis.probe())
