"""An Idempotency-Key makes a phone ring once, also if Redis loses the key."""

from __future__ import annotations

import asyncio
import hashlib
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast
from unittest.mock import AsyncMock

import orjson
import pytest
from redis.asyncio import Redis

from console.dialing import dial_keys
from console.dialing.dial_keys import DialKeys
from console.dialing.dial_service import DialService, Limits
from console.dialing.focalscope import Dialer, DialError, DialRequest, DialState
from shared.config.live_sources import LiveSources
from shared.config.sources import load_sources
from shared.errors import BrokerUnavailableError
from shared.runtime.broker import create_publisher
from shared.runtime.process import background
from shared.runtime.store import open_store
from tests.helpers.pace import LIMIT_S
from tests.helpers.servers import Servers, eventually
from tests.helpers.settings import settings_here

RULES = '[sources.acme]\ndial_url = "http://127.0.0.1:1/dial?agent={agent}&number={number}"\n'
# Each run has its user: the stream knows the keys of an earlier one.
WHO = uuid.uuid4().hex
REQUEST = DialRequest(source="acme", agent="1001", number="+4512345678")


class _Phones:
    """Stands for FocalScope, and counts the dials."""

    def __init__(self) -> None:
        self.rung = 0
        self.is_refusing = False
        self.has_rung, self.may_answer = asyncio.Event(), asyncio.Event()
        self.may_answer.set()

    async def dial(self, *_: object) -> int:
        self.has_rung.set()
        await asyncio.sleep(0)
        await self.may_answer.wait()
        if self.is_refusing:
            raise DialError(DialState.REFUSED, 502, "no")
        self.rung += 1
        return 512 + self.rung


@asynccontextmanager
async def console(servers: Servers, monkeypatch: pytest.MonkeyPatch, phones: _Phones) -> AsyncIterator[DialService]:
    rules = servers.directory / "sources.toml"
    rules.write_text(RULES, "utf-8")
    settings = settings_here(monkeypatch, servers.environment(CALLFOLD_SOURCES=str(rules)))
    publisher = create_publisher(settings, "console")
    keys = DialKeys(publisher)
    limits = Limits(per_minute=60, per_day=5000, wait_s=LIMIT_S)
    async with open_store(settings) as store, background(publisher.run(), keys.run()):
        await publisher.wait_until_up()
        yield DialService(
            cast("Dialer", phones), store.dials, publisher, LiveSources(load_sources(Path(rules))), limits, keys=keys
        )


async def emptied(servers: Servers) -> None:
    async with Redis.from_url(servers.stack.redis_url) as redis:
        await redis.flushall()


async def test_a_repeat_after_redis_has_lost_the_key_gets_the_first_answer(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    phones = _Phones()
    async with console(servers, monkeypatch, phones) as first, console(servers, monkeypatch, phones) as second:
        answer = await first.dial(REQUEST, WHO, "lost-1")
        await emptied(servers)
        repeats = await asyncio.gather(*(each.dial(REQUEST, WHO, "lost-1") for each in (first, second, first, second)))
        assert [(each.status, each.body, each.is_repeated) for each in repeats] == [(201, answer.body, True)] * 4
        await emptied(servers)
        assert (await second.dial(REQUEST, WHO, "other")).status == 201
        other = REQUEST.model_copy(update={"number": "+4587654321"})
        assert (await second.dial(other, WHO, "lost-1")).status == 422
    async with console(servers, monkeypatch, phones) as started_later:
        await emptied(servers)
        assert (await started_later.dial(REQUEST, WHO, "lost-1")).body == answer.body
    assert phones.rung == 2


async def test_a_repeat_that_waits_gets_the_first_answer_although_redis_loses_the_key_meanwhile(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    phones = _Phones()
    phones.may_answer.clear()
    async with console(servers, monkeypatch, phones) as dials, Redis.from_url(servers.stack.redis_url) as redis:

        async def looks() -> int:
            return int((await redis.info("commandstats")).get("cmdstat_get", {}).get("calls", 0))

        async def looks_again() -> bool:
            return repeat.done() or await looks() > seen + 1

        first = asyncio.ensure_future(dials.dial(REQUEST, WHO, "waits-1"))
        await asyncio.wait_for(phones.has_rung.wait(), LIMIT_S)
        repeat = asyncio.ensure_future(dials.dial(REQUEST, WHO, "waits-1"))
        for is_lost in (False, True):
            if is_lost:
                await emptied(servers)
            seen = await looks()
            await eventually(looks_again)
        phones.may_answer.set()
        answers = [(each.status, each.body, each.is_repeated) for each in (await first, await repeat)]
        assert answers == [(201, first.result().body, False), (201, first.result().body, True)]
    assert phones.rung == 1


async def test_a_refused_request_frees_its_key_in_the_stream_too(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    phones = _Phones()
    async with console(servers, monkeypatch, phones) as dials:
        phones.is_refusing = True
        assert (await dials.dial(REQUEST, WHO, "refused-1")).status == 502
        phones.is_refusing = False
        await emptied(servers)
        assert (await dials.dial(REQUEST, WHO, "refused-1")).status == 201
        await emptied(servers)
        assert (await dials.dial(REQUEST, WHO, "refused-1")).is_repeated
    assert phones.rung == 1


async def test_concurrent_requests_at_several_consoles_ring_once_although_redis_loses_the_key(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    phones = _Phones()
    async with console(servers, monkeypatch, phones) as first, console(servers, monkeypatch, phones) as second:
        for number in range(10):
            dialing = [
                asyncio.ensure_future(each.dial(REQUEST, WHO, f"race-{number}")) for each in (first, second) for _ in range(2)
            ]
            await emptied(servers)
            dialing.append(asyncio.ensure_future(second.dial(REQUEST, WHO, f"race-{number}")))
            answers = [(answer.status, answer.body) for answer in await asyncio.gather(*dialing)]
            assert answers == [answers[0]] * len(dialing)
    assert phones.rung == 10


class _Late:
    """Holds a console back between what it reads in the stream and what it writes to Redis."""

    def __init__(self, dials: DialService, monkeypatch: pytest.MonkeyPatch) -> None:
        keys = dials._keys
        assert keys is not None
        self._claim = keys.claim
        self.has_read, self.may_write = asyncio.Event(), asyncio.Event()
        monkeypatch.setattr(keys, "claim", self._claim_late)

    async def _claim_late(self, name: str, by: str, entry: bytes) -> bytes | None:
        earlier = await self._claim(name, by, entry)
        self.has_read.set()
        await asyncio.wait_for(self.may_write.wait(), LIMIT_S)
        return earlier


@pytest.mark.parametrize("is_refused", [False, True])
async def test_a_repeat_that_finds_a_request_in_the_stream_changes_nothing_that_this_request_stored_since(
    servers: Servers, monkeypatch: pytest.MonkeyPatch, *, is_refused: bool
) -> None:
    phones, key = _Phones(), f"late-{is_refused}"
    phones.may_answer.clear()
    async with console(servers, monkeypatch, phones) as first, console(servers, monkeypatch, phones) as second:
        late = _Late(second, monkeypatch)
        dialing = asyncio.ensure_future(first.dial(REQUEST, WHO, key))
        await asyncio.wait_for(phones.has_rung.wait(), LIMIT_S)
        await emptied(servers)
        repeat = asyncio.ensure_future(second.dial(REQUEST, WHO, key))
        await asyncio.wait_for(late.has_read.wait(), LIMIT_S)
        phones.is_refusing = is_refused
        phones.may_answer.set()
        answer = await dialing
        late.may_write.set()
        again = await asyncio.wait_for(repeat, LIMIT_S)
        third = await first.dial(REQUEST, WHO, key)
        if is_refused:
            assert (answer.status, again.status, third.status) == (502, 409, 502)
        else:
            assert [(each.status, each.body) for each in (answer, again, third)] == [(201, answer.body)] * 3


async def test_a_repeat_gets_an_answer_that_reached_only_the_stream(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    phones = _Phones()

    async def nothing(*_: object) -> None:
        """Stands for a console that is killed before it stores the answer."""

    async with console(servers, monkeypatch, phones) as first, console(servers, monkeypatch, phones) as second:
        with monkeypatch.context() as killed:
            killed.setattr(first._store, "finish", nothing)
            answer = await first.dial(REQUEST, WHO, "only-1")
        repeat = await asyncio.wait_for(second.dial(REQUEST, WHO, "only-1"), LIMIT_S)
    assert (repeat.status, repeat.body, repeat.is_repeated, phones.rung) == (201, answer.body, True, 1)


@pytest.mark.parametrize(
    ("stored", "expected"), [(b"repeat", b"first"), (b"answer", b"answer"), (b"other request", b"other request"), (None, None)]
)
async def test_only_the_state_of_the_repeat_is_replaced_by_what_the_stream_has(
    servers: Servers, monkeypatch: pytest.MonkeyPatch, stored: bytes | None, expected: bytes | None
) -> None:
    key = uuid.uuid4().hex
    async with open_store(settings_here(monkeypatch, servers.environment())) as store:
        if stored is not None:
            await store.dials.finish(key, stored)
        await store.dials.restore(key, b"repeat", b"first")
        assert await store.dials.answer(key) == expected


async def test_a_key_whose_first_request_was_refused_is_not_taken_again(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, first = uuid.uuid4().hex, uuid.uuid4().bytes
    async with open_store(settings_here(monkeypatch, servers.environment())) as store:
        await store.dials.begin(key, b"repeat")
        await store.dials.forget(key, first)
        await store.dials.restore(key, b"repeat", first)
        assert await store.dials.answer(key) is None


async def test_the_keys_are_read_again_once_the_stream_was_replaced(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    phones = _Phones()
    async with console(servers, monkeypatch, phones) as dials:
        answer = await dials.dial(REQUEST, WHO, "replaced-1")
        keys = dials._keys
        assert keys is not None
        keys._last = 10**9  # as after a stream with more messages was deleted and created again
        keys._consumer.recycle("the stream was replaced")
        with monkeypatch.context() as impatient:
            impatient.setattr(dial_keys, "_READ_BACK_S", 1)
            await dials.dial(REQUEST, WHO, "replaced-2")

        async def are_read() -> bool:
            names = [hashlib.sha256(f"{WHO}/{key}".encode()).hexdigest() for key in ("replaced-1", "replaced-2")]
            return all(b'"status"' in (keys.entry(name) or b"") for name in names)

        await eventually(are_read)
        await emptied(servers)
        repeats = [await dials.dial(REQUEST, WHO, "replaced-1"), await dials.dial(REQUEST, WHO, "replaced-2")]
    assert (repeats[0].body, [each.is_repeated for each in repeats], phones.rung) == (answer.body, [True, True], 2)


@pytest.mark.parametrize(("read_in_that_time", "begins_again"), [(0, 1), (7, 0)])
async def test_a_stream_that_is_still_being_read_is_not_begun_again(
    servers: Servers, monkeypatch: pytest.MonkeyPatch, read_in_that_time: int, begins_again: int
) -> None:
    async with console(servers, monkeypatch, _Phones()) as dials:
        keys = dials._keys
        assert keys is not None
        await keys.claim(uuid.uuid4().hex, uuid.uuid4().hex, b"{}")
        recycled: list[str] = []

        async def record(_: object) -> None:
            assert keys._last is not None
            keys._last += read_in_that_time

        monkeypatch.setattr(dial_keys, "_READ_BACK_S", 0.1)
        monkeypatch.setattr(keys, "_record", record)
        monkeypatch.setattr(keys._consumer, "recycle", recycled.append)
        assert await keys.claim(uuid.uuid4().hex, uuid.uuid4().hex, b"{}") is None
        assert len(recycled) == begins_again


async def test_a_refusal_that_the_stream_does_not_know_yet_is_answered_as_one(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    phones = _Phones()

    async def not_recorded(*_: object) -> None:
        """Stands for a RabbitMQ that is away."""

    async with console(servers, monkeypatch, phones) as dials:
        keys = dials._keys
        assert keys is not None
        phones.is_refusing = True
        with monkeypatch.context() as away:
            away.setattr(keys, "release", not_recorded)
            assert (await dials.dial(REQUEST, WHO, "refused-2")).status == 502
        repeat = await asyncio.wait_for(dials.dial(REQUEST, WHO, "refused-2"), LIMIT_S)
    assert repeat.status == 409


async def test_a_record_that_was_released_before_its_request_looked_again_still_counts(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with console(servers, monkeypatch, _Phones()) as dials:
        keys = dials._keys
        assert keys is not None
        name, by = uuid.uuid4().hex, uuid.uuid4().hex
        assert await keys.claim(name, f"first {name}", b"{}") is None
        claiming = asyncio.ensure_future(keys.claim(name, by, b"{}"))
        take = keys._take

        def take_with_release(body: bytes) -> None:
            take(body)
            if by.encode() in body:
                take(orjson.dumps({"name": name, "by": f"first {name}", "entry": "", "at": time.time()}))

        monkeypatch.setattr(keys, "_take", take_with_release)
        assert await asyncio.wait_for(claiming, LIMIT_S) == b"{}"


@pytest.mark.parametrize("is_away", [False, True])
async def test_a_claim_ahead_of_a_release_never_counts_and_one_behind_it_counts_at_every_console(
    servers: Servers, monkeypatch: pytest.MonkeyPatch, *, is_away: bool
) -> None:
    """The console of the refused request reads the claim of another one only after it has released the key."""
    name, late = uuid.uuid4().hex, list[bytes]()
    refused, ahead, behind = (f"{number} {name}" for number in range(3))
    async with console(servers, monkeypatch, _Phones()) as one, console(servers, monkeypatch, _Phones()) as two:
        keys, others = one._keys, two._keys
        assert keys is not None
        assert others is not None
        assert await keys.claim(name, refused, b"refused") is None
        with monkeypatch.context() as reading:
            reading.setattr(keys, "_take", late.append)
            assert await others.claim(name, ahead, b"ahead") == b"refused"

            async def is_delivered() -> bool:
                return any(name.encode() in body for body in late)

            await eventually(is_delivered)
            with monkeypatch.context() as broken:
                if is_away:
                    broken.setattr(keys._publisher, "publish", _unavailable)
                await keys.release(name, refused)
        for body in late:
            keys._take(body)
        assert keys.entry(name) is None
        assert await keys.claim(name, behind, b"behind") is None

        async def is_read() -> bool:
            return others.entry(name) == b"behind" == keys.entry(name)

        await eventually(is_read)


async def test_an_answer_counts_although_the_release_before_its_claim_was_lost(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = uuid.uuid4().hex
    refused, behind = (f"{number} {name}" for number in range(2))
    async with console(servers, monkeypatch, _Phones()) as dials:
        keys = dials._keys
        assert keys is not None
        assert await keys.claim(name, refused, b"refused") is None
        with monkeypatch.context() as lost:
            lost.setattr(keys, "_record_soon", AsyncMock())
            await keys.release(name, refused)
        assert await keys.claim(name, behind, b"behind") is None
        await keys.finish(name, behind, b"answer")

        async def is_read() -> bool:
            return keys.entry(name) == b"answer"

        await eventually(is_read)


@pytest.mark.parametrize("has_other_number", [False, True])
async def test_a_repeat_whose_first_request_is_lost_takes_no_answer_of_another_request(
    servers: Servers, monkeypatch: pytest.MonkeyPatch, *, has_other_number: bool
) -> None:
    """The phone of the first request may ring, whatever becomes of the other one."""
    phones, key = _Phones(), f"lost-{has_other_number}"
    phones.may_answer.clear()
    async with console(servers, monkeypatch, phones) as dials:
        monkeypatch.setattr(dials, "_keys", None)  # RabbitMQ is away
        first = asyncio.ensure_future(dials.dial(REQUEST, WHO, key))
        await asyncio.wait_for(phones.has_rung.wait(), LIMIT_S)
        latest, waits, misses = dials._latest, asyncio.Event(), asyncio.Event()

        async def look(name: str) -> bytes | None:
            found = await latest(name)
            (misses if found is None else waits).set()
            return found

        monkeypatch.setattr(dials, "_latest", look)
        repeat = asyncio.ensure_future(dials.dial(REQUEST, WHO, key))
        await asyncio.wait_for(waits.wait(), LIMIT_S)
        await emptied(servers)
        await asyncio.wait_for(misses.wait(), LIMIT_S)
        other = REQUEST.model_copy(update={"number": "+4587654321"}) if has_other_number else REQUEST
        third = asyncio.ensure_future(dials.dial(other, WHO, key))
        assert (await asyncio.wait_for(repeat, LIMIT_S)).status == 504
        phones.may_answer.set()
        await asyncio.gather(first, third)


async def _unavailable(*_: object) -> None:
    raise BrokerUnavailableError("away")


async def test_a_repeat_waits_for_a_claim_that_redis_has_lost_before_the_stream_delivered_it(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    phones = _Phones()
    async with console(servers, monkeypatch, phones) as dials:
        keys = dials._keys
        assert keys is not None
        take, late = keys._take, list[bytes]()
        with monkeypatch.context() as reading:
            reading.setattr(keys, "_take", late.append)
            first = asyncio.ensure_future(dials.dial(REQUEST, WHO, "late-claim"))

            async def is_delivered() -> bool:
                return any(b'"status"' not in body for body in late)

            await eventually(is_delivered)
            repeat = asyncio.ensure_future(dials.dial(REQUEST, WHO, "late-claim"))
            latest, looked = dials._latest, asyncio.Event()

            async def look(name: str) -> bytes | None:
                found = await latest(name)
                if found is None:
                    looked.set()
                return found

            reading.setattr(dials, "_latest", look)
            await emptied(servers)
            await asyncio.wait_for(looked.wait(), LIMIT_S)
        for body in late:
            take(body)
        answers = [(each.status, each.body) for each in await asyncio.gather(first, repeat)]
    assert answers == [answers[0]] * 2
    assert (answers[0][0], phones.rung) == (201, 1)


async def test_a_refused_request_frees_its_key_at_once_although_rabbitmq_is_away(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    phones = _Phones()

    async def away(*_: object) -> None:
        raise BrokerUnavailableError("away")

    async with console(servers, monkeypatch, phones) as dials:
        keys = dials._keys
        assert keys is not None
        rings = phones.dial

        async def ring_while_rabbitmq_goes_away(*parts: object) -> int:
            monkeypatch.setattr(keys, "_record", away)
            return await rings(*parts)

        monkeypatch.setattr(phones, "dial", ring_while_rabbitmq_goes_away)
        phones.is_refusing = True
        assert (await dials.dial(REQUEST, WHO, "refused-3")).status == 502
        phones.is_refusing = False
        answer = await dials.dial(REQUEST, WHO, "refused-3")
        assert (answer.status, answer.is_repeated, phones.rung) == (201, False, 1)
