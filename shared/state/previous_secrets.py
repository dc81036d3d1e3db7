"""Notes on callbacks that came with a previous secret of their source: an operator must change the link in FocalScope."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from redis.asyncio import Redis

from shared.domain.ids import SourceName
from shared.domain.times import at_microseconds, microseconds
from shared.state.replies import redis_reply

_KEY = "callfold:previous_secrets"


class PreviousSecrets:
    """When each source last used a previous secret. Every method raises StoreUnavailableError if Redis is not available."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def record(self, received: Mapping[SourceName, str]) -> None:
        """Store when callbacks with a previous secret were received (RFC 3339 UTC), unless a later time is stored."""
        scores = {str(source): microseconds(at) for source, at in received.items()}
        await redis_reply(self._redis.zadd(_KEY, scores, gt=True))

    async def of(self, sources: Iterable[SourceName]) -> dict[SourceName, str]:
        """Return when each source last used a previous secret; without those that never did."""
        names: list[str] = sorted(sources)
        scores = await redis_reply(self._redis.zmscore(_KEY, names)) if names else []
        return {
            SourceName(name): at_microseconds(int(score)) for name, score in zip(names, scores, strict=True) if score is not None
        }
