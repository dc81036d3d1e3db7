"""The door to Redis, on a real one: merging against a model, claims, marks, a server that forgot the scripts."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import time
import uuid
from contextlib import AbstractAsyncContextManager, aclosing
from pathlib import Path
from typing import cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from console.local.ports import free_port
from console.local.stack import REDIS_PROBE, Server
from shared.domain.ids import CallKey, CallRef, SourceName
from shared.domain.times import milliseconds, rfc3339
from shared.errors import BusyError, StoreUnavailableError
from shared.retention.recording_lock import locked
from shared.state.keys import PLAIN_KEYS, partition
from shared.state.store import Store
from shared.state.stored_call import Claim, LeaseLimits, Publication, PublicationState, WakeUp
from tests.helpers.pace import LIMIT_S, PACE
from tests.helpers.servers import Servers, eventually

LIMITS = LeaseLimits(calls=10, calls_of_source=10, interval_ms=1)


def _printed(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _now_ms() -> int:
    return round(time.time() * 1000)


def _key(call: str) -> CallKey:
    return CallKey(SourceName("acme"), CallRef(call))


@pytest.fixture
def servers(redis_only: Servers) -> Servers:
    return redis_only


def _store(servers: Servers, *, lease_s: float = 10) -> AbstractAsyncContextManager[Store]:
    return aclosing(Store(servers.stack.redis_url, claim_lease_s=lease_s, retain_s=100))


FACTS = st.lists(st.tuples(st.sampled_from(["a", "b", "leg:API:1:guid", ">clock"]), st.text(max_size=5)), max_size=12)


@given(batches=st.lists(FACTS, min_size=1, max_size=4), rng=st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
async def test_merge_keeps_minima_and_the_clock_s_maximum_in_any_order_and_any_number_of_times(
    servers: Servers, batches: list[list[tuple[str, str]]], rng: random.Random
) -> None:
    """In lock-step with a model: the facts are dealt in one order, then all of them again in another."""
    key = _key(uuid.uuid4().hex)
    facts = [fact for batch in batches for fact in batch]
    model: dict[str, str] = {}
    async with _store(servers) as store:
        for _ in range(2):
            rng.shuffle(facts)
            rest = list(facts)
            for size in map(len, batches):
                batch, rest = rest[:size], rest[size:]
                model = _merged(model, batch)
                assert (await store.merge({key: [batch]})).calls[key].facts == model
                assert (await store.read_facts([key]))[key] == model
    assert model == _merged({}, sorted(facts))


def _merged(model: dict[str, str], batch: list[tuple[str, str]]) -> dict[str, str]:
    merged = dict(model)
    for field, value in batch:
        best = max if field.startswith(">") else min
        # Redis compares bytes, and UTF-8 keeps the order of code points.
        merged[field] = best(merged.get(field, value), value, key=str.encode)
    return {} if all(field.startswith(">") for field in merged) else merged  # a clock alone is no call


async def test_calls_of_every_partition_are_merged_in_one_step(servers: Servers) -> None:
    keys = [_key(str(number)) for number in range(100)]
    assert {partition(key) for key in keys} == set(range(16))
    async with _store(servers) as store:
        folded = (await store.merge({key: [[("x", str(key))]] for key in keys})).calls
        assert {key: state.facts["x"] for key, state in folded.items()} == {key: str(key) for key in keys}
        assert set(await store.open_calls()) == set(keys)


async def test_a_lock_that_was_lost_is_had_again_by_nobody_who_only_keeps_it(servers: Servers) -> None:
    async with _store(servers) as store, Redis.from_url(servers.stack.redis_url) as redis:
        assert await store.locks.acquire("a", "first", lease_s=0.05)

        async def is_over() -> bool:
            return not await redis.exists("callfold:lock:a")

        await eventually(is_over)
        assert not await store.locks.renew("a", "first", lease_s=60)
        assert await is_over(), "nor is it made by that"
        assert await store.locks.acquire("a", "second", lease_s=60)
        assert await store.locks.renew("a", "second", lease_s=60)
        assert not await store.locks.renew("a", "first", lease_s=60)
        await store.locks.release("a", "first")
        assert not await is_over(), "another's is left alone"
        await store.locks.release("a", "second")
        assert await is_over()


async def test_a_lock_that_redis_forgot_is_not_confirmed(servers: Servers) -> None:
    async with _store(servers) as store, Redis.from_url(servers.stack.redis_url) as redis:
        lost = []
        try:
            async with locked(store, "a") as lock:
                await lock.confirm()
                await redis.flushall()
                await lock.confirm()
        except* BusyError as errors:
            lost = list(errors.exceptions)
        assert len(lost) == 1
        async with locked(store, "a") as lock:
            await lock.confirm()


async def test_a_claim_is_held_taken_over_after_its_lease_with_the_stored_outbox_and_over_once_marked(servers: Servers) -> None:
    key, lease_s = _key("513"), 60 * PACE
    async with (
        _store(servers, lease_s=lease_s) as first,
        _store(servers) as second,
        Redis.from_url(servers.stack.redis_url) as redis,
    ):
        await first.merge({key: [[("x", "1")]]})
        assert await first.claim({key: Publication(key, 1, b"first", "", "1")}, holder="a") == {key: (Claim.YOURS, b"first")}
        assert await first.claim({key: Publication(key, 1, b"changed", "", "1")}, holder="a") == {key: (Claim.YOURS, b"first")}
        other = Publication(key, 1, b"second", "", "1")
        assert await second.claim({key: other}, holder="b") == {key: (Claim.HELD, b"")}
        publication = PLAIN_KEYS.publication(partition(key), key)
        left_ms = int(await redis.hget(publication, "until_ms") or 0) - _now_ms()
        assert 0 < left_ms <= lease_s * 1000
        await redis.hset(publication, "until_ms", "0")  # the lease is over
        assert await second.claim({key: other}, holder="b") == {key: (Claim.YOURS, b"first")}
        await second.mark({key: 1})
        assert await first.claim({key: Publication(key, 1, b"late", "", "1")}, holder="a") == {key: (Claim.PUBLISHED, b"")}
        assert (await first.merge({key: [[("x", "1")]]})).calls[key].state is PublicationState.PUBLISHED
        assert await first.open_calls() == {}


async def test_a_published_call_expires_after_the_retain_time_and_an_open_one_never(servers: Servers) -> None:
    done, still_open = _key("1"), _key("2")
    async with _store(servers) as store:
        await store.merge({done: [[("x", "1")]], still_open: [[("x", "1")]]})
        await store.claim({done: Publication(done, 1, b"o", "", "1")}, holder="a")
        await store.mark({done: 1})
    redis = Redis.from_url(servers.stack.redis_url, decode_responses=True)
    lives = {str(name): await redis.ttl(name) for name in await redis.keys("callfold:*")}
    await redis.aclose()
    place = f"callfold:{{{partition(still_open)}}}"
    assert {name: life for name, life in lives.items() if name.endswith("acme/2")} == {
        f"{place}:facts:acme/2": -1,
        f"{place}:publication:acme/2": -1,
    }
    place = f"callfold:{{{partition(done)}}}"
    assert 0 < lives[f"{place}:facts:acme/1"] <= 100
    assert lives[f"{place}:publication:acme/1"] > 7 * 24 * 3600, "a tombstone outlives the journal"


async def test_a_callback_of_a_call_whose_facts_expired_changes_nothing(servers: Servers) -> None:
    key = _key("1")
    redis = Redis.from_url(servers.stack.redis_url)
    async with _store(servers) as store:
        await store.merge({key: [[("x", "1")]]})
        await store.claim({key: Publication(key, 1, b"o", "told", "1")}, holder="a")
        await store.mark({key: 1})
        await redis.delete(PLAIN_KEYS.facts(partition(key), key))
        assert (await store.merge({key: [[("x", "0")]]})).calls[key].state is PublicationState.TOMBSTONED
        assert (await store.read_facts([key]))[key] == {}
        assert await store.open_calls() == {}
    await redis.aclose()


async def test_a_look_moves_forward_only_unless_all_facts_were_seen(servers: Servers) -> None:
    key = _key("1")
    async with _store(servers) as store:
        first = (await store.merge({key: [[("x", "1")]]})).calls[key].version
        await store.schedule({key: WakeUp(1000, first)})
        second = (await store.merge({key: [[("y", "1")]]})).calls[key].version
        await store.schedule({key: WakeUp(5000, first)})
        assert await store.open_calls() == {key: 1000}
        await store.schedule({key: WakeUp(500, first)})
        assert await store.open_calls() == {key: 500}
        await store.schedule({key: WakeUp(None, first)})
        assert await store.open_calls() == {key: 500}, "who has not seen all facts cannot say that there is nothing to wait for"
        await store.schedule({key: WakeUp(5000, second)})
        assert await store.open_calls() == {key: 5000}
        await store.schedule({key: WakeUp(None, second)})
        assert await store.open_calls() == {}


async def test_a_call_marked_while_facts_came_is_looked_at_at_once(servers: Servers) -> None:
    key = _key("1")
    async with _store(servers) as store:
        seen = (await store.merge({key: [[("x", "1")]]})).calls[key].version
        await store.claim({key: Publication(key, 1, b"o", "", seen)}, holder="a")
        await store.merge({key: [[("y", "1")]]})
        await store.mark({key: 1})
        assert (await store.lease(until_ms=_now_ms(), lease_s=5, limits=LIMITS)).calls == [key]


async def test_a_lease_is_one_s_alone_until_it_is_over(servers: Servers) -> None:
    key = _key("1")
    async with _store(servers) as store:
        version = (await store.merge({key: [[("x", "1")]]})).calls[key].version
        assert (await store.lease(until_ms=_now_ms(), lease_s=5, limits=LIMITS)).calls == [], "not due"
        await store.schedule({key: WakeUp(1000, version)})
        answers = await asyncio.gather(*(store.lease(until_ms=_now_ms(), lease_s=2 * PACE, limits=LIMITS) for _ in range(8)))
        assert sorted(len(answer.calls) for answer in answers) == [0] * 7 + [1]

        async def again() -> bool:
            return bool((await store.lease(until_ms=_now_ms(), lease_s=5, limits=LIMITS)).calls)

        await eventually(again)


async def test_a_leased_call_is_postponed_unless_something_of_it_was_folded_since(servers: Servers) -> None:
    untouched, folded, over, elsewhere = keys = [_key(name) for name in ("1", "2", "3", "4")]
    until_ms, lease_s = 5000, 10
    leased_until_ms = until_ms + lease_s * 1000
    async with _store(servers) as store:
        merged = (await store.merge({key: [[("x", "1")]] for key in keys})).calls
        await store.schedule({key: WakeUp(1000, merged[key].version) for key in keys})
        assert set((await store.lease(until_ms=until_ms, lease_s=lease_s, limits=LIMITS)).calls) == set(keys)
        await store.schedule({folded: WakeUp(7000, merged[folded].version), over: WakeUp(None, merged[over].version)})
        for _ in range(2):  # a repeat changes nothing
            await store.postpone({untouched: 9000, folded: 9000, over: 9000}, leased_until_ms=leased_until_ms)
            assert await store.open_calls() == {untouched: 9000, folded: 7000, elsewhere: leased_until_ms}


async def test_scripts_are_sent_again_to_a_server_that_forgot_them(servers: Servers) -> None:
    redis = Redis.from_url(servers.stack.redis_url)
    keys = [_key(str(number)) for number in range(40)]
    assert len({partition(key) for key in keys}) > 2
    async with _store(servers) as store:
        await store.merge({key: [[("x", "2")]] for key in keys})
        await redis.script_flush()
        merged = await store.merge({key: [[("x", "1"), ("y", key.call)]] for key in keys})
        assert {key: call.facts for key, call in merged.calls.items()} == {key: {"x": "1", "y": key.call} for key in keys}
    await redis.aclose()


async def test_a_partition_that_fails_fails_the_whole_step_and_a_repeat_completes_it(servers: Servers) -> None:
    redis = Redis.from_url(servers.stack.redis_url)
    keys = [_key(str(number)) for number in range(40)]
    async with _store(servers) as store:
        broken = PLAIN_KEYS.facts(partition(keys[7]), keys[7])
        await redis.set(broken, "not a hash")
        with pytest.raises(StoreUnavailableError, match="WRONGTYPE"):
            await store.merge({key: [[("x", "1")]] for key in keys})
        await redis.delete(broken)
        merged = await store.merge({key: [[("x", "1")]] for key in keys})
        assert {key: call.facts for key, call in merged.calls.items()} == {key: {"x": "1"} for key in keys}
    await redis.aclose()


class _SlowRedis(asyncio.Protocol):
    """Answers each command by itself, the runs of a script one after the other, a pause before each."""

    def __init__(self, pause_s: float) -> None:
        self._pause_s = pause_s
        self._runs = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        runs = data.count(b"EVALSHA")
        for _ in range(runs):
            self._runs += 1
            asyncio.get_running_loop().call_later(self._pause_s * self._runs, self._transport.write, b"*0\r\n")
        self._transport.write(b"+OK\r\n" * (data.count(b"\r\n$6\r\nCLIENT\r\n") + data.count(b"\r\nINFO\r\n")))


async def test_all_partitions_together_have_one_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A claim must not outlast its lease, however slowly each partition answers."""
    limit_s = PACE
    monkeypatch.setattr("shared.state.script.STEP_S", limit_s)
    server = await asyncio.get_running_loop().create_server(lambda: _SlowRedis(limit_s / 4), "127.0.0.1", 0)
    async with server:
        store = Store(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0")
        with pytest.raises(StoreUnavailableError, match="no reply to all of 16 runs"):
            await asyncio.wait_for(store.mark({_key(str(number)): 1 for number in range(200)}), LIMIT_S)
        await store.aclose()


async def test_named_facts_are_read_and_those_that_a_call_lacks_are_left_out(servers: Servers) -> None:
    many = {f"n{number}": str(number) for number in range(2500)}  # more than one command reads
    keys = [_key(str(number)) for number in range(20)]
    async with _store(servers) as store:
        await store.merge({key: [[("x", key.call), ("y", "1")]] for key in keys[1:]})
        await store.merge({keys[1]: [[pair] for pair in many.items()]})
        names = {key: ["z", "x"] for key in keys} | {keys[1]: [*many, "x", "z"], keys[2]: []}
        read = await store.read_some_facts(names)
        stored = await store.read_facts(keys)
    assert read == {key: {name: stored[key][name] for name in of_key if name in stored[key]} for key, of_key in names.items()}
    assert read[keys[0]] == read[keys[2]] == {}
    assert read[keys[3]] == {"x": "3"}
    assert read[keys[1]] == many | {"x": "1"}


async def test_the_server_is_named_as_its_own_program_does(servers: Servers) -> None:
    async with _store(servers) as store:
        (node,) = await store.server_settings()
    assert _printed("redis-server", "--version").startswith(f"{node.server.name} server v={node.server.version} ")
    assert node.server.problem is None


async def test_redis_away_is_an_error_of_ours_within_seconds(servers: Servers) -> None:
    store = Store("redis://127.0.0.1:1/0")
    with pytest.raises(StoreUnavailableError):
        await asyncio.wait_for(store.merge({_key("1"): [[("x", "1")]]}), LIMIT_S)
    with pytest.raises(StoreUnavailableError):
        await asyncio.wait_for(store.server_settings(), LIMIT_S)
    await store.aclose()


async def test_only_a_merge_that_learns_something_moves_the_time_from_which_silence_counts(servers: Servers) -> None:
    key = _key("1")
    async with _store(servers) as store:
        before_ms = await _redis_ms(store)
        first = (await store.merge({key: [[("x", "2"), ("y", "1")]]})).calls[key].merged_at_ms
        assert first is not None
        assert before_ms <= first <= await _redis_ms(store)
        await _next_millisecond(store)
        for repeat in ([("x", "2")], [("x", "3")], [(">clock", "2026")], []):
            assert (await store.merge({key: [repeat]})).calls[key].merged_at_ms == first
        later = (await store.merge({key: [[("x", "1")]]})).calls[key]
        assert later.merged_at_ms is not None
        assert later.merged_at_ms > first
        read = await store.read(key)
        assert read is not None
        assert (read.merged_at_ms, dict(read.facts)) == (later.merged_at_ms, {"x": "1", "y": "1", ">clock": "2026"})


async def _redis_ms(store: Store) -> int:
    """Read the time of Redis in whole milliseconds, as scripts do."""
    return milliseconds(rfc3339(await store.now()))


async def _next_millisecond(store: Store) -> None:
    began = await _redis_ms(store)

    async def is_over() -> bool:
        return await _redis_ms(store) > began

    await eventually(is_over)


async def test_a_clock_alone_makes_no_call(servers: Servers) -> None:
    key = _key("1")
    async with _store(servers) as store:
        folded = (await store.merge({key: [[(">clock", "2026")]]})).calls[key]
        assert (folded.facts, folded.version, folded.wake_at_ms) == ({}, "0", None)
        assert await store.open_calls() == {}
        assert await store.read_facts([key]) == {key: {}}
        await store.merge({key: [[("x", "1")]]})
        assert (await store.merge({key: [[(">clock", "2026")]]})).calls[key].facts == {"x": "1", ">clock": "2026"}


async def test_a_claim_on_facts_that_redis_has_lost_or_that_are_not_all_is_lost_and_stores_nothing(servers: Servers) -> None:
    key = _key("1")
    async with _store(servers) as store, Redis.from_url(servers.stack.redis_url) as redis:
        seen = (await store.merge({key: [[("x", "1")]]})).calls[key].version
        await redis.flushall()
        claim = Publication(key, 1, b"o", "", seen)
        assert await store.claim({key: claim}, holder="a") == {key: (Claim.LOST, b"")}
        assert await redis.keys("*") == []
        seen = (await store.merge({key: [[("x", "1")]]})).calls[key].version
        await store.merge({key: [[("y", "1")]]})
        assert await store.claim({key: Publication(key, 1, b"o", "", seen)}, holder="a") == {key: (Claim.LOST, b"")}
        assert await store.claim({key: Publication(key, 3, b"o", "", "2")}, holder="a") == {key: (Claim.LOST, b"")}
        assert await store.claim({key: Publication(key, 1, b"o", "", "2")}, holder="a") == {key: (Claim.YOURS, b"o")}


async def test_a_publication_whose_facts_were_lost_before_its_mark_expires(servers: Servers) -> None:
    key = _key("1")
    place = f"callfold:{{{partition(key)}}}"
    async with _store(servers) as store, Redis.from_url(servers.stack.redis_url) as redis:
        await store.merge({key: [[("x", "1")]]})
        await store.claim({key: Publication(key, 1, b"o", "", "1")}, holder="a")
        await store.merge({key: [[("y", "1")]]})
        await redis.delete(f"{place}:facts:{key}")
        await store.mark({key: 1})
        assert await store.open_calls() == {}
        assert await redis.ttl(f"{place}:publication:{key}") > 0


async def test_the_minimum_is_that_of_the_bytes_whatever_the_server_s_locale(redis_only: Servers, tmp_path: Path) -> None:
    """Lua compares strings as the locale collates them: there, a comes before B."""
    await _make_locale(tmp_path, "aA_bB")
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if name != "LC_ALL"}
    environment |= {"LOCPATH": str(tmp_path), "LC_COLLATE": "aA_bB"}
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
    server = Server("redis", command, environment, port=port, log=tmp_path / "log", probe=REDIS_PROBE)
    await server.start()
    try:
        url = f"redis://127.0.0.1:{port}/0"
        async with Redis.from_url(url) as redis:
            assert await redis.eval("return ('a' < 'B') and 1 or 0", 0) == 1, "the locale is in effect"
        store, key = Store(url), _key("1")
        for value in ("a", "B", "b", "é", "Z", "B ", ""):
            await store.merge({key: [[("m", value or "B"), (">m", value)]]})
        assert (await store.merge({key: []})).calls[key].facts == {"m": "B", ">m": "é"}
        await store.aclose()
    finally:
        await server.kill()


async def _make_locale(directory: Path, name: str) -> None:
    """Compile a locale in which a comes before B, whatever locales the machine has."""
    letters = [letter for number in range(26) for letter in (ord("a") + number, ord("A") + number)]
    order = [*range(ord("A")), *letters, *range(ord("Z") + 1, ord("a")), *range(ord("z") + 1, 128)]
    lines = ["comment_char %", "escape_char /", "LC_COLLATE", "order_start forward"]
    lines += [*(f"<U{code:04X}>" for code in order), "order_end", "END LC_COLLATE", ""]
    (directory / "source").write_text("\n".join(lines), "utf-8")
    charmap = "<code_set_name> TEST\n<comment_char> %\n<escape_char> /\n<mb_cur_min> 1\n<mb_cur_max> 1\n"
    (directory / "charmap").write_text(charmap + "CHARMAP\n<U0000>..<U007F> /x00 ASCII\nEND CHARMAP\n", "utf-8")
    command = ("localedef", "-c", "-i", str(directory / "source"), "-f", str(directory / "charmap"), str(directory / name))
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    _, warnings = await process.communicate()  # of categories it lacks; it exits with 1 for them
    assert (directory / name / "LC_COLLATE").exists(), warnings.decode()
