"""Observations of the PBXs in Redis: active minutes, counts of the last day, pending dials, RequestIDs. See docs/pbx.md.

They are hints. All of them are bounded and expire. If Redis loses them, habits are learned again and counts begin at 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, cast

import orjson
from redis.asyncio import Redis

from shared.domain.ids import SourceName
from shared.domain.lost_callbacks import Losses
from shared.domain.pbx_habit import DAY_MINUTES, LEARNED_DAYS, Silence
from shared.domain.pbx_report import UNHEARD_MS, PbxReport
from shared.domain.request_id_gaps import FINAL_MS, LONGEST_GAP
from shared.domain.times import milliseconds
from shared.state.replies import redis_reply, text
from shared.state.script import Script

_HOURS: Final = 24
_HOUR_MS: Final = 3_600_000
_DAY_S: Final = 24 * 3600
_KEPT_S: Final = 8 * _DAY_S
_RING: Final = 65_536
_MOST_MINUTES: Final = 3 * DAY_MINUTES


@dataclass(slots=True)
class PbxObservations:
    """Observations of one PBX since the last flush.

    Attributes:
        minutes: the last receipt (RFC 3339 UTC) in each minute in which callbacks were received.
        ids: RequestIDs of callbacks and dial requests.
        dials: times of receipt by RequestID.
        calls, losses: calls that ended, see `lost_callbacks.py`.
        unheard: dials of which nothing was heard.
        unknown, arrived, missing: names of parameters, see `link_changes.py`.
        ahead_s: how far the clock of the PBX is ahead, or None.
    """

    minutes: dict[str, str] = field(default_factory=dict)
    ids: set[int] = field(default_factory=set)
    dials: dict[int, str] = field(default_factory=dict)
    calls: int = 0
    losses: Losses = Losses()  # noqa: RUF009 - a tuple of numbers
    unheard: int = 0
    unknown: Counter[str] = field(default_factory=Counter)
    arrived: set[str] = field(default_factory=set)
    missing: Counter[str] = field(default_factory=Counter)
    ahead_s: float | None = None


class Settled(NamedTuple):
    """RequestIDs and dials that have become final: numbers of used and skipped ids, and dials that are to be looked up."""

    used: int
    skipped: int
    due_dials: Sequence[int]


class PbxWatchStore:
    """Every method raises StoreUnavailableError if Redis is not available."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._watch = Script("watch")

    async def add(
        self, source: SourceName, seen: PbxObservations, folded_ms: int | None, verdict: tuple[Silence, int] | None = None
    ) -> Settled:
        """Add observations, and take what is final. If this fails, it may be repeated: counts can then be counted twice.

        `folded_ms`: time until which everything is folded, None if nothing can be final.
        `verdict`: a silence, and when it was judged.
        """
        days: dict[int, list[int]] = {}
        for minute in sorted(seen.minutes)[-_MOST_MINUTES:]:
            day, of_day = divmod(milliseconds(seen.minutes[minute]) // 60_000, DAY_MINUTES)
            days.setdefault(day, []).append(of_day)
        content = {
            "last": milliseconds(max(seen.minutes.values())) if seen.minutes else 0,
            "minutes": list(days.values()),
            "ids": list(seen.ids),
            "dials": [[number, milliseconds(at)] for number, at in seen.dials.items()],
            "counts": {
                "calls": seen.calls,
                "expected": seen.losses.expected,
                "lost": seen.losses.lost,
                "unheard": seen.unheard,
            },
            "unknown": list(seen.unknown.elements()),
            "arrived": list(seen.arrived),
            "missing": list(seen.missing.elements()),
        }
        if seen.ahead_s is not None:
            content["ahead"] = round(seen.ahead_s * 1000)
        if verdict is not None:
            content["verdict"] = orjson.dumps([*verdict[0], verdict[1]]).decode()
        keys = [_key(source, "counts"), _key(source, "ids"), _key(source, "dials"), *(_day_key(source, day) for day in days)]
        final_after = (UNHEARD_MS, FINAL_MS, LONGEST_GAP)
        folded = "" if folded_ms is None else folded_ms
        args = [orjson.dumps(content), folded, *final_after, _KEPT_S, (LEARNED_DAYS + 2) * _DAY_S, _RING]
        used, skipped, *dials = cast("list[int | bytes]", await redis_reply(self._watch(self._redis, keys, args)))
        return Settled(int(used), int(skipped), [int(dial) for dial in dials])

    async def active_minutes(self, source: SourceName, until_day: int) -> dict[int, bytes]:
        """Read the bitmaps of active minutes of the days (since 1970) that a habit is learned from."""
        days = range(until_day - LEARNED_DAYS + 1, until_day + 1)
        async with self._redis.pipeline(transaction=False) as pipe:
            for day in days:
                pipe.get(_day_key(source, day))
            replies = await redis_reply(pipe.execute())
        return {day: bitmap for day, bitmap in zip(days, replies, strict=True) if bitmap}

    async def reports(self, sources: Iterable[SourceName], now_ms: int) -> list[PbxReport]:
        """Read what is known of each source, by name."""
        names = sorted(sources)
        async with self._redis.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.hgetall(_key(name, "counts"))
            replies = await redis_reply(pipe.execute())
        return [
            _report(name, {text(each): text(value) for each, value in reply.items()}, now_ms)
            for name, reply in zip(names, replies, strict=True)
        ]


def _report(source: SourceName, stored: Mapping[str, str], now_ms: int) -> PbxReport:
    totals: Counter[str] = Counter()
    ahead_s: dict[int, float] = {}
    parameters: dict[str, dict[str, int]] = {"+": {}, "-": {}}
    for field_name, value in stored.items():
        first, _, name = field_name.partition(":")
        if first.isdigit() and int(first) > now_ms // _HOUR_MS - _HOURS:
            if name == "ahead":
                ahead_s[int(first)] = int(value) / 1000
            else:
                totals[name] += int(value)
        elif first == "name" and now_ms - int(stored.get(f"name_at:{name}", "0")) < _HOUR_MS:
            parameters[name[:1]][name[1:]] = int(value)
    silence, judged_ms = _verdict(stored.get("verdict"))
    last, skipped = stored.get("last"), stored.get("ids:skipped")
    return PbxReport(
        source,
        last_ms=int(last) if last else None,
        silence=silence,
        judged_ms=judged_ms,
        calls=totals["calls"],
        losses=Losses(totals["expected"], totals["lost"]),
        dials=totals["dials"],
        unheard=totals["unheard"],
        ids_used=totals["ids"],
        ids_skipped=totals["gaps"],
        last_skipped=int(skipped) if skipped else None,
        ahead_s=ahead_s,
        unknown=parameters["+"],
        missing=parameters["-"],
    )


def _verdict(stored: str | None) -> tuple[Silence | None, int]:
    if not stored:
        return None, 0
    seconds, probability, is_unusual, judged_ms = orjson.loads(stored)
    return Silence(seconds, probability, is_unusual), judged_ms


def _key(source: SourceName, what: str) -> str:
    """Return a key of a source. All of them have one hash tag, because a script uses them together."""
    return f"callfold:{{pbx/{source}}}:{what}"


def _day_key(source: SourceName, day: int) -> str:
    return _key(source, f"minutes/{day}")
