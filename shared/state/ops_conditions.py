"""The conditions of the whole system in Redis, which all workers raise and clear together. One hash has the record of each."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import cast

from shared.state.redis_client import RedisClient
from shared.state.replicas import Confirm
from shared.state.replies import redis_reply
from shared.state.script import Run, Script

_KEY = "callfold:ops"


class OpsConditions:
    """Every method raises StoreUnavailableError if Redis is not available; all can be repeated."""

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis
        self._swap = Script("swap")

    async def read(self) -> dict[str, bytes]:
        """Return all records by their names."""
        records = await redis_reply(cast("Awaitable[dict[bytes, bytes]]", self._redis.hgetall(_KEY)))
        return {name.decode(): record for name, record in records.items()}

    async def swap(self, name: str, before: bytes | None, after: bytes | None) -> bool:
        """Replace a record that is still the expected one, None for none; returns whether the next one is stored now."""
        run: Run = [_KEY], [name, before or b"", after or b""]
        return bool((await redis_reply(self._swap.run_each(self._redis, [run], Confirm.YES)))[0])
