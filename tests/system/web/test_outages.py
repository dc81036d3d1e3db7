"""Dials while a server is away or a console dies: a phone that rings is in the journal, and nothing rings that could not be noted."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from tests.helpers.console import AUTHORIZED, KEY, World, answering, redis_of, world
from tests.helpers.pace import LIMIT_S, paced
from tests.helpers.servers import Servers, callfold, eventually, exit_code, next_events, publisher_connected

_SOURCES = '[sources.acme]\ndial_url = "http://127.0.0.1:{port}/dial?agent={agent}&number={number}"\n'
_WANTED = {"source": "acme", "agent": "1001", "number": "+4512345678", "reference": "crm-42"}
_OLDER_MISSING = "The history is unavailable, so older calls are missing. Try again later."


@asynccontextmanager
async def _running(servers: Servers, *roles: str, **more: str) -> AsyncIterator[World]:
    settings = {"CALLFOLD_CONSOLE_KEY": KEY, "CALLFOLD_DIAL_TIMEOUT_SECONDS": f"{LIMIT_S:g}"} | more
    async with world(servers, _SOURCES, *roles, **settings) as made:
        yield made


async def _dial(here: World, key: str = "", **more: object) -> tuple[int, Any]:
    headers = AUTHORIZED | ({"Idempotency-Key": here.idempotency_key(key)} if key else {})
    status, told, _ = await here.ask("POST", "/dial", headers=headers, json=_WANTED | more)
    return status, told


async def test_a_dialed_call_of_which_nothing_is_ever_heard_is_closed_and_published_with_its_reference(servers: Servers) -> None:
    quick = {"CALLFOLD_SETTLE_SECONDS": "0.5", "CALLFOLD_LEG_GRACE_SECONDS": "1", "CALLFOLD_MAX_CALL_SECONDS": "1.5"}
    async with (
        _running(servers, "worker", "console", CALLFOLD_TIMER_HOLD_OFF_SECONDS="0", **quick) as here,
        servers.subscribed("call.completed.#") as queue,
    ):
        status, told = await _dial(here)
        assert status == 201
        (event,) = await next_events(queue, 1)
        data = event.body["data"]
        assert event.routing_key == "call.completed.acme.unknown"
        assert (data["request_id"], data["reference"]) == (told["request_id"], "crm-42")
        assert (data["outcome"], data["complete"], data["close_reason"]) == ("unknown", False, "timeout")
        assert (data["agent"], data["dialed"]) == (None, None)
        found = await here.timeline(f"acme/{told['request_id']}", status="complete")
        assert [row["kind"] for row in found["timeline"]][:1] == ["dial"]
        assert "timer" in {row["kind"] for row in found["timeline"]}


async def test_a_history_that_is_away_is_told_of_wherever_calls_are_listed(servers: Servers) -> None:
    away = "postgresql+psycopg://u:hunter2@127.0.0.1:1/history"
    async with _running(servers, "console", CALLFOLD_HISTORY_URL=away) as here:
        status, told, _ = await here.get("/calls", headers=AUTHORIZED)
        assert (status, told["problem"]) == (200, _OLDER_MISSING)
        status, told, headers = await here.get("/calls", headers=AUTHORIZED | {"Accept": "text/csv"})
        assert (status, told["title"], headers["Retry-After"]) == (503, _OLDER_MISSING, "5")
        for path, expected in (("/ui/calls", 200), ("/ui/calls.csv", 503)):
            status, page, _ = await here.get(path, headers=AUTHORIZED)
            assert (status, b"The history is unavailable" in page) == (expected, True)
        code, _, err = await callfold("calls", **here.environment())
        assert (code, "The history is unavailable" in err, "hunter2" in err) == (1, True, False)


async def test_rabbitmq_away_a_dial_is_answered_and_journaled_when_it_is_back(servers: Servers) -> None:
    async with _running(servers, "worker", "console") as here:
        _, told = await _dial(here)
        known = f"acme/{told['request_id']}"
        await here.detail(known, status="ringing")
        note, once = {"type": "note", "body": {"text": "one"}}, AUTHORIZED | {"Idempotency-Key": here.idempotency_key("note")}
        await servers.stack.rabbitmq.stop()
        try:
            status, _, headers = await here.ask("POST", f"/calls/{known}/annotations", json=note, headers=once)
            assert (status, headers["Retry-After"]) == (503, "5")
            status, told = await _dial(here)
            assert (status, told["dial_state"]) == (201, "accepted")
            assert len(here.dialing.asked["1001"]) == 2
            async with redis_of(servers) as redis:
                assert list(await redis.hkeys("callfold:dial:unjournaled")) == [f"acme/{told['request_id']}".encode()]
        finally:
            await servers.stack.rabbitmq.start()
        found = await here.detail(f"acme/{told['request_id']}", status="ringing")
        assert found["record"]["reference"] == "crm-42"
        status, accepted, _ = await here.ask("POST", f"/calls/{known}/annotations", json=note, headers=once)
        assert status == 202
        async with redis_of(servers) as redis:
            await eventually(lambda: _is_empty(redis))
        await eventually(lambda: _annotations(here, known))
        assert [each["id"] for each in await _annotations(here, known)] == [accepted["id"]]
    assert len(here.dialing.asked["1001"]) == 2


async def _annotations(here: World, call: str) -> list[dict[str, Any]]:
    return list((await here.detail(call))["record"]["annotations"])


async def _is_empty(redis: Any) -> bool:  # noqa: ANN401
    return not await redis.exists("callfold:dial:unjournaled")


@pytest.mark.parametrize("how", ["killed", "hanging"])
async def test_redis_away_nothing_is_dialed_and_the_answer_says_so(servers: Servers, how: str) -> None:
    async with _running(servers, "console", TESTS_LEAST_WAIT_S="4") as here:
        assert (await _dial(here))[0] == 201
        await (servers.stack.redis.kill() if how == "killed" else _paused(servers))
        try:
            for key in ("k-1", ""):  # the first on a connection that there is: what it noted is carried out later
                dialed, *looked_up = await asyncio.gather(
                    _dial(here, key), *(here.get(path, headers=AUTHORIZED) for path in ("/calls", "/calls/acme/513"))
                )
                assert (dialed[0], dialed[1]["dial_state"]) == (503, "refused")
                assert [(status, headers["Retry-After"]) for status, _, headers in looked_up] == [(503, "5")] * 2
        finally:
            await (servers.stack.redis.start() if how == "killed" else _resumed(servers))
        assert len(here.dialing.asked["1001"]) == 1

        async def dials_again() -> bool:
            return (await _dial(here, "k-1"))[0] == 201

        await eventually(dials_again)
    assert len(here.dialing.asked["1001"]) == 2


async def _paused(servers: Servers) -> None:
    servers.stack.redis.pause()


async def _resumed(servers: Servers) -> None:
    servers.stack.redis.resume()


async def test_redis_gone_while_the_phone_rings_the_dial_is_answered_and_journaled_all_the_same(servers: Servers) -> None:
    async with _running(servers, "worker", "console") as here:

        async def play(_: web.Request) -> web.StreamResponse:
            await servers.stack.redis.kill()
            return web.Response(text="{RequestID:70001}")

        here.dialing.plays["1001"] = play
        status, told = await _dial(here, "gone-1")
        await servers.stack.redis.start()
        assert (status, told["request_id"]) == (201, 70001)
        found = await here.detail("acme/70001", status="ringing")
        assert found["record"]["reference"] == "crm-42"


async def test_a_request_that_could_not_be_counted_releases_its_key(servers: Servers) -> None:
    async with _running(servers, "console") as here, redis_of(servers) as redis:
        minute = int(time.time()) // 60
        counters = [f"callfold:dial:rate:{hashlib.sha256(KEY.encode()).hexdigest()[:12]}:{minute + n}" for n in range(5)]
        for name in counters:
            await redis.rpush(name, "no number")
        answers = await asyncio.gather(*(_dial(here, "count-1") for _ in range(20)))
        assert {told["dial_state"] for _, told in answers} == {"refused"}
        assert {status for status, _ in answers} <= {503, 409}
        await redis.delete(*counters)
        answers = await asyncio.gather(*(_dial(here, "count-1") for _ in range(20)))
        assert answers == [answers[0]] * 20
        assert answers[0][0] == 201
    assert len(here.dialing.asked["1001"]) == 1


async def test_a_refusal_that_redis_could_not_be_told_releases_its_key_when_redis_is_back(servers: Servers) -> None:
    async with _running(servers, "console") as here:

        async def play(_: web.Request) -> web.StreamResponse:
            await servers.stack.redis.kill()
            return web.Response(status=404)

        here.dialing.plays["1001"] = play
        status, told = await _dial(here, "refused-1")
        assert (status, told["dial_state"]) == (502, "refused")
        del here.dialing.plays["1001"]
        await servers.stack.redis.start()

        async def noted() -> list[bytes | str]:
            async with redis_of(servers) as redis:
                return list(await redis.keys("callfold:dial:answer:*"))

        async def is_released() -> bool:
            return not await noted()

        await eventually(is_released)
        assert (await _dial(here, "refused-1"))[0] == 201
    assert len(here.dialing.asked["1001"]) == 2


async def test_a_repeat_that_redis_left_does_not_say_that_nothing_was_dialed(servers: Servers) -> None:
    async with _running(servers, "console") as here:
        is_rung, is_answered = asyncio.Event(), asyncio.Event()

        async def play(_: web.Request) -> web.StreamResponse:
            is_rung.set()
            await is_answered.wait()
            return web.Response(text="{RequestID:70003}")

        async def waits() -> bool:
            async with redis_of(servers) as redis:
                return bool((await redis.info("commandstats")).get("cmdstat_get", {}).get("calls", 0) > 2)

        here.dialing.plays["1001"] = play
        first = asyncio.create_task(_dial(here, "left-1"))
        await asyncio.wait_for(is_rung.wait(), LIMIT_S)
        async with redis_of(servers) as redis:
            await redis.config_resetstat()
        repeat = asyncio.create_task(_dial(here, "left-1"))
        await eventually(waits)
        await servers.stack.redis.kill()
        try:
            status, told = await repeat
            assert (status, told["dial_state"]) == (504, "unknown")
        finally:
            is_answered.set()
            await servers.stack.redis.start()
        assert (await first)[0] == 201


@pytest.mark.parametrize(("is_refused", "expected"), [(False, (201, "accepted")), (True, (409, "refused"))])
async def test_a_repeat_whose_key_is_gone_waits_for_the_answer_and_is_refused_only_where_nothing_was_dialed(
    servers: Servers, *, is_refused: bool, expected: tuple[int, str]
) -> None:
    # Without RabbitMQ, Redis alone knows the key.
    away = {} if is_refused else {"CALLFOLD_AMQP_URL": "amqp://guest:guest@127.0.0.1:1/"}
    async with _running(servers, "console", **away) as here, redis_of(servers) as redis:
        is_rung, is_answered = asyncio.Event(), asyncio.Event()

        async def play(_: web.Request) -> web.StreamResponse:
            is_rung.set()
            await is_answered.wait()
            return web.Response(text="{RequestID:70004}", status=404 if is_refused else 200)

        async def waits() -> bool:
            return bool((await redis.info("commandstats")).get("cmdstat_get", {}).get("calls", 0) > 2)

        here.dialing.plays["1001"] = play
        first = asyncio.create_task(_dial(here, "gone-2"))
        await asyncio.wait_for(is_rung.wait(), LIMIT_S)
        await redis.config_resetstat()
        repeat = asyncio.create_task(_dial(here, "gone-2"))
        await eventually(waits)
        if not is_refused:
            (name,) = await redis.keys("callfold:dial:answer:*")
            await redis.delete(name)  # as where it is evicted
            await redis.config_resetstat()
            await eventually(waits)
            assert not repeat.done()
        is_answered.set()
        answered = await repeat
        assert (answered[0], answered[1]["dial_state"]) == expected
        assert (await first)[0] == (502 if is_refused else 201)
    assert len(here.dialing.asked["1001"]) == 1


async def test_a_console_killed_after_the_answer_has_its_dial_journaled_by_another(servers: Servers) -> None:
    async with _running(servers, "worker", "console", CALLFOLD_DIAL_TIMEOUT_SECONDS=paced(3)) as here:
        patient = {"CALLFOLD_DIAL_TIMEOUT_SECONDS": f"{LIMIT_S:g}"}  # this dial is to be answered
        doomed = here.add_console("doomed", CALLFOLD_CRASH_AT="dial.kept", **patient)
        await doomed.start()
        await publisher_connected(doomed)  # it journals the key before it dials
        headers = AUTHORIZED | {"Idempotency-Key": here.idempotency_key("doomed-1")}
        with pytest.raises(aiohttp.ClientError):
            await here.ask("POST", "/dial", console="doomed", headers=headers, json=_WANTED)
        assert await exit_code(doomed) == -9
        (number,) = [here.dialing._next]
        found = await here.detail(f"acme/{number}", status="ringing")
        assert found["record"]["reference"] == "crm-42"
        status, told = await _dial(here, "doomed-1")
        assert (status, told["dial_state"]) == (504, "unknown")
        assert len(here.dialing.asked["1001"]) == 1


async def test_a_console_that_is_stopped_answers_the_dial_in_hand(servers: Servers) -> None:
    async with _running(servers, "console") as here:
        asked, go_on = asyncio.Event(), asyncio.Event()

        async def play(_: web.Request) -> web.StreamResponse:
            asked.set()
            await go_on.wait()
            return web.Response(text="{RequestID:70002}")

        async def is_stopping() -> bool:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", URL(here.console).port)
            except OSError:
                return True
            writer.close()
            return False

        here.dialing.plays["1001"] = play
        dialing = asyncio.create_task(_dial(here))
        await asyncio.wait_for(asked.wait(), LIMIT_S)
        stopping = asyncio.create_task(here.roles["console"].stop())
        await eventually(is_stopping)
        go_on.set()
        await stopping
        assert (await dialing)[0] == 201


async def test_the_command_line_dials_with_an_exit_code_for_what_is_known(servers: Servers) -> None:
    async with _running(servers, "worker", "console", CALLFOLD_DIALS_PER_MINUTE="1000") as here:
        settings = here.environment()
        options = ("dial", "--source", "acme", "--agent", "1001", "--number", "+4512345678")
        more = (
            "--reference",
            "crm-44",
            "--metadata",
            "a=b=c",
            "--metadata",
            "d=",
            "--idempotency-key",
            here.idempotency_key("cli-1"),
        )
        code, out, err = await callfold(*options, *more, **settings)
        assert (code, err) == (0, "")
        found = await here.detail(f"acme/{out.strip()}", status="ringing")
        assert (found["record"]["reference"], found["record"]["metadata"]["a"]) == ("crm-44", "b=c")
        again = await callfold(*options, *more, "--json", **settings)
        assert again == (0, f'{{"request_id":{out.strip()},"source":"acme","dial_state":"accepted"}}\n', "")
        assert len(here.dialing.asked["1001"]) == 1
        here.dialing.plays["1001"] = answering("no", status=403)
        code, out, err = await callfold(*options, **settings)
        assert (code, out, "status 403" in err) == (1, "", True)
        for wrong in (("--metadata", "x"), ("--queue-prefix", "a"), ("--reference", "r" * 257)):
            code, out, err = await callfold(*options, *wrong, **settings)
            assert (code, wrong[0].strip("-").replace("-", "_") in err.replace("-", "_")) == (2, True)
        assert (await callfold("dial", "--source", "acme", **settings))[0] == 2

        async def silent(_: web.Request) -> web.StreamResponse:
            await asyncio.Event().wait()
            raise AssertionError

        here.dialing.plays["1001"] = silent
        code, out, err = await callfold(*options, **settings | {"CALLFOLD_DIAL_TIMEOUT_SECONDS": "1"})
        assert (code, out, "may be ringing" in err) == (3, "", True)
