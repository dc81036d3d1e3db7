"""What Redis keeps for the barrier, on a real one: the scripts do what the model says."""

from __future__ import annotations

import random
from collections.abc import Mapping

from redis.asyncio import Redis

from shared.domain.barrier import Reports
from shared.domain.times import milliseconds, rfc3339
from shared.state.store import Store
from shared.state.watermark import SpoolReport
from tests.helpers.barrier_model import FakeRedis
from tests.helpers.servers import Servers, eventually


async def test_a_spool_holds_the_watermark_and_of_two_reports_the_later_counts(redis_only: Servers) -> None:
    store = Store(redis_only.stack.redis_url)
    marks = store.watermarks
    try:
        now_ms = milliseconds(rfc3339(await store.now()))
        await _complete_a_round(store, "a")
        assert await _until_ms(store) >= now_ms
        await marks.store_spool_reports([SpoolReport("s", now_ms - 9000, 10)])
        assert await _until_ms(store) == now_ms - 9000
        await marks.store_spool_reports([SpoolReport("s", now_ms - 99_000, 9)])
        assert await _until_ms(store) == now_ms - 9000, "older news"
        await marks.store_spool_reports([SpoolReport("s", None, 11)])
        assert await _until_ms(store) >= now_ms
    finally:
        await store.aclose()


async def _until_ms(store: Store, source: str = "") -> int:
    """The time until which a source is folded, 0 while that is not known."""
    until = await store.watermarks.folded_until()
    return 0 if until is None else until.of(source)


async def test_a_spool_of_one_source_holds_the_watermark_of_that_source_only(redis_only: Servers) -> None:
    store = Store(redis_only.stack.redis_url)
    marks = store.watermarks
    try:
        now_ms = milliseconds(rfc3339(await store.now()))
        await _complete_a_round(store, "a")
        await marks.store_spool_reports([SpoolReport("s/acme", now_ms - 9000, 10), SpoolReport("t/acme", now_ms - 5000, 10)])
        assert await _until_ms(store, "acme") == now_ms - 9000
        assert await _until_ms(store, "other") >= now_ms
        await marks.store_spool_reports([SpoolReport("u", now_ms - 7000, 10), SpoolReport("s/acme", None, 11)])
        assert await _until_ms(store, "acme") == await _until_ms(store, "other") == now_ms - 7000, "a spool of all holds all"
        await marks.store_spool_reports([SpoolReport("u", None, 11), SpoolReport("t/acme", None, 11)])
        assert await _until_ms(store, "acme") >= now_ms
    finally:
        await store.aclose()


async def test_a_spool_of_a_clock_that_is_ahead_holds_the_watermark_at_the_true_time(redis_only: Servers) -> None:
    """Else a timer would overtake the callbacks in it. Once the clock is set right, its reports count again."""
    store = Store(redis_only.stack.redis_url)
    marks = store.watermarks
    try:
        await _complete_a_round(store, "a")
        now_ms, ahead_ms = milliseconds(rfc3339(await store.now())), 600_000
        await marks.store_spool_reports([SpoolReport("s", now_ms + ahead_ms - 60_000, now_ms + ahead_ms)])
        stored_ms = milliseconds(rfc3339(await store.now()))
        assert now_ms - 60_000 <= await _until_ms(store) <= stored_ms - 60_000
        await marks.store_spool_reports([SpoolReport("s", None, milliseconds(rfc3339(await store.now())))])
        assert (await marks.reports()).spools[0].oldest_ms is None
    finally:
        await store.aclose()


async def _complete_a_round(store: Store, *consumers: str) -> int:
    """Let consumers pass a first round, by which they are at work, and a second, which is complete."""
    number = 0
    for consumer in consumers:
        await store.watermarks.register(consumer)
    for _ in range(2):
        opened: int = await eventually(lambda: store.watermarks.open_round(pause_s=0))
        assert opened > number
        number = opened
        assert await store.watermarks.store_consumer_count(number, len(consumers))
        for consumer in consumers:
            assert await store.watermarks.pass_round(consumer, number)
    return number


async def test_a_silent_spool_is_forgotten_in_time(redis_only: Servers) -> None:
    """Every call must end: a spool that nobody will ever report of again does not hold it for ever."""
    store = Store(redis_only.stack.redis_url)
    now_ms = milliseconds(rfc3339(await store.now()))
    async with Redis.from_url(redis_only.stack.redis_url) as redis:
        await redis.hset("callfold:{watermark}:spools", "silent", f"{now_ms - 60_000} 1 {now_ms - 3_601_000}")
    try:
        await _complete_a_round(store, "a")
        assert await _until_ms(store) >= now_ms
        assert (await store.watermarks.reports()).spools == []
    finally:
        await store.aclose()


async def test_redis_keeps_of_rounds_and_members_what_the_model_says(redis_only: Servers) -> None:
    """The scripts and the fake of the model, side by side, through the same steps: times aside, they say the same."""
    store, fake = Store(redis_only.stack.redis_url), FakeRedis()
    marks, chance, numbers = store.watermarks, random.Random(513), {0: 0}  # noqa: S311 - a seed, no secret
    try:
        for _ in range(400):
            name, number = f"c{chance.randrange(4)}", chance.choice([*numbers][-4:])
            match chance.choice(("join", "open", "count", "count", "pass", "pass", "pass", "conclude")):
                case "join":
                    await marks.register(name)
                    fake.join(name)
                case "open":
                    fake.now_ms += 1
                    numbers[fake.open_round()] = await eventually(lambda: marks.open_round(pause_s=0))
                case "count":
                    consumers = chance.randrange(4)
                    noted = await marks.store_consumer_count(numbers[number], consumers)
                    assert noted == fake.count_consumers(number, consumers)
                case "pass":
                    known = await marks.pass_round(name, numbers[number])
                    assert known == fake.pass_round(name, number)
                case _:
                    assert (await marks.folded_until() is None) == (fake.conclude() is None)
            assert _shape(await marks.reports(), numbers) == _shape(fake.reports(), {number: number for number in numbers})
    finally:
        await store.aclose()


def _shape(reports: Reports, numbers: Mapping[int, int]) -> object:
    """Everything but times and the numbers themselves."""
    place = {number: at for at, number in enumerate(numbers.values())}
    members = {
        (each.name, -1 if each.at_work_since is None else place[each.at_work_since], place[each.passed])
        for each in reports.members
    }
    return members, {(place[each.number], each.consumers) for each in reports.rounds}


async def test_rounds_are_opened_the_more_rarely_the_more_are_not_complete(redis_only: Servers) -> None:
    """However long ago the last complete one was opened: the first rounds after an outage are quick."""
    store, key = Store(redis_only.stack.redis_url), "callfold:{watermark}:rounds"
    now_ms = milliseconds(rfc3339(await store.now()))
    async with Redis.from_url(redis_only.stack.redis_url) as redis:
        await redis.hset(key, str(now_ms - 86_400_000), f"{now_ms - 86_400_000} 2")
        assert await store.watermarks.open_round(pause_s=3600) is not None, "none was opened for a day"
        assert await store.watermarks.open_round(pause_s=20) is None
        for age_s in range(60, 12, -1):
            await redis.hset(key, str(now_ms - 1000 * age_s), f"{now_ms - 1000 * age_s} 2")
        await redis.hdel(key, str(max(int(number) for number in await redis.hkeys(key))))
        assert await store.watermarks.open_round(pause_s=0.3) is None, "half a minute, with fifty rounds on their way"
        await redis.delete(key)
        await redis.hset(key, str(now_ms - 12_000), f"{now_ms - 12_000} 2")
        assert await store.watermarks.open_round(pause_s=0.3) is not None
    await store.aclose()
