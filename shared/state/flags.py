"""Named flags in Redis that expire: work that is done, sessions that have ended."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import cast

from redis.asyncio import Redis

from shared.state.replies import redis_reply


class Flags:
    """Every method raises StoreUnavailableError if Redis is not available; all can be repeated."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def set(self, name: str, *, expires_in_s: float) -> None:
        await redis_reply(self._redis.set(_key(name), 1, px=round(expires_in_s * 1000)))

    async def is_set(self, name: str) -> bool:
        return bool(await redis_reply(self._redis.exists(_key(name))))

    async def set_first(self, name: str, value: bytes, *, expires_in_s: float) -> bytes:
        """Store a value under a name that has none yet; returns the value that is stored."""
        answer = self._redis.set(_key(name), value, nx=True, get=True, px=round(expires_in_s * 1000))
        return cast("bytes | None", await redis_reply(cast("Awaitable[object]", answer))) or value

    async def put(self, name: str, value: bytes, *, expires_in_s: float) -> None:
        """Store a value under a name, whatever is there."""
        await redis_reply(self._redis.set(_key(name), value, px=round(expires_in_s * 1000)))

    async def value(self, name: str) -> bytes | None:
        """Return the value of a name, or None."""
        return cast("bytes | None", await redis_reply(cast("Awaitable[object]", self._redis.get(_key(name)))))


def _key(name: str) -> str:
    return f"callfold:note:{name}"
