"""Dial requests in Redis.

- `callfold:dial:answer:<key>`: state of the request with this Idempotency-Key, or its answer, for 24 h.
- `callfold:dial:refused:<SHA-256 of the state>`: a request that did nothing, for 10 min.
- `callfold:dial:unjournaled`: hash from dial id to an event that the journal may not have yet.
- `callfold:dial:rate:<user>:<minute>`: number of requests.
- `callfold:dial:day:<user>:<day>`, `callfold:dial:day:source/<source>:<day>`: the same for a day (UTC).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Awaitable
from typing import cast

from shared.state.redis_client import RedisClient
from shared.state.replicas import Confirm
from shared.state.replies import redis_reply
from shared.state.script import Run, Script

_ANSWER_S = 24 * 3600
_REFUSED_S = 600  # longer than a repeated request waits for the answer
_UNJOURNALED = "callfold:dial:unjournaled"
MINUTE_S, DAY_S = 60, 24 * 3600
_COUNTERS = {MINUTE_S: "rate", DAY_S: "day"}


def until_next(period_s: int) -> int:
    """Return the seconds until the next minute or day begins."""
    return period_s - int(time.time()) % period_s


class DialStore:
    """Every method raises StoreUnavailableError if Redis is not available."""

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis
        self._lock = Script("lock")  # the state of a request is the holder of its key
        self._replace = Script("replace")

    async def begin(self, key: str, pending: bytes) -> bytes | None:
        """Store `pending` as the state of the request with this key, or return the state or answer that is there already."""
        # With NX and GET together (Redis 7.0 and later), exactly one of several concurrent requests gets None.
        return cast("bytes | None", await self._set(key, pending, nx=True, get=True))

    async def answer(self, key: str) -> bytes | None:
        """Return the state of the request with this key, or its answer."""
        return cast("bytes | None", await redis_reply(self._redis.get(f"callfold:dial:answer:{key}")))

    async def finish(self, key: str, answer: bytes) -> None:
        """Store the answer for every repeat of the request."""
        await self._set(key, answer)

    async def restore(self, key: str, pending: bytes, earlier: bytes) -> None:
        """Store what an earlier request left, in place of the `pending` of the repeat that found it.

        What the earlier request stores at the same time stays: its answer, or that it did nothing.
        """
        run: Run = [f"callfold:dial:answer:{key}"], [pending, earlier, _ANSWER_S]
        await redis_reply(self._replace.run_each(self._redis, [run], Confirm.YES))
        if await self.is_forgotten(earlier):
            await self.forget(key, earlier)

    async def _set(self, key: str, value: bytes, *, nx: bool = False, get: bool = False) -> object:
        """Store a state or an answer. Replicas confirm it, because a request that is forgotten would ring a phone twice."""
        batch = self._redis.batch(Confirm.YES)
        batch.set(f"callfold:dial:answer:{key}", value, nx=nx, get=get, ex=_ANSWER_S)
        (answer,) = await redis_reply(batch.execute())
        return cast("object", answer)

    async def forget(self, key: str, pending: bytes) -> None:
        """Forget a request that did nothing, so that its key can be used again. The state of another request stays.

        The refusal is stored first, so that a client that waits for the answer can distinguish it from one that Redis has lost.
        """
        await redis_reply(self._redis.set(_refused(pending), b"", ex=_REFUSED_S))
        await redis_reply(self._lock(self._redis, [f"callfold:dial:answer:{key}"], [pending, 0]))

    async def is_forgotten(self, pending: bytes) -> bool:
        """Return whether `forget` was called for a request."""
        return bool(await redis_reply(self._redis.exists(_refused(pending))))

    async def keep(self, dial_id: str, event: bytes) -> None:
        """Keep the event of a dial until `journaled` is called."""
        batch = self._redis.batch(Confirm.YES)
        batch.hset(_UNJOURNALED, dial_id, event)
        await redis_reply(batch.execute())

    async def journaled(self, dial_id: str) -> None:
        await redis_reply(cast("Awaitable[object]", self._redis.hdel(_UNJOURNALED, dial_id)))

    async def unjournaled(self) -> dict[str, bytes]:
        """Return the events that the journal may not have yet, by dial id."""
        events = await redis_reply(cast("Awaitable[dict[bytes, bytes]]", self._redis.hgetall(_UNJOURNALED)))
        return {name.decode(): event for name, event in events.items()}

    async def count(self, who: str, period_s: int = MINUTE_S) -> int:
        """Count a request of a user or source, and return how many there were in this minute or day."""
        name = f"callfold:dial:{_COUNTERS[period_s]}:{who}:{int(time.time()) // period_s}"

        async def increment() -> int:
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.incr(name)
                pipe.expire(name, 2 * period_s)
                return int((await pipe.execute())[0])

        return await redis_reply(increment())


def _refused(pending: bytes) -> str:
    return f"callfold:dial:refused:{hashlib.sha256(pending).hexdigest()}"
