"""Exclusive locks in Redis. A lock is free again when its lease expires."""

from __future__ import annotations

from redis.asyncio import Redis

from shared.state.replies import redis_reply
from shared.state.script import Argument, Script


class Locks:
    """Every method raises StoreUnavailableError if Redis is not available; all can be repeated."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._lock = Script("lock")

    async def acquire(self, name: str, holder: str, *, lease_s: float) -> bool:
        """Acquire or renew a lock; False if another holder has it."""
        return await self._run(name, holder, round(lease_s * 1000), 1)

    async def renew(self, name: str, holder: str, *, lease_s: float) -> bool:
        """Renew a lock; False if the holder has lost it, even if it is free now."""
        return await self._run(name, holder, round(lease_s * 1000), 0)

    async def release(self, name: str, holder: str) -> None:
        """Release a lock, unless another holder has it."""
        await self._run(name, holder, 0, 0)

    async def _run(self, name: str, *args: Argument) -> bool:
        return bool(await redis_reply(self._lock(self._redis, [f"callfold:lock:{name}"], args)))
