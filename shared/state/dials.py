"""What Redis keeps of dial requests: the answer to each Idempotency-Key, dials that the journal has not yet, how many a minute.

Keys: `callfold:dial:answer:<key>` (24 h), `callfold:dial:refused:<SHA-256 of what was noted>` (10 min),
`callfold:dial:unjournaled` (hash: id to event), `callfold:dial:rate:<who>:<minute>`.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Awaitable
from typing import cast

from redis.asyncio import Redis

from shared.state.keys import redis_reply
from shared.state.script import Script

_ANSWER_S = 24 * 3600
_REFUSED_S = 600  # longer than any repeat waits for the answer
_UNJOURNALED = "callfold:dial:unjournaled"
MINUTE_S = 60


class DialStore:
    """Every method raises StoreUnavailableError while Redis cannot do it."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._lock = Script("lock")  # what is noted of a request is its hold on the key

    async def begin(self, key: str, pending: bytes) -> bytes | None:
        """Note that the request with this key is at work; where it is already, returns what is noted instead."""
        # NX and GET together, Redis 7.0 and later: exactly one of all that ask at once gets None.
        answer = self._redis.set(f"callfold:dial:answer:{key}", pending, nx=True, get=True, ex=_ANSWER_S)
        return cast("bytes | None", await redis_reply(cast("Awaitable[object]", answer)))

    async def answer(self, key: str) -> bytes | None:
        """Read what is noted for a key."""
        return cast("bytes | None", await redis_reply(self._redis.get(f"callfold:dial:answer:{key}")))

    async def finish(self, key: str, answer: bytes) -> None:
        """Note the answer that every repeat gets."""
        await redis_reply(self._redis.set(f"callfold:dial:answer:{key}", answer, ex=_ANSWER_S))

    async def forget(self, key: str, pending: bytes) -> None:
        """Forget a request that did nothing, so that it can be made again under its key; what another noted is left alone.

        That it did nothing is noted first: who waits for its answer can tell it from one that Redis has lost.
        """
        await redis_reply(self._redis.set(_refused(pending), b"", ex=_REFUSED_S))
        await redis_reply(self._lock(self._redis, [f"callfold:dial:answer:{key}"], [pending, 0]))

    async def is_forgotten(self, pending: bytes) -> bool:
        """Tell whether a request is known to have done nothing."""
        return bool(await redis_reply(self._redis.exists(_refused(pending))))

    async def keep(self, dial_id: str, event: bytes) -> None:
        """Keep the event of a dial until the journal has it."""
        await redis_reply(cast("Awaitable[object]", self._redis.hset(_UNJOURNALED, dial_id, event)))

    async def journaled(self, dial_id: str) -> None:
        await redis_reply(cast("Awaitable[object]", self._redis.hdel(_UNJOURNALED, dial_id)))

    async def unjournaled(self) -> dict[str, bytes]:
        """List the events that the journal may not have yet."""
        found = await redis_reply(cast("Awaitable[dict[bytes, bytes]]", self._redis.hgetall(_UNJOURNALED)))
        return {name.decode(): event for name, event in found.items()}

    async def count(self, who: str) -> int:
        """Count one more request of somebody in this minute, and tell how many there were."""
        name = f"callfold:dial:rate:{who}:{int(time.time()) // MINUTE_S}"

        async def ask() -> int:
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.incr(name)
                pipe.expire(name, 2 * MINUTE_S)
                return int((await pipe.execute())[0])

        return await redis_reply(ask())


def _refused(pending: bytes) -> str:
    return f"callfold:dial:refused:{hashlib.sha256(pending).hexdigest()}"
