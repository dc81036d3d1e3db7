"""PublishedEvent events as server-sent events: none lost, none twice, whoever restarts, however slow a reader is."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import signal
import sqlite3
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import aio_pika
import aiohttp
import orjson
import pytest
import pytest_asyncio

from console.live.feed import Feed, PublishedEvent
from shared.runtime.process import background
from shared.streams.journal import journal_until_now
from tests.helpers.console import AUTHORIZED, KEY, Sent, World, read_events, world
from tests.helpers.pace import LIMIT_S
from tests.helpers.servers import CALLFOLD, ROOT, Servers, callfold, eventually, lines_of
from tests.helpers.settings import settings_here

_SOURCE = f"e{uuid.uuid4().hex[:10]}"


_NUMBERS = itertools.count(61_000)


@pytest_asyncio.fixture(scope="module")
async def here(shared_servers: Servers) -> AsyncIterator[World]:
    # Whatever would keep a console from stopping is found: nothing else ends in so long a time.
    more = {"CALLFOLD_CONSOLE_KEY": KEY, "CALLFOLD_SHUTDOWN_TIMEOUT_SECONDS": f"{3 * LIMIT_S:g}"}
    async with world(shared_servers, f"[sources.{_SOURCE}]\n", "ingress", "worker", "console", **more) as made:
        yield made


async def _calls(here: World, count: int = 1) -> list[str]:
    """Have some calls completed; returns the ids of their events."""
    numbers = [next(_NUMBERS) for _ in range(count)]
    for number in numbers:
        await here.call_back([line.replace("IsCallRecorded=1", "IsCallRecorded=") for line in lines_of(number)], _SOURCE)
    return [f"{_SOURCE}/{number}/1" for number in numbers]


@asynccontextmanager
async def _watching(here: World, query: str = "", *, console: str = "console", **headers: str) -> AsyncIterator[list[Sent]]:
    """Follow the stream as a browser does, with Last-Event-ID on each new connection; yields what has come."""
    seen: list[Sent] = []
    connected = asyncio.Event()

    async def follow() -> None:
        last: dict[str, str] = {}
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None, sock_connect=LIMIT_S)) as session:
            while True:
                with suppress(aiohttp.ClientError):
                    sent = AUTHORIZED | headers | last
                    async with session.get(f"{here.consoles[console]}/events{query}", headers=sent) as response:
                        assert (response.status, response.content_type) == (200, "text/event-stream")
                        connected.set()
                        async for event in read_events(response):
                            seen.append(event)
                            last = {"Last-Event-ID": str(event.id)}
                await asyncio.sleep(0.1)

    task = asyncio.create_task(follow())
    try:
        await asyncio.wait_for(connected.wait(), LIMIT_S)
        yield seen
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def _completed(seen: list[Sent]) -> list[str]:
    return [event.data["id"] for event in seen if event.event.startswith(f"call.completed.{_SOURCE}.")]


async def _has(seen: list[Sent], ids: list[str]) -> bool:
    return set(ids) <= set(_completed(seen))


async def _published(here: World, count: int) -> tuple[list[str], list[Sent]]:
    """Have calls completed while somebody watches."""
    async with _watching(here, f"?topic=call.completed.{_SOURCE}.*") as seen:
        ids = await _calls(here, count)
        await eventually(lambda: _has(seen, ids))
    return ids, seen


async def test_an_event_comes_as_it_was_published(here: World) -> None:
    ids, (event,) = await _published(here, 1)
    assert (event.event, event.data["id"], event.data["specversion"]) == (f"call.completed.{_SOURCE}.answered", ids[0], "1.0")
    assert event.data["data"]["outcome"] == "answered"


async def test_only_what_the_topic_names_comes(here: World) -> None:
    async with (
        _watching(here, "?topic=call.%23.answered") as answered,
        _watching(here, "?topic=call.*.answered") as too_short,
        _watching(here, "?topic=call.completed.other.%23") as elsewhere,
    ):
        ids = await _calls(here)
        await eventually(lambda: _has(answered, ids))
        async with await aio_pika.connect(here.servers.stack.amqp_url, timeout=LIMIT_S) as connection:
            calls = await (await connection.channel()).get_exchange("calls")
            last = orjson.dumps(dict(answered[0].data) | {"id": "last"})
            for key in ("call.short.answered", "call.completed.other.answered"):
                await calls.publish(aio_pika.Message(last), key)
        await eventually(partial(_have_come, too_short, elsewhere))
    assert _completed(answered) == ids
    assert [event.data["id"] for event in (*too_short, *elsewhere)] == ["last", "last"]


async def _have_come(*readers: list[Sent]) -> bool:
    return all(readers)


async def test_a_new_reader_gets_what_is_to_come_only(here: World) -> None:
    await _published(here, 2)
    async with _watching(here) as seen:
        ids = await _calls(here)
        await eventually(lambda: _has(seen, ids))
    assert _completed(seen) == ids


async def test_a_reader_of_a_feed_that_is_behind_gets_all_of_what_is_to_come_and_only_that(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    older, _ = await _published(here, 2)
    settings = settings_here(monkeypatch, here.environment())
    feed = Feed(settings)
    async with background(feed.consumer.run()):
        end = await feed.end()  # though the feed has read nothing yet
        wanted, _ = await _published(here, 2)
        async with background(feed.run()), aclosing(feed.events(end)) as events:
            async with asyncio.timeout(LIMIT_S):
                got = [orjson.loads((await _next(events)).body)["id"] for _ in wanted]

            async def has_read() -> bool:
                return {orjson.loads(event.body)["id"] for event in feed.recent()} >= {*older, *wanted}

            await eventually(has_read)
    assert sorted(got) == sorted(wanted)


async def test_who_leaves_while_the_journal_is_read_is_gone(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await _published(here, 20)
    settings = settings_here(monkeypatch, here.environment())
    for _ in range(30):
        begun = asyncio.Event()

        async def read_on(begun: asyncio.Event = begun) -> None:
            while True:
                async with journal_until_now(settings, "first", stream="calls.journal") as deliveries:
                    async for _ in deliveries:
                        begun.set()

        reader = asyncio.create_task(read_on())
        await asyncio.wait_for(begun.wait(), LIMIT_S)
        reader.cancel()
        await asyncio.wait([reader], timeout=LIMIT_S)
        assert reader.cancelled()


async def _next(events: AsyncIterator[PublishedEvent | None]) -> PublishedEvent:
    while (event := await anext(events)) is None:
        pass
    return event


_FOREIGN = (
    b"1",
    b"{",
    b"[1]",
    b'{"id": 1}',
    b'{"id":"a","subject":"b","time":"c","type":"callfold.call.completed.v1","data":{}}',
)


async def test_what_others_publish_is_passed_over_and_takes_no_console_down(here: World) -> None:
    topic = f"call.completed.{_SOURCE}.answered"
    elsewhere = f"call.completed.{_SOURCE}.elsewhere"
    _, (event,) = await _published(here, 1)
    printed = orjson.dumps(dict(event.data) | {"id": "printed"}, option=orjson.OPT_INDENT_2)
    async with (
        await aio_pika.connect(here.servers.stack.amqp_url, timeout=LIMIT_S) as connection,
        _watching(here, f"?topic={topic}") as seen,
    ):
        channel = await connection.channel()
        calls, callbacks = await channel.get_exchange("calls"), await channel.get_exchange("callbacks")
        for key in (topic, elsewhere):
            for body in _FOREIGN:
                await calls.publish(aio_pika.Message(body), key)
                await callbacks.publish(aio_pika.Message(body), "")
            await calls.publish(aio_pika.Message(printed), key)
        (after,) = await _calls(here)
        await eventually(lambda: _has(seen, ["printed", after]))
    assert _completed(seen) == ["printed", after]
    status, page, _ = await here.get("/", headers=AUTHORIZED)
    assert (status, b"<!doctype html>" in page.lower()) == (200, True)
    code, out, _ = await callfold("tail", elsewhere, "--since", "1h", "--limit", "1", "--json", **here.environment())
    assert (code, [orjson.loads(line)["id"] for line in out.splitlines()]) == (0, ["printed"])


async def test_last_event_id_goes_on_exactly_after_it(here: World) -> None:
    _, seen = await _published(here, 12)
    ids = _completed(seen)  # in the order in which they were published
    topic = f"?topic=call.completed.{_SOURCE}.*"
    for place in (0, 5, 10):
        async with _watching(here, topic, **{"Last-Event-ID": str(seen[place].id)}) as again:
            await eventually(partial(_has, again, ids[place + 1 :]))
        assert [event.id for event in again] == [event.id for event in seen[place + 1 :]]
    async with _watching(here, f"{topic}&after={seen[3].id}") as again:
        await eventually(lambda: _has(again, ids[4:]))
    assert again == seen[4:]


async def test_the_stream_goes_on_over_a_restart_of_the_console(here: World) -> None:
    async with _watching(here, f"?topic=call.completed.{_SOURCE}.*") as seen:
        ids = await _calls(here, 3)
        await eventually(lambda: _has(seen, ids))
        console = here.roles["console"]
        await console.stop()  # the stream does not hold it up
        ids += await _calls(here, 3)
        await console.start()
        ids += await _calls(here, 3)
        await eventually(lambda: _has(seen, ids))
    assert sorted(_completed(seen)) == sorted(ids)
    assert [event.id for event in seen] == sorted({event.id for event in seen})


async def test_what_is_older_than_memory_comes_out_of_the_journal(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    ids, seen = await _published(here, 5)
    await here.add_console("young", CALLFOLD_CONSOLE_KEY=KEY).start()
    async with _watching(here, "?topic=call.completed.%23", console="young", **{"Last-Event-ID": "0"}) as again:
        everything = await eventually(lambda: _all_of(again, ids))
    ours = [event for event in everything if event.data["id"] in ids]
    assert ours == seen
    assert [event.id for event in everything] == sorted({event.id for event in everything})


async def _all_of(seen: list[Sent], ids: list[str]) -> list[Sent] | None:
    return list(seen) if set(ids) <= {event.data["id"] for event in seen} else None


async def test_who_does_not_read_holds_up_nobody(here: World) -> None:
    port = int(here.console.rpartition(":")[2])
    lazy = []
    for _ in range(10):
        _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1)
        writer.write(f"GET /events?after=0 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n\r\n".encode())
        lazy.append(writer)
    async with _watching(here, f"?topic=call.completed.{_SOURCE}.*") as seen:
        ids = await _calls(here, 20)
        await eventually(lambda: _has(seen, ids))
        status, _, _ = await here.get("/calls?limit=1", headers=AUTHORIZED)
        assert status == 200
    for writer in lazy:
        writer.transport.abort()
    assert sorted(_completed(seen)) == sorted(ids)


async def test_rabbitmq_restarted_costs_a_reader_nothing(here: World) -> None:
    async with _watching(here, f"?topic=call.completed.{_SOURCE}.*") as seen:
        ids = await _calls(here, 3)
        await eventually(lambda: _has(seen, ids))
        await here.servers.stack.rabbitmq.stop()
        waiting = asyncio.create_task(_calls(here, 3))
        await here.servers.stack.rabbitmq.start()
        ids += await waiting
        ids += await _calls(here, 3)
        await eventually(lambda: _has(seen, ids))
    assert set(_completed(seen)) == set(ids)  # what is published again keeps its id
    assert [event.id for event in seen] == sorted({event.id for event in seen})


@pytest.mark.parametrize(
    ("query", "last", "parameter"),
    [
        ("?after=-1", "", "after"),
        ("?after=x", "", "after"),
        ("?after=1&after=2", "", "after"),
        ("?after=1" + "0" * 30, "", "after"),
        ("?since=yesterday", "", "since"),
        ("?where=talk_second+%3E+1", "", "where"),
        ("?where=" + "a" * 4097, "", "where"),
        ("?topic=" + "a" * 256, "", "topic"),
        ("", "x", "Last-Event-ID"),
        ("", "1" * 19, "Last-Event-ID"),
        ("", "-1", "Last-Event-ID"),
    ],
)
async def test_a_place_that_is_none_is_refused(here: World, query: str, last: str, parameter: str) -> None:
    headers = AUTHORIZED | ({"Last-Event-ID": last} if last else {})
    status, told, _ = await here.get(f"/events{query}", headers=headers)
    assert (status, told["parameter"]) == (400, parameter)


async def test_a_reader_can_filter_on_the_content_and_begin_some_time_ago(here: World) -> None:
    ids, _ = await _published(here, 2)
    topic = f"?topic=call.completed.{_SOURCE}.*&since=1h"
    async with _watching(here, f"{topic}&where=subject+%3D%3D+%27{ids[1].split('/')[1]}%27") as seen:
        await eventually(partial(_has, seen, ids[1:]))
    assert _completed(seen) == ids[1:]
    async with _watching(here, topic) as seen:
        await eventually(partial(_has, seen, ids))


async def test_a_reader_that_saw_no_event_goes_on_where_it_began(here: World) -> None:
    await _published(here, 1)
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{here.console}/events?topic=none", headers=AUTHORIZED) as response,
    ):
        begun = b""
        while not (position := re.search(rb"^id: (\d+)\n", begun, re.MULTILINE)):
            begun += await response.content.readany()
    ids, _ = await _published(here, 2)
    async with _watching(here, f"?topic=call.completed.{_SOURCE}.*", **{"Last-Event-ID": position[1].decode()}) as seen:
        await eventually(partial(_has, seen, ids))
    assert sorted(_completed(seen)) == sorted(ids)


def _readers(here: World) -> dict[str, list[str]]:
    """Return the commands of the two programs in docs/examples that need no AMQP."""
    examples, topic = ROOT / "docs" / "examples", f"call.completed.{_SOURCE}.*"
    return {
        "shell": ["sh", str(examples / "events.sh"), topic, "talk_seconds != 0.25"],
        "python": [sys.executable, str(examples / "events.py"), here.console, "calls.sqlite", "--topic", topic],
    }


@asynccontextmanager
async def _programs(here: World, directory: Path) -> AsyncIterator[None]:
    """Run both, and kill them at the end of the block. They and what they started are each a group of processes."""
    environment = os.environ | {"CALLFOLD_CONSOLE_KEY": KEY, "CALLFOLD_CONSOLE": here.console}
    running = []
    for name, command in _readers(here).items():
        with (directory / name).open("ab") as out:
            process = await asyncio.create_subprocess_exec(
                *command, env=environment, cwd=directory, stdout=out, stderr=asyncio.subprocess.DEVNULL, start_new_session=True
            )
            running.append(process)
    try:
        yield
    finally:
        for process in running:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


def _read(directory: Path, name: str) -> list[str]:
    lines = (directory / name).read_text().splitlines()
    return lines if name == "python" else [orjson.loads(line)["id"] for line in lines]


async def test_programs_in_shell_and_python_miss_no_event_whatever_is_restarted(here: World, tmp_path: Path) -> None:
    async def have_begun() -> bool:
        if not ((tmp_path / "events.position").exists() and (tmp_path / "calls.sqlite").exists()):
            return False
        with closing(sqlite3.connect(tmp_path / "calls.sqlite")) as database, suppress(sqlite3.OperationalError):
            return bool(database.execute("select id from position").fetchall())
        return False

    async def have_read(ids: list[str]) -> bool:
        return all(set(_read(tmp_path, name)) >= set(ids) for name in ("shell", "python"))

    console = here.roles["console"]
    async with _programs(here, tmp_path):
        await eventually(have_begun)
        await console.stop()
        ids = await _calls(here, 2)
        await console.start()
        await eventually(lambda: have_read(ids))
    ids += await _calls(here, 2)
    async with _programs(here, tmp_path):
        ids += await _calls(here, 2)
        await eventually(lambda: have_read(ids))
    assert sorted(_read(tmp_path, "python")) == sorted(ids)
    assert sorted(set(_read(tmp_path, "shell"))) == sorted(ids)
    with closing(sqlite3.connect(tmp_path / "calls.sqlite")) as database:
        stored = database.execute("select source || '/' || call || '/' || revision from calls").fetchall()
    assert sorted(name for (name,) in stored) == sorted(ids)


async def test_to_who_saw_a_place_that_the_journal_never_had_all_of_it_is_new(here: World) -> None:
    ids, _ = await _published(here, 2)
    async with _watching(here, f"?after=99999999&topic=call.completed.{_SOURCE}.*") as seen:
        await eventually(lambda: _has_all(seen, ids))


async def _has_all(seen: list[Sent], ids: list[str]) -> bool:
    return set(_completed(seen)) >= set(ids)


async def test_the_command_line_follows_the_same_events(here: World) -> None:
    await _published(here, 3)
    settings = here.environment()
    pattern = f"call.completed.{_SOURCE}.answered"
    code, out, _ = await callfold("tail", pattern, "--since", "1h", "--limit", "3", "--json", **settings)
    assert code == 0
    told: list[dict[str, Any]] = [json.loads(line) for line in out.splitlines()]
    assert len(told) == 3
    assert all(event["source"] == f"/callfold/{_SOURCE}" for event in told)
    process = await asyncio.create_subprocess_exec(*CALLFOLD, "tail", pattern, env=here.roles["console"].environment, stdout=-1)
    assert process.stdout is not None
    lines: list[bytes] = []
    try:
        async with asyncio.timeout(LIMIT_S):
            while not lines:
                await _calls(here)
                with suppress(TimeoutError):
                    lines.append(await asyncio.wait_for(process.stdout.readline(), 1))
    finally:
        process.terminate()
        await process.wait()
    assert pattern.encode() in lines[0]
    code, _, err = await callfold("tail", "--since", "yesterday", **settings)
    assert (code, "yesterday" in err) == (2, True)
