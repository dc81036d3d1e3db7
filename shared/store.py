"""The one door to Redis: merging facts, claiming publications, reading calls back.

Keys (`{p}` is one of 16 partitions, a hash tag, so that a script's keys share a slot on Redis Cluster):

- `callfold:{p}:facts:<source>/<call>` hash of facts, see `facts.py`
- `callfold:{p}:publication:<source>/<call>` hash: revision, state, and while claimed: holder, until_ms, outbox
- `callfold:{p}:open` sorted set of calls not yet published, scored by when they were first seen (ms)

Published calls expire after the retain time; open ones never.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha1
from importlib import resources
from typing import TypeVar, cast

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from shared.errors import StoreUnavailableError
from shared.facts import Fact
from shared.ids import CallKey, CallRef, SourceName
from shared.log import get_logger

log = get_logger(__name__)

PARTITIONS = 16
_SOCKET_TIMEOUT_S = 2
_CONNECTIONS = 32
_RETRY_S = (0.05, 0.2, 0.5, 1)

_T = TypeVar("_T")


class Claim(StrEnum):
    """What came of claiming a publication; the codes of claim.lua."""

    YOURS = "yours"
    HELD = "held"
    PUBLISHED = "published"


@dataclass(frozen=True, slots=True)
class Folded:
    """A call after a merge: all its facts, and the last revision that was claimed (0: none) or published."""

    facts: Mapping[str, str]
    revision: int
    is_published: bool


@dataclass(frozen=True, slots=True)
class Publication:
    """What one revision of a call publishes; opaque bytes here."""

    key: CallKey
    revision: int
    outbox: bytes


def partition(key: CallKey) -> int:
    """Spread calls over the partitions; the same on every machine and in every release."""
    return zlib.crc32(str(key).encode()) % PARTITIONS


class _Script:
    """A Lua file, run by its digest; sent whole where the server does not know it (yet, or after a restart)."""

    def __init__(self, name: str) -> None:
        self._text = resources.files("shared").joinpath("scripts", name).read_text("utf-8")
        self._digest = sha1(self._text.encode(), usedforsecurity=False).hexdigest()

    async def __call__(self, redis: Redis, keys: Sequence[str], args: Sequence[str | bytes | int]) -> list[list[object]]:
        try:
            answer = redis.evalsha(self._digest, len(keys), *keys, *args)
            return await cast("Awaitable[list[list[object]]]", answer)
        except NoScriptError:
            answer = redis.eval(self._text, len(keys), *keys, *args)
            return await cast("Awaitable[list[list[object]]]", answer)


class Store:
    """Call state in Redis. Every method raises StoreUnavailableError while Redis cannot do it; all can be repeated."""

    def __init__(self, url: str, *, claim_lease_s: float = 10) -> None:
        """Prepare connections; none is made yet."""
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=_CONNECTIONS,
            timeout=_SOCKET_TIMEOUT_S,
            socket_timeout=_SOCKET_TIMEOUT_S,
            socket_connect_timeout=_SOCKET_TIMEOUT_S,
            protocol=2,  # the replies of scripts have one shape, whatever the library's default becomes
            retry=Retry(NoBackoff(), 0),  # callers repeat whole steps; a hidden repeat would only hide an outage
        )
        self._redis = Redis.from_pool(pool)
        self._lease_ms = round(claim_lease_s * 1000)
        self._merge, self._claim, self._mark = _Script("merge.lua"), _Script("claim.lua"), _Script("mark.lua")

    async def aclose(self) -> None:
        await self._redis.aclose()

    async def merge(self, facts: Mapping[CallKey, Sequence[Fact]]) -> dict[CallKey, Folded]:
        """Merge facts into their calls, durably, and return these calls."""
        return await self._by_partition(facts, self._merge_partition, facts)

    async def _merge_partition(
        self, number: int, keys: Sequence[CallKey], facts: Mapping[CallKey, Sequence[Fact]]
    ) -> dict[CallKey, Folded]:
        args: list[str | bytes | int] = []
        for key in keys:
            args += (str(key), len(facts[key]))
            for fact in facts[key]:
                args.extend(fact)
        answer = await self._merge(self._redis, [_open(number), *_pairs(number, keys)], args)
        return {key: _folded(*row) for key, row in zip(keys, answer, strict=True)}

    async def claim(self, wanted: Mapping[CallKey, Publication], *, holder: str) -> dict[CallKey, tuple[Claim, bytes]]:
        """Claim publications; what is YOURS comes with the outbox to publish, which after a take-over is the stored one.

        `holder` names the claimant, one of all that run: who asks again under the same name gets its own claim back.
        """
        return await self._by_partition(wanted, self._claim_partition, (wanted, holder))

    async def _claim_partition(
        self, number: int, keys: Sequence[CallKey], given: tuple[Mapping[CallKey, Publication], str]
    ) -> dict[CallKey, tuple[Claim, bytes]]:
        wanted, holder = given
        args: list[str | bytes | int] = [holder, self._lease_ms]
        for key in keys:
            args += (wanted[key].revision, wanted[key].outbox)
        answer = await self._claim(self._redis, [_publication(number, key) for key in keys], args)
        return {key: (Claim(_text(row[0])), cast("bytes", row[1])) for key, row in zip(keys, answer, strict=True)}

    async def mark(self, published: Mapping[CallKey, int], *, retain_s: int) -> None:
        """Note which revisions the broker has confirmed; these calls expire after the retain time."""

        async def mark_partition(number: int, keys: Sequence[CallKey], _: object) -> dict[CallKey, None]:
            args: list[str | bytes | int] = [retain_s]
            for key in keys:
                args += (str(key), published[key])
            await self._mark(self._redis, [_open(number), *_pairs(number, keys)], args)
            return {}

        await self._by_partition(published, mark_partition, None)

    async def load(self, keys: Iterable[CallKey]) -> dict[CallKey, dict[str, str]]:
        """Read the facts of calls; a call that is not there has none."""

        async def one(key: CallKey) -> dict[str, str]:
            read = self._redis.hgetall(_facts(partition(key), key))
            return {_text(k): _text(v) for k, v in (await cast("Awaitable[dict[bytes, bytes]]", read)).items()}

        wanted = list(keys)
        return dict(zip(wanted, await _guarded(asyncio.gather(*(one(key) for key in wanted))), strict=True))

    async def open_calls(self) -> dict[CallKey, int]:
        """List the calls that are not published, with the time they were first seen (ms since 1970)."""

        async def one(number: int) -> list[tuple[bytes, float]]:
            return cast("list[tuple[bytes, float]]", await self._redis.zrange(_open(number), 0, -1, withscores=True))

        rows = await _guarded(asyncio.gather(*(one(number) for number in range(PARTITIONS))))
        return {_key(_text(name)): int(score) for part in rows for name, score in part}

    async def check(self) -> dict[str, str]:
        """Ask the server what decides whether it can be trusted: version, persistence, eviction."""

        async def ask() -> dict[str, str]:
            info = await self._redis.info("server")
            config: dict[str, str] = {}
            for name in ("maxmemory-policy", "appendonly", "appendfsync"):
                config |= {_text(k): _text(v) for k, v in (await self._redis.config_get(name)).items()}
            return {"version": str(info.get("redis_version", "unknown"))} | config

        return await _guarded(ask())

    async def ping(self) -> None:
        await _guarded(cast("Awaitable[object]", self._redis.ping()))

    async def _by_partition(
        self,
        keys: Iterable[CallKey],
        step: Callable[[int, Sequence[CallKey], _Given], Awaitable[dict[CallKey, _T]]],
        given: _Given,
    ) -> dict[CallKey, _T]:
        parts: dict[int, list[CallKey]] = {}
        for key in keys:
            parts.setdefault(partition(key), []).append(key)
        answers = await _guarded(asyncio.gather(*(step(number, part, given) for number, part in parts.items())))
        return {key: value for answer in answers for key, value in answer.items()}


_Given = TypeVar("_Given")


async def _guarded(work: Awaitable[_T]) -> _T:
    try:
        return await work
    except (RedisError, OSError) as error:
        raise StoreUnavailableError(f"Redis: {type(error).__name__}: {error}") from error


async def patiently(step: Callable[[], Awaitable[_T]]) -> _T:
    """Run a step of the store again and again until Redis can do it: an outage is waited out, never turned into a loss."""
    attempt = 0
    while True:
        with suppress(StoreUnavailableError):
            return await step()
        log.warning("store_retry", attempt=attempt)
        await asyncio.sleep(_RETRY_S[min(attempt, len(_RETRY_S) - 1)])
        attempt += 1


def _folded(flat: object, revision: object, state: object) -> Folded:
    pairs = [_text(item) for item in cast("list[bytes]", flat)]
    facts = dict(zip(pairs[::2], pairs[1::2], strict=True))
    return Folded(facts, int(_text(revision)), _text(state) == "published")


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _key(name: str) -> CallKey:
    source, _, call = name.partition("/")
    return CallKey(SourceName(source), CallRef(call))


def _open(number: int) -> str:
    return f"callfold:{{{number}}}:open"


def _facts(number: int, key: CallKey) -> str:
    return f"callfold:{{{number}}}:facts:{key}"


def _publication(number: int, key: CallKey) -> str:
    return f"callfold:{{{number}}}:publication:{key}"


def _pairs(number: int, keys: Iterable[CallKey]) -> list[str]:
    return [name for key in keys for name in (_facts(number, key), _publication(number, key))]
