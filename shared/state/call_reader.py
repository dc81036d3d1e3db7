"""Read calls from Redis without changing anything."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TypeVar, cast

from shared.domain.annotation import BODY
from shared.domain.ids import CallKey
from shared.state.keys import PARTITIONS, by_partition, parse_call_key
from shared.state.redis_client import RedisClient
from shared.state.replies import redis_reply, text, text_pairs
from shared.state.script import Argument, Run, Script
from shared.state.stored_call import PublicationState, StoredCall

# Replies that arrive together are parsed in one step, in which nothing else runs.
_PART = 50
_PARTS_AT_ONCE = 2
_NAMES_A_STEP = 500

_T = TypeVar("_T")


class CallReader:
    """Every method raises StoreUnavailableError if Redis is not available."""

    def __init__(self, redis: RedisClient) -> None:
        self._redis, self.keys = redis, redis.key_names
        self._fields = Script("fields")

    async def read(self, key: CallKey) -> StoredCall | None:
        """Read a call; None if it has no facts in Redis."""
        return (await self.read_many([key])).get(key)

    async def read_many(self, keys: Iterable[CallKey]) -> dict[CallKey, StoredCall]:
        """Read calls, without those that have no facts in Redis."""

        async def read_part(number: int, part: Sequence[CallKey]) -> dict[CallKey, StoredCall | None]:
            async with self._redis.pipeline(transaction=False) as pipe:
                for key in part:
                    pipe.hgetall(self.keys.facts(number, key))
                    pipe.hmget(self.keys.publication(number, key), "revision", "state", "summary", "version", "merged_ms")
                pipe.zmscore(self.keys.open(number), [str(key) for key in part])
                *replies, wake_ups = await pipe.execute()
            return {key: _stored_call(*row) for key, *row in zip(part, replies[::2], replies[1::2], wake_ups, strict=True)}

        calls = await _in_parts(keys, read_part)
        return {key: call for key, call in calls.items() if call is not None}

    async def count_uses(self, keys: Iterable[CallKey]) -> dict[CallKey, int]:
        """Return how many uses the RequestIDs (or CallIDs) of calls had, by the call of the first use."""

        async def read_part(number: int, part: Sequence[CallKey]) -> dict[CallKey, int]:
            async with self._redis.pipeline(transaction=False) as pipe:
                for key in part:
                    pipe.hget(self.keys.publication(number, key), "uses")
                return {key: int(uses or 1) for key, uses in zip(part, await pipe.execute(), strict=True)}

        return await _in_parts(keys, read_part)

    async def publications(self, keys: Iterable[CallKey]) -> dict[CallKey, tuple[int, PublicationState, bool]]:
        """Read the last revision of calls, its state, and whether Redis has facts of the call."""

        async def read_part(number: int, part: Sequence[CallKey]) -> dict[CallKey, tuple[int, PublicationState, bool]]:
            async with self._redis.pipeline(transaction=False) as pipe:
                for key in part:
                    pipe.hmget(self.keys.publication(number, key), "revision", "state")
                    pipe.exists(self.keys.facts(number, key))
                replies = await pipe.execute()
            rows = zip(part, replies[::2], replies[1::2], strict=True)
            return {
                key: (int(revision or 0), PublicationState(text(state or b"")), bool(has_facts))
                for key, (revision, state), has_facts in rows
            }

        return await _in_parts(keys, read_part)

    async def read_facts(self, keys: Iterable[CallKey]) -> dict[CallKey, dict[str, str]]:
        """Read the facts of calls; an unknown call has none."""

        async def read_part(number: int, part: Sequence[CallKey]) -> dict[CallKey, dict[str, str]]:
            async with self._redis.pipeline(transaction=False) as pipe:
                for key in part:
                    pipe.hgetall(self.keys.facts(number, key))
                return {key: _facts(fields) for key, fields in zip(part, await pipe.execute(), strict=True)}

        return await _in_parts(keys, read_part)

    async def read_some_facts(self, names: Mapping[CallKey, Sequence[str]]) -> dict[CallKey, dict[str, str]]:
        """Read those facts of calls that are named, without those that a call does not have.

        All come in one round trip: GUIDs and times are short, and the replies of a batch are parsed in a few ms.
        """
        parts = by_partition(names)
        runs: list[Run] = []
        for number, part in parts.items():
            args: list[Argument] = []
            for key in part:
                args += (len(names[key]), *names[key])
            runs.append(([self.keys.facts(number, key) for key in part], args))
        replies = cast("list[list[list[bytes]]]", await redis_reply(self._fields.run_each(self._redis, runs)))
        return {
            key: text_pairs(row)
            for part, rows in zip(parts.values(), replies, strict=True)
            for key, row in zip(part, rows, strict=True)
        }

    async def read_bodies(self, digests: Mapping[CallKey, Sequence[str]]) -> dict[CallKey, dict[str, str]]:
        """Read the bodies of annotations of calls by their digests, without those that Redis does not have."""

        async def read_part(number: int, part: Sequence[CallKey]) -> dict[CallKey, dict[str, str]]:
            async with self._redis.pipeline(transaction=False) as pipe:
                for key in part:
                    pipe.hmget(self.keys.publication(number, key), [BODY + digest for digest in digests[key]])
                rows = zip(part, await pipe.execute(), strict=True)
            return {
                key: {digest: text(body) for digest, body in zip(digests[key], bodies, strict=True) if body is not None}
                for key, bodies in rows
            }

        return await _in_parts(digests, read_part)

    async def open_calls(self) -> dict[CallKey, int]:
        """List the open calls with their wake-up times (ms since 1970)."""

        async def read_partition(number: int) -> list[tuple[bytes, float]]:
            return cast("list[tuple[bytes, float]]", await self._redis.zrange(self.keys.open(number), 0, -1, withscores=True))

        rows = await redis_reply(asyncio.gather(*(read_partition(number) for number in range(PARTITIONS))))
        return {parse_call_key(text(name)): int(score) for part in rows for name, score in part}

    async def open_starts(self) -> list[tuple[int, str]]:
        """List the open calls that have a start, newest first: start (microseconds since 1970) and name."""
        starts: list[tuple[int, str]] = []
        for number in range(PARTITIONS):
            names = await redis_reply(cast("Awaitable[list[bytes]]", self._redis.zrange(self.keys.open(number), 0, -1)))
            for at in range(0, len(names), _NAMES_A_STEP):
                part = [text(name) for name in names[at : at + _NAMES_A_STEP]]
                scores = await redis_reply(self._redis.zmscore(self.keys.recent(number), part))
                starts += [(int(at_us), name) for name, at_us in zip(part, scores, strict=True) if at_us is not None]
        starts.sort(reverse=True)
        return starts

    async def newest(self, before_us: int | None, at_most: int) -> tuple[list[tuple[CallKey, int]], bool]:
        """List calls, open or not, that started at `before_us` or earlier, with their starts, the newest first.

        Times are microseconds since 1970. Returns also whether these are all calls. If not, there can be more with the same
        start as the last one of the list. The facts of a listed call can have expired.
        """
        latest = "+inf" if before_us is None else before_us
        # A partition has about a sixteenth of the calls. If it has more of the newest ones, the list ends early.
        share = at_most * 2 // PARTITIONS + 1

        async def read_partition(number: int) -> list[tuple[bytes, float]]:
            name = self.keys.recent(number)
            read = self._redis.zrange(name, latest, "-inf", desc=True, byscore=True, offset=0, num=share, withscores=True)
            return cast("list[tuple[bytes, float]]", await read)

        parts = await redis_reply(asyncio.gather(*(read_partition(number) for number in range(PARTITIONS))))
        # A partition that has more calls than were read is known only down to the last start.
        known_down_to = max((part[-1][1] for part in parts if len(part) == share), default=0)
        starts = [(text(name), int(at_us)) for part in parts for name, at_us in part if at_us >= known_down_to]
        starts.sort(key=lambda row: (row[1], row[0]), reverse=True)
        is_all = known_down_to == 0 and len(starts) <= at_most
        return [(parse_call_key(name), at_us) for name, at_us in starts[:at_most]], is_all

    async def listed(self, keys: Iterable[CallKey]) -> set[CallKey]:
        """Return those of the calls that `newest` lists and that still have facts."""

        async def read_part(number: int, part: Sequence[CallKey]) -> dict[CallKey, bool]:
            async with self._redis.pipeline(transaction=False) as pipe:
                for key in part:
                    pipe.exists(self.keys.facts(number, key))
                pipe.zmscore(self.keys.recent(number), [str(key) for key in part])
                *have_facts, starts = await pipe.execute()
            rows = zip(part, have_facts, starts, strict=True)
            return {key: bool(has_facts) and start is not None for key, has_facts, start in rows}

        return {key for key, is_listed in (await _in_parts(keys, read_part)).items() if is_listed}


async def _in_parts(
    keys: Iterable[CallKey], read: Callable[[int, Sequence[CallKey]], Awaitable[dict[CallKey, _T]]]
) -> dict[CallKey, _T]:
    """Read calls in one round trip for each partition, or several if a partition has very many of them."""
    names = list(keys)
    parts = [(number, part[at : at + _PART]) for number, part in by_partition(names).items() for at in range(0, len(part), _PART)]
    values: dict[CallKey, _T] = {}
    for at in range(0, len(parts), _PARTS_AT_ONCE):
        for part in await redis_reply(asyncio.gather(*(read(*part) for part in parts[at : at + _PARTS_AT_ONCE]))):
            values |= part
    return {key: values[key] for key in names}


def _stored_call(fields: dict[bytes, bytes], publication: list[bytes | None], wake_at: float | None) -> StoredCall | None:
    if not fields:
        return None
    revision, state, summary, version, merged = (text(value or "") for value in publication)
    wake_at_ms = None if wake_at is None else round(wake_at)
    merged_at_ms = int(merged) if merged else None
    return StoredCall(_facts(fields), int(revision or 0), PublicationState(state), summary, version, wake_at_ms, merged_at_ms)


def _facts(fields: dict[bytes, bytes]) -> dict[str, str]:
    return {text(name): text(value) for name, value in fields.items()}
