"""The one door to Redis: merging facts, claiming publications, the times to look at calls again, reading calls back.

Names of keys: `partitions.py`. Reading: `call_reader.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TypeVar, cast

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from shared.domain.facts import Fact, started_us
from shared.domain.ids import CallKey
from shared.errors import StoreUnavailableError
from shared.log import get_logger
from shared.state.call_reader import CallReader
from shared.state.dials import DialStore
from shared.state.keys import (
    PARTITIONS,
    Folded,
    State,
    folded,
    open_key,
    pairs,
    partition,
    publication_key,
    read_key,
    recent_key,
    redis_reply,
    text,
)
from shared.state.script import Argument, Script
from shared.state.watermark import Watermarks

__all__ = ["Claim", "Folded", "Publication", "State", "Store", "WakeUp", "partition", "until_redis_answers"]

log = get_logger(__name__)

_SOCKET_TIMEOUT_S = 2
_CONNECTIONS = 32
_RETRY_S = (0.05, 0.2, 0.5, 1)
# How much longer than its facts a publication is kept: longer than the journal, so that a replay knows what is over.
TOMBSTONE_BEYOND_FACTS_S = 8 * 24 * 3600
_DAY_S = 24 * 3600

_T = TypeVar("_T")


class Claim(StrEnum):
    """What came of claiming a publication; the codes of claim.lua."""

    YOURS = "yours"
    HELD = "held"
    PUBLISHED = "published"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Publication:
    """What one revision of a call publishes; opaque here. `version` is that of the facts it was made of."""

    key: CallKey
    revision: int
    outbox: bytes
    summary: str
    version: str


@dataclass(frozen=True, slots=True)
class WakeUp:
    """When to look at a call again (ms since 1970; None: there is nothing to wait for), by one who saw this version."""

    at_ms: int | None
    version: str


@dataclass(frozen=True, slots=True)
class RestoredPublication:
    """What is known to have been published of a call: its last revision, summed up, and what is to be done by one who knows.

    Attributes:
        look: when to look at it again, and the version of the facts that were seen.
        is_tombstone: its facts are incomplete and are deleted; a call derived from them would be less than the truth.
    """

    revision: int
    summary: str
    look: WakeUp
    is_tombstone: bool = False


class Store(CallReader):
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
        super().__init__(Redis.from_pool(pool))
        self._lease_ms = round(claim_lease_s * 1000)
        self._first_look_ms = round(first_look_s * 1000)
        self._retention = (retain_s, retain_s + TOMBSTONE_BEYOND_FACTS_S)
        # Open for as long as a call can be, then kept; a day for clocks that disagree.
        self._listed_ms = self._first_look_ms + (retain_s + _DAY_S) * 1000
        self._merge, self._claim, self._mark = Script("merge"), Script("claim"), Script("mark")
        self._schedule, self._lease, self._restore = Script("schedule"), Script("lease"), Script("restore")
        self.watermarks = Watermarks(self._redis)
        self._lock = Script("lock")
        self.dials = DialStore(self._redis)

    async def aclose(self) -> None:
        await self._redis.aclose()

    async def merge(self, facts: Mapping[CallKey, Sequence[Fact]]) -> dict[CallKey, Folded]:
        """Merge facts into their calls, durably, and return these calls."""
        return await self._by_partition(facts, self._merge_partition, facts)

    async def _merge_partition(
        self, number: int, keys: Sequence[CallKey], facts: Mapping[CallKey, Sequence[Fact]]
    ) -> dict[CallKey, Folded]:
        args: list[Argument] = [self._first_look_ms, self._listed_ms]
        for key in keys:
            args += (str(key), started_us(facts[key]) or "", len(facts[key]))
            for fact in facts[key]:
                args.extend(fact)
        answer = await self._merge(self._redis, [open_key(number), recent_key(number), *pairs(number, keys)], args)
        return {key: folded(row) for key, row in zip(keys, cast("list[list[object]]", answer), strict=True)}

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
        answer = cast("list[list[bytes]]", await self._claim(self._redis, [publication_key(number, key) for key in keys], args))
        return {key: (Claim(text(code)), outbox) for key, (code, outbox) in zip(keys, answer, strict=True)}

    async def mark(self, published: Mapping[CallKey, int]) -> None:
        """Note which revisions the broker has confirmed; these calls expire after the retain time."""
        await self._tell_each(self._mark, {key: (revision,) for key, revision in published.items()})

    async def schedule(self, looks: Mapping[CallKey, WakeUp]) -> None:
        """Say when to look at calls again. Who has not seen every fact can only ask for an earlier look."""
        await self._tell_each(
            self._schedule,
            {key: (look.version, "" if look.at_ms is None else look.at_ms) for key, look in looks.items()},
        )

    async def restore_publications(self, published: Mapping[CallKey, RestoredPublication]) -> None:
        """Note what was published of calls where Redis has forgotten it; what Redis knows as published already stays."""
        told: dict[CallKey, tuple[Argument, ...]] = {}
        for key, seal in published.items():
            look = "tombstone" if seal.is_tombstone else "" if seal.look.at_ms is None else seal.look.at_ms
            told[key] = (seal.revision, seal.summary, seal.look.version, look)
        await self._tell_each(self._restore, told)

    async def _tell_each(self, script: Script, told: Mapping[CallKey, tuple[Argument, ...]]) -> None:
        """Run a script that takes how long calls are kept, and then of each its name and what is told of it."""

        async def tell_partition(number: int, keys: Sequence[CallKey], _: object) -> dict[CallKey, None]:
            args: list[Argument] = [*self._retention]
            for key in keys:
                args += (str(key), *told[key])
            await script(self._redis, [open_key(number), *pairs(number, keys)], args)
            return {}

        await self._by_partition(told, tell_partition, None)

    async def lease(self, *, until_ms: int, lease_s: float, at_most: int) -> list[CallKey]:
        """Take calls whose time has come by `until_ms` (since 1970); they are due again after the lease."""

        async def one(number: int) -> list[CallKey]:
            args: list[Argument] = [round(lease_s * 1000), at_most, until_ms]
            names = cast("list[bytes]", await self._lease(self._redis, [open_key(number)], args))
            return [read_key(text(name)) for name in names]

        parts = await redis_reply(asyncio.gather(*(one(number) for number in range(PARTITIONS))))
        return [leased for part in parts for leased in part]

    async def lock(self, name: str, holder: str, *, lease_s: float, only_keep: bool = False) -> bool:
        """Take an exclusive lock, or keep it; False where another has it. It is free when the lease is over.

        `only_keep`: False as well where it is free, since it was lost.
        """
        arguments: list[Argument] = [holder, round(lease_s * 1000), int(not only_keep)]
        return bool(await redis_reply(self._lock(self._redis, [f"callfold:lock:{name}"], arguments)))

    async def unlock(self, name: str, holder: str) -> None:
        """Give up a lock; another's is left alone."""
        await redis_reply(self._lock(self._redis, [f"callfold:lock:{name}"], [holder, 0, 0]))

    async def note(self, name: str, *, keep_s: float) -> None:
        """Note that something is done, for so long."""
        await redis_reply(self._redis.set(f"callfold:note:{name}", 1, px=round(keep_s * 1000)))

    async def note_first(self, name: str, text: bytes, *, keep_s: float) -> bytes:
        """Note a text under a name, unless there is one; returns the one that is there."""
        answer = self._redis.set(f"callfold:note:{name}", text, nx=True, get=True, px=round(keep_s * 1000))
        return cast("bytes | None", await redis_reply(cast("Awaitable[object]", answer))) or text

    async def is_noted(self, name: str) -> bool:
        return bool(await redis_reply(self._redis.exists(f"callfold:note:{name}")))

    async def now(self) -> datetime:
        """Tell what time it is where Redis runs."""
        second, microseconds = cast("tuple[int, int]", await redis_reply(cast("Awaitable[object]", self._redis.time())))
        return datetime.fromtimestamp(second + microseconds / 1e6, UTC)

    async def check(self) -> dict[str, str]:
        """Ask the server what decides whether it can be trusted: version, persistence, eviction."""

        async def ask() -> dict[str, str]:
            info = await self._redis.info("server")
            config: dict[str, str] = {}
            for name in ("maxmemory-policy", "appendonly", "appendfsync"):
                config |= {text(k): text(v) for k, v in (await self._redis.config_get(name)).items()}
            return {"version": str(info.get("redis_version", "unknown"))} | config

        return await redis_reply(ask())

    async def ping(self) -> None:
        await redis_reply(cast("Awaitable[object]", self._redis.ping()))

    async def _by_partition(
        self,
        keys: Iterable[CallKey],
        step: Callable[[int, Sequence[CallKey], _Given], Awaitable[dict[CallKey, _T]]],
        given: _Given,
    ) -> dict[CallKey, _T]:
        parts: dict[int, list[CallKey]] = {}
        for key in keys:
            parts.setdefault(partition(key), []).append(key)
        answers = await redis_reply(asyncio.gather(*(step(number, part, given) for number, part in parts.items())))
        return {key: value for answer in answers for key, value in answer.items()}


_Given = TypeVar("_Given")


async def until_redis_answers(step: Callable[[], Awaitable[_T]]) -> _T:
    """Run a step of the store again and again until Redis can do it: an outage is waited out, never turned into a loss."""
    attempt = 0
    while True:
        try:
            return await step()
        except StoreUnavailableError as error:
            log.warning("store_retry", attempt=attempt, detail=str(error))
        await asyncio.sleep(_RETRY_S[min(attempt, len(_RETRY_S) - 1)])
        attempt += 1
