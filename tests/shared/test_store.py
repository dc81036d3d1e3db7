"""The door to Redis, on a real one: merging against a model, claims, marks, a server that forgot the scripts."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from shared.errors import StoreUnavailableError
from shared.ids import CallKey, CallRef, SourceName
from shared.store import Claim, Publication, Store, partition
from tests.support import Servers


def _key(call: str) -> CallKey:
    return CallKey(SourceName("acme"), CallRef(call))


@asynccontextmanager
async def _store(servers: Servers, *, lease_s: float = 10) -> AsyncIterator[Store]:
    store = Store(servers.stack.redis_url, claim_lease_s=lease_s)
    try:
        yield store
    finally:
        await store.aclose()


FACTS = st.lists(st.tuples(st.sampled_from(["a", "b", "leg:API:1:pickup", ">clock"]), st.text(max_size=5)), max_size=12)


@given(batches=st.lists(FACTS, min_size=1, max_size=4), shuffled=st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_merge_keeps_minima_and_the_clock_s_maximum_in_any_order_and_any_number_of_times(
    servers: Servers, batches: list[list[tuple[str, str]]], shuffled: object
) -> None:
    key = _key(uuid.uuid4().hex)
    model: dict[str, str] = {}
    for field, value in (fact for batch in batches for fact in batch):
        best = max if field.startswith(">") else min
        # Redis compares bytes, and UTF-8 keeps the order of code points.
        model[field] = best(model.get(field, value), value, key=str.encode)
    async with _store(servers) as store:
        merged = {}
        for batch in [*batches, *reversed(batches)]:
            merged = (await store.merge({key: batch}))[key].facts
        assert merged == model
        assert (await store.load([key]))[key] == model


async def test_calls_of_every_partition_are_merged_in_one_step(servers: Servers) -> None:
    keys = [_key(str(number)) for number in range(100)]
    assert {partition(key) for key in keys} == set(range(16))
    async with _store(servers) as store:
        folded = await store.merge({key: [("x", str(key))] for key in keys})
        assert {key: state.facts["x"] for key, state in folded.items()} == {key: str(key) for key in keys}
        assert set(await store.open_calls()) == set(keys)


async def test_a_claim_is_held_taken_over_after_its_lease_with_the_stored_outbox_and_over_once_marked(servers: Servers) -> None:
    key = _key("513")
    async with _store(servers, lease_s=0.3) as first, _store(servers) as second:
        await first.merge({key: [("x", "1")]})
        assert await first.claim({key: Publication(key, 1, b"first")}, holder="a") == {key: (Claim.YOURS, b"first")}
        assert await first.claim({key: Publication(key, 1, b"changed")}, holder="a") == {key: (Claim.YOURS, b"first")}
        other = Publication(key, 1, b"second")
        assert await second.claim({key: other}, holder="b") == {key: (Claim.HELD, b"")}

        async def taken_over() -> tuple[Claim, bytes]:
            while (answer := (await second.claim({key: other}, holder="b"))[key])[0] is Claim.HELD:
                await asyncio.sleep(0.02)
            return answer

        assert await asyncio.wait_for(taken_over(), 5) == (Claim.YOURS, b"first")
        await second.mark({key: 1}, retain_s=100)
        assert await first.claim({key: Publication(key, 1, b"late")}, holder="a") == {key: (Claim.PUBLISHED, b"")}
        assert (await first.merge({key: [("x", "1")]}))[key].is_published
        assert await first.open_calls() == {}


async def test_a_published_call_expires_after_the_retain_time_and_an_open_one_never(servers: Servers) -> None:
    done, still_open = _key("1"), _key("2")
    async with _store(servers) as store:
        await store.merge({done: [("x", "1")], still_open: [("x", "1")]})
        await store.claim({done: Publication(done, 1, b"o")}, holder="a")
        await store.mark({done: 1}, retain_s=100)
    redis = Redis.from_url(servers.stack.redis_url)
    lives = {name.decode(): await redis.ttl(name) for name in await redis.keys("callfold:*")}
    await redis.aclose()
    assert {name: life for name, life in lives.items() if name.endswith("acme/2")} == {
        f"callfold:{{{partition(still_open)}}}:facts:acme/2": -1
    }
    assert all(0 < life <= 100 for name, life in lives.items() if name.endswith("acme/1"))


async def test_scripts_are_sent_again_to_a_server_that_forgot_them(servers: Servers) -> None:
    redis = Redis.from_url(servers.stack.redis_url)
    async with _store(servers) as store:
        await store.merge({_key("1"): [("x", "2")]})
        await redis.script_flush()
        assert (await store.merge({_key("1"): [("x", "1")]}))[_key("1")].facts == {"x": "1"}
    await redis.aclose()


async def test_redis_away_is_an_error_of_ours_within_seconds(servers: Servers) -> None:
    store = Store("redis://127.0.0.1:1/0")
    with pytest.raises(StoreUnavailableError):
        await asyncio.wait_for(store.merge({_key("1"): [("x", "1")]}), 5)
    with pytest.raises(StoreUnavailableError):
        await asyncio.wait_for(store.check(), 5)
    await store.aclose()
