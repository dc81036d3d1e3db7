"""Reports of workers and ingress on callbacks that are not folded yet, in Redis. `barrier.py` evaluates them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

from redis.asyncio import Redis

from shared.domain.barrier import FoldedUntil, Member, Reports, Round, Spool, complete_round, folded_until, gone, is_forgotten
from shared.state.keys import watermark_key
from shared.state.replies import redis_reply, text
from shared.state.script import Argument, Script

_MEMBERS, _ROUNDS, _SPOOLS = map(watermark_key, ("members", "rounds", "spools"))
_MEMBER = re.compile(r"(\d+) (\d*) (\d+)", re.ASCII)
_ROUND = re.compile(r"(\d+) (\d*)", re.ASCII)
_SPOOL = re.compile(r"(\d*) \S* (\d+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class SpoolReport:
    """Report of an ingress at `seen_ms` on its spool. `oldest_ms` is when the oldest callback in it was received, or None.

    Times are ms since 1970.
    """

    spool: str
    oldest_ms: int | None
    seen_ms: int


class Watermarks:
    """Every method raises StoreUnavailableError if Redis is not available; all can be repeated."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._register, self._pass = Script("register"), Script("pass")
        self._round, self._count = Script("round"), Script("count")
        self._reports, self._spools = Script("reports"), Script("spool")

    async def register(self, consumer: str) -> None:
        """Register a consumer of `callbacks.fold`. From now on no round is complete without it."""
        await redis_reply(self._register(self._redis, [_MEMBERS], [consumer]))

    async def unregister(self, consumer: str) -> None:
        """Remove a consumer that has been cancelled and has settled all it received."""
        await redis_reply(self._redis.hdel(_MEMBERS, consumer))

    async def open_round(self, *, pause_s: float) -> int | None:
        """Open a round of markers and return its number; None if the last one was opened less than `pause_s` ago."""
        answer = await redis_reply(self._round(self._redis, [_ROUNDS], [round(pause_s * 1000)]))
        (number,) = cast("list[bytes]", answer)
        return int(number) if number else None

    async def store_consumer_count(self, number: int, consumers: int) -> bool:
        """Store how many consumers the queue had after a round was opened; False if it is too late for that."""
        return bool(await redis_reply(self._count(self._redis, [_ROUNDS], [number, consumers])))

    async def pass_round(self, consumer: str, number: int) -> bool:
        """Store that a consumer has passed a round; False if Redis does not know the consumer."""
        return bool(await redis_reply(self._pass(self._redis, [_MEMBERS, _ROUNDS], [consumer, number])))

    async def store_spool_reports(self, reports: Iterable[SpoolReport]) -> None:
        args: list[Argument] = []
        for report in reports:
            args += (report.spool, "" if report.oldest_ms is None else report.oldest_ms, report.seen_ms)
        await redis_reply(self._spools(self._redis, [_SPOOLS], args))

    async def reports(self) -> Reports:
        """Read all reports."""
        answer = await redis_reply(self._reports(self._redis, [_MEMBERS, _ROUNDS, _SPOOLS], []))
        members, rounds, spools, now_ms = cast("tuple[list[bytes], list[bytes], list[bytes], bytes]", answer)
        return Reports(
            [Round(int(name), int(at), _number(count)) for name, (at, count) in _rows(rounds, _ROUND)],
            [Member(name, int(at), _number(since), int(passed)) for name, (at, since, passed) in _rows(members, _MEMBER)],
            [Spool(name, _number(oldest), int(noted)) for name, (oldest, noted) in _rows(spools, _SPOOL)],
            int(now_ms),
        )

    async def folded_until(self, *, opened_from_ms: int = 0) -> FoldedUntil | None:
        """Return the times until which every confirmed or spooled callback is folded, or None if unknown.

        Rounds that were opened before `opened_from_ms` do not count.
        """
        reports = await self.reports()
        await self._forget(reports)
        return folded_until(reports, opened_from_ms=opened_from_ms)

    async def _forget(self, reports: Reports) -> None:
        """Delete consumers that are gone, rounds before the last complete one, and spools without a report for an hour."""
        complete = complete_round(reports.rounds, reports.members)
        old: dict[str, list[str]] = {
            _MEMBERS: [] if complete is None else gone(complete, reports.members),
            _ROUNDS: [] if complete is None else [str(each.number) for each in reports.rounds if each.number < complete.number],
            _SPOOLS: [spool.name for spool in reports.spools if is_forgotten(spool, reports.now_ms)],
        }
        for key, names in old.items():
            if names:
                await redis_reply(self._redis.hdel(key, *names))


def _number(digits: str) -> int | None:
    return int(digits) if digits else None


def _rows(flat: Sequence[bytes], pattern: re.Pattern[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Read a hash from a script's reply, without values that Callfold did not write."""
    for name, value in zip(flat[::2], flat[1::2], strict=True):
        if match := pattern.fullmatch(text(value)):
            yield text(name), match.groups()
