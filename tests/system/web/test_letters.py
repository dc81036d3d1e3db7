"""Dead letters over HTTP: found by filter, put back, dropped, or only counted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from shared.clock import utc_now
from tests.helpers.console import AS_VIEWER, AUTHORIZED, KEY, VIEWER_KEY, World, world
from tests.helpers.dead_letters import bury, left
from tests.helpers.servers import VENDOR_LINES, Servers, callfold, eventually, next_events


@pytest_asyncio.fixture(scope="module")
async def here(shared_servers: Servers) -> AsyncIterator[World]:
    more = {"CALLFOLD_CONSOLE_KEY": KEY, "CALLFOLD_CONSOLE_VIEWER_KEYS": VIEWER_KEY}
    async with world(shared_servers, "[sources.acme]\n[sources.other]\n", "worker", "console", **more) as made:
        yield made


@pytest_asyncio.fixture(autouse=True)
async def _no_letters(here: World) -> None:
    await here.servers.take_all("callbacks.dead")


async def _letters(here: World, query: str = "", headers: dict[str, str] = AUTHORIZED) -> Any:  # noqa: ANN401
    status, told, _ = await here.get(f"/dead-letters{query}", headers=headers)
    assert status == 200, told
    return told


async def _act(here: World, **wanted: object) -> tuple[int, Any]:
    status, told, _ = await here.ask("POST", "/dead-letters", headers=AUTHORIZED, json=wanted)
    return status, told


async def test_letters_are_found_by_filter_masked_and_stay(here: World) -> None:
    await bury(here.servers, "acme", "a=1&token=hunter2", "invalid_callback", first_seen=utc_now())
    await bury(here.servers, "acme", "sectok=hunter2", "unknown_source")
    await bury(here.servers, "other", "a=3", "invalid_callback", first_seen="2020-01-01T00:00:00.000000Z")
    for query, expected in (
        ("", 3),
        ("?source=acme", 2),
        ("?reason=invalid_callback", 2),
        ("?reason=invalid_callback&since=7d", 1),
        ("?source=acme&reason=unknown_source", 1),
        ("?source=none", 0),
        ("?queue=recordings", 0),
    ):
        for headers in (AUTHORIZED, AS_VIEWER):
            told = await _letters(here, query, headers)
            assert (told["found"], len(told["letters"])) == (expected, expected), query
            assert "hunter2" not in str(told)
    told = await _letters(here, "?limit=2")
    assert (told["found"], len(told["letters"])) == (3, 2)
    await eventually(lambda: _are_left(here, 3))


async def _are_left(here: World, count: int) -> bool:
    return await left(here.servers) == count


async def test_a_redriven_letter_is_folded_and_a_dry_run_touches_nothing(here: World) -> None:
    for line in VENDOR_LINES:
        await bury(here.servers, "acme", line, "invalid_callback")
    await bury(here.servers, "other", "a=3", "unknown_source")
    ids = [letter["id"] for letter in (await _letters(here, "?source=acme"))["letters"]]
    assert await _act(here, action="redrive", ids=ids, dry_run=True) == (
        200,
        {"action": "redrive", "dry_run": True, "letters": 4, "spared": 0},
    )
    await eventually(lambda: _are_left(here, 5))
    async with here.servers.subscribed("call.completed.acme.*") as queue:
        assert (await _act(here, action="redrive", ids=ids))[1]["letters"] == 4
        (event,) = await next_events(queue, 1)
    assert event.body["data"]["request_id"] == 513
    assert (await _letters(here))["found"] == 1
    assert (await _act(here, action="redrive", ids=ids))[1]["letters"] == 0


async def test_a_dropped_letter_is_gone(here: World) -> None:
    await bury(here.servers, "acme", "a=1", "invalid_callback")
    await bury(here.servers, "other", "a=3", "unknown_source")
    (letter,) = (await _letters(here, "?source=acme"))["letters"]
    assert (await _act(here, action="drop", ids=[letter["id"]], dry_run=True))[1]["letters"] == 1
    done = {"action": "drop", "dry_run": False, "letters": 1, "spared": 0}
    assert await _act(here, action="drop", ids=[letter["id"]]) == (200, done)
    assert [each["sources"] for each in (await _letters(here))["letters"]] == [["other"]]


@pytest.mark.parametrize(
    ("wanted", "parameter"),
    [
        ({"action": "burn", "ids": ["abcd"]}, "action"),
        ({"action": "drop"}, "ids"),
        ({"action": "drop", "ids": []}, "ids"),
        ({"action": "drop", "ids": [""]}, "ids.0"),
        ({"action": "drop", "ids": ["abcd"], "queue": "fold"}, "queue"),
        ({"action": "drop", "ids": ["abcd"], "all": True}, "all"),
    ],
)
async def test_a_wrong_action_is_named(here: World, wanted: dict[str, object], parameter: str) -> None:
    status, told = await _act(here, **wanted)
    assert (status, told["parameter"]) == (400, parameter)


@pytest.mark.parametrize(
    ("query", "parameter"),
    [("?queue=x", "queue"), ("?since=soon", "since"), ("?limit=501", "limit"), ("?source=a&source=b", "source"), ("?x=1", "x")],
)
async def test_a_wrong_filter_is_named(here: World, query: str, parameter: str) -> None:
    status, told, _ = await here.get(f"/dead-letters{query}", headers=AUTHORIZED)
    assert (status, told["parameter"]) == (400, parameter)


async def test_what_is_posted_must_be_json(here: World) -> None:
    headers = AUTHORIZED | {"Content-Type": "text/plain"}
    body = b'{"action":"drop","ids":["abcd"]}'
    status, told, _ = await here.ask("POST", "/dead-letters", headers=headers, data=body)
    assert (status, told["parameter"]) == (415, "Content-Type")


async def test_what_came_for_a_call_that_has_left_redis_is_not_put_back(here: World) -> None:
    await bury(here.servers, "acme", "a=1", "expired_call", first_seen=utc_now())
    (letter,) = (await _letters(here))["letters"]
    for is_dry in (True, False):
        _, told = await _act(here, action="redrive", ids=[letter["id"]], dry_run=is_dry)
        assert (told["letters"], told["spared"]) == (0, 1)
    await eventually(lambda: _are_left(here, 1))
    assert (await _act(here, action="drop", ids=[letter["id"]]))[1]["letters"] == 1


async def test_a_callback_older_than_redis_remembers_is_put_back_by_force_only(here: World) -> None:
    await bury(here.servers, "acme", "a=1", "invalid_callback", first_seen="2020-01-01T00:00:00.000000Z")
    (letter,) = (await _letters(here))["letters"]
    _, told = await _act(here, action="redrive", ids=[letter["id"]])
    assert told["letters"] == 0
    assert (await callfold("dead-letters", "redrive", **here.environment()))[1] == "0 redriven\n"
    assert (await callfold("dead-letters", "redrive", "--force", "--dry-run", **here.environment()))[1] == "1 would be redriven\n"
