"""The one door to Redis: merging facts, claiming publications, the times to look at calls again, reading calls back.

Keys (`{p}` is one of 16 partitions, a hash tag, so that a script's keys share a slot on Redis Cluster):

- `callfold:{p}:facts:<source>/<call>` hash of facts, see `facts.py`
- `callfold:{p}:publication:<source>/<call>` hash: version (of the facts), revision, state, summary (of what was published),
  and while claimed: holder, until_ms, outbox, seen (the version the outbox was made of)
- `callfold:{p}:open` sorted set of open calls, scored by when to look at them again (ms since 1970)

The facts of published calls expire after the retain time, their publications some time later; open calls never expire.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar, cast

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from shared.errors import StoreUnavailableError
from shared.facts import Fact
from shared.ids import CallKey, CallRef, SourceName
from shared.log import get_logger
from shared.script import Argument, Script

log = get_logger(__name__)

PARTITIONS = 16
_SOCKET_TIMEOUT_S = 2
_CONNECTIONS = 32
_RETRY_S = (0.05, 0.2, 0.5, 1)
# How much longer than its facts a publication is kept: longer than the journal, so that a replay knows what is over.
_TOMBSTONE_S = 8 * 24 * 3600

_T = TypeVar("_T")


class Claim(StrEnum):
    """What came of claiming a publication; the codes of claim.lua."""

    YOURS = "yours"
    HELD = "held"
    PUBLISHED = "published"
    LOST = "lost"


class State(StrEnum):
    """How far the publication of a call's last revision is."""

    NONE = ""
    CLAIMED = "claimed"
    PUBLISHED = "published"
    BURIED = "buried"


@dataclass(frozen=True, slots=True)
class Folded:
    """A call after a merge.

    Attributes:
        facts: all of them.
        revision: the last one that was claimed or published; 0 where none was.
        summary: of what was published last.
        version: of the facts: who has the highest one has seen them all.
        look_at_ms: when the call is to be looked at again (ms since 1970), or None.
    """

    facts: Mapping[str, str]
    revision: int
    state: State
    summary: str
    version: str
    look_at_ms: int | None


@dataclass(frozen=True, slots=True)
class Publication:
    """What one revision of a call publishes; opaque here. `version` is that of the facts it was made of."""

    key: CallKey
    revision: int
    outbox: bytes
    summary: str
    version: str


@dataclass(frozen=True, slots=True)
class Look:
    """When to look at a call again (ms since 1970; None: there is nothing to wait for), by one who saw this version."""

    at_ms: int | None
    version: str


def partition(key: CallKey) -> int:
    """Spread calls over the partitions; the same on every machine and in every release."""
    return zlib.crc32(str(key).encode()) % PARTITIONS


class Store:
    """Call state in Redis. Every method raises StoreUnavailableError while Redis cannot do it; all can be repeated."""

    def __init__(
        self, url: str, *, claim_lease_s: float = 10, first_look_s: float = 4 * 3600, retain_s: int = 7 * 24 * 3600
    ) -> None:
        """Prepare connections; none is made yet.

        `first_look_s`: a new call is looked at after so long, unless somebody asks for it sooner. `retain_s`: how long the
        facts of a published call are kept.
        """
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
        self._first_look_ms = round(first_look_s * 1000)
        self._retention = (retain_s, retain_s + _TOMBSTONE_S)
        self._merge, self._claim, self._mark = Script("merge"), Script("claim"), Script("mark")
        self._schedule, self._lease, self._seal = Script("schedule"), Script("lease"), Script("seal")

    async def aclose(self) -> None:
        await self._redis.aclose()

    async def merge(self, facts: Mapping[CallKey, Sequence[Fact]]) -> dict[CallKey, Folded]:
        """Merge facts into their calls, durably, and return these calls."""
        return await self._by_partition(facts, self._merge_partition, facts)

    async def _merge_partition(
        self, number: int, keys: Sequence[CallKey], facts: Mapping[CallKey, Sequence[Fact]]
    ) -> dict[CallKey, Folded]:
        args: list[Argument] = [self._first_look_ms]
        for key in keys:
            args += (str(key), len(facts[key]))
            for fact in facts[key]:
                args.extend(fact)
        answer = await self._merge(self._redis, [_open(number), *_pairs(number, keys)], args)
        return {key: _folded(cast("list[object]", row)) for key, row in zip(keys, answer, strict=True)}

    async def claim(self, wanted: Mapping[CallKey, Publication], *, holder: str) -> dict[CallKey, tuple[Claim, bytes]]:
        """Claim publications; what is YOURS comes with the outbox to publish, which after a take-over is the stored one.

        `holder` names the claimant, one of all that run: who asks again under the same name gets its own claim back.
        """
        return await self._by_partition(wanted, self._claim_partition, (wanted, holder))

    async def _claim_partition(
        self, number: int, keys: Sequence[CallKey], given: tuple[Mapping[CallKey, Publication], str]
    ) -> dict[CallKey, tuple[Claim, bytes]]:
        wanted, holder = given
        args: list[Argument] = [holder, self._lease_ms]
        for key in keys:
            args += (wanted[key].revision, wanted[key].outbox, wanted[key].summary, wanted[key].version)
        answer = cast("list[list[bytes]]", await self._claim(self._redis, [_publication(number, key) for key in keys], args))
        return {key: (Claim(_text(code)), outbox) for key, (code, outbox) in zip(keys, answer, strict=True)}

    async def mark(self, published: Mapping[CallKey, int]) -> None:
        """Note which revisions the broker has confirmed; these calls expire after the retain time."""

        async def mark_partition(number: int, keys: Sequence[CallKey], _: object) -> dict[CallKey, None]:
            args: list[Argument] = [*self._retention]
            for key in keys:
                args += (str(key), published[key])
            await self._mark(self._redis, [_open(number), *_pairs(number, keys)], args)
            return {}

        await self._by_partition(published, mark_partition, None)

    async def schedule(self, looks: Mapping[CallKey, Look]) -> None:
        """Say when to look at calls again. Who has not seen every fact can only ask for an earlier look."""

        async def schedule_partition(number: int, keys: Sequence[CallKey], _: object) -> dict[CallKey, None]:
            args: list[Argument] = [*self._retention]
            for key in keys:
                at_ms = looks[key].at_ms
                args += (str(key), looks[key].version, "" if at_ms is None else at_ms)
            await self._schedule(self._redis, [_open(number), *_pairs(number, keys)], args)
            return {}

        await self._by_partition(looks, schedule_partition, None)

    async def seal(self, published: Mapping[CallKey, tuple[int, str]]) -> None:
        """Note calls as published (revision, summary) whose publication Redis has forgotten; others stay as they are."""

        async def seal_partition(number: int, keys: Sequence[CallKey], _: object) -> dict[CallKey, None]:
            args: list[Argument] = [*self._retention]
            for key in keys:
                args += (str(key), *published[key])
            await self._seal(self._redis, [_open(number), *_pairs(number, keys)], args)
            return {}

        await self._by_partition(published, seal_partition, None)

    async def read(self, key: CallKey) -> Folded | None:
        """Read a call as it is, without changing anything; None where Redis has no facts of it."""
        number = partition(key)

        async def ask() -> list[object]:
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.hgetall(_facts(number, key))
                pipe.hmget(_publication(number, key), "revision", "state", "summary", "version")
                pipe.zscore(_open(number), str(key))
                return cast("list[object]", await pipe.execute())

        facts, publication, look_at = cast("tuple[dict[bytes, bytes], list[bytes | None], float | None]", await _guarded(ask()))
        if not facts:
            return None
        revision, state, summary, version = (_text(value or "") for value in publication)
        told = {_text(name): _text(value) for name, value in facts.items()}
        return Folded(told, int(revision or 0), State(state), summary, version, None if look_at is None else round(look_at))

    async def lease(self, *, lease_s: float, at_most: int) -> list[tuple[CallKey, int]]:
        """Take calls whose time has come, with the time it is in Redis (ms since 1970); they are due again after the lease."""

        async def one(number: int) -> list[tuple[CallKey, int]]:
            now_ms, *names = map(_text, await self._lease(self._redis, [_open(number)], [round(lease_s * 1000), at_most]))
            return [(_key(name), int(now_ms)) for name in names]

        parts = await _guarded(asyncio.gather(*(one(number) for number in range(PARTITIONS))))
        return [leased for part in parts for leased in part]

    async def load(self, keys: Iterable[CallKey]) -> dict[CallKey, dict[str, str]]:
        """Read the facts of calls; a call that is not there has none."""

        async def one(key: CallKey) -> dict[str, str]:
            read = self._redis.hgetall(_facts(partition(key), key))
            return {_text(k): _text(v) for k, v in (await cast("Awaitable[dict[bytes, bytes]]", read)).items()}

        wanted = list(keys)
        return dict(zip(wanted, await _guarded(asyncio.gather(*(one(key) for key in wanted))), strict=True))

    async def open_calls(self) -> dict[CallKey, int]:
        """List the open calls, with the time at which to look at them again (ms since 1970)."""

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
        try:
            return await step()
        except StoreUnavailableError as error:
            log.warning("store_retry", attempt=attempt, detail=str(error))
        await asyncio.sleep(_RETRY_S[min(attempt, len(_RETRY_S) - 1)])
        attempt += 1


def _folded(row: Sequence[object]) -> Folded:
    flat, revision, state, summary, version, look_at = row
    pairs = [_text(item) for item in cast("list[bytes]", flat)]
    facts = dict(zip(pairs[::2], pairs[1::2], strict=True))
    look_at_ms = round(float(_text(look_at))) if look_at else None
    return Folded(facts, int(_text(revision)), State(_text(state)), _text(summary), _text(version), look_at_ms)


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
