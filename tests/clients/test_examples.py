"""The examples of the documentation, as a reader would run them: with Node and amqplib alone, and with curl."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aio_pika
import pytest

from tests.helpers.console import KEY, World, world
from tests.helpers.node import CLIENT
from tests.helpers.pace import LIMIT_S
from tests.helpers.servers import ROOT, VENDOR_LINES, Servers, eventually, lines_of

_QUEUE = "example.node.calls"
_SOURCES = "[sources.acme]\n"


@pytest.fixture
async def here(servers: Servers) -> AsyncIterator[World]:
    async with world(servers, _SOURCES, "ingress", "worker", "console", CALLFOLD_CONSOLE_KEY=KEY) as made:
        yield made
    async with await aio_pika.connect(servers.stack.amqp_url, timeout=LIMIT_S) as connection:
        channel = await connection.channel()
        for name in (_QUEUE, f"{_QUEUE}.dead"):
            await channel.queue_delete(name)
        await channel.exchange_delete(f"{_QUEUE}.dead")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder as a reader has it: with the example, and amqplib from npm."""
    (tmp_path / "consumer.mjs").write_bytes((ROOT / "docs" / "examples" / "consumer.mjs").read_bytes())
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules" / "amqplib").symlink_to(CLIENT / "node_modules" / "amqplib")
    return tmp_path


@asynccontextmanager
async def _started(*command: str, cwd: Path, **variables: str) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(
        *command, cwd=cwd, env=os.environ | variables, stdout=PIPE, stderr=PIPE, start_new_session=True
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.communicate()


async def _line(process: Process) -> str:
    assert process.stdout
    return (await asyncio.wait_for(process.stdout.readline(), LIMIT_S)).decode().rstrip("\n")


async def test_the_example_for_node_handles_each_call_once_and_stops_in_order(here: World, folder: Path) -> None:
    url = here.servers.stack.amqp_url
    async with _started("node", "consumer.mjs", cwd=folder, AMQP_URL=url) as process:
        assert "waiting" in await _line(process)
        await here.call_back([*VENDOR_LINES, *VENDOR_LINES, *lines_of(514)])
        handled = {(await _line(process)).split()[0] for _ in range(2)}
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), LIMIT_S) == 0
    assert handled == {"acme/513/1", "acme/514/1"}
    with (folder / "calls.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"id": "acme/5')  # as a crash in the middle of a write leaves it
    for line in (folder / "calls.jsonl").read_text("utf-8").splitlines()[:1]:
        await _publish_again(here.servers, json.loads(line))
    async with _started("node", "consumer.mjs", "--limit", "1", cwd=folder, AMQP_URL=url) as process:
        await here.call_back(lines_of(515))
        out, _ = await asyncio.wait_for(process.communicate(), LIMIT_S)
        assert process.returncode == 0
    assert [line.split()[0] for line in out.decode().splitlines() if "waiting" not in line] == ["acme/515/1"]
    rows = [json.loads(line) for line in (folder / "calls.jsonl").read_text("utf-8").splitlines()]
    assert sorted(row["id"] for row in rows) == ["acme/513/1", "acme/514/1", "acme/515/1"]
    async with here.servers.queue(_QUEUE) as queue:
        assert await queue.get(fail=False, timeout=LIMIT_S) is None


async def _publish_again(servers: Servers, row: dict[str, object]) -> None:
    """Deliver an event that was handled, as after a lost ack."""
    source, _, subject = str(row["call"]).partition("/")
    event = {"id": row["id"], "subject": subject, "data": {"source": source, "revision": row["revision"]}}
    async with await aio_pika.connect(servers.stack.amqp_url, timeout=LIMIT_S) as connection:
        message = aio_pika.Message(json.dumps(event).encode(), delivery_mode=2)
        await (await connection.channel()).default_exchange.publish(message, _QUEUE)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (("guest:guest", "guest:hunter2"), "RabbitMQ refused the user or password of AMQP_URL."),
        (("127.0.0.1", "127.0.0.2:1/#"), "RabbitMQ cannot be reached (ECONNREFUSED). Check AMQP_URL."),
    ],
)
async def test_the_example_for_node_shows_in_a_sentence_why_it_cannot_start(
    rabbitmq_only: Servers, folder: Path, change: tuple[str, str], text: str
) -> None:
    url = rabbitmq_only.stack.amqp_url.replace(*change)
    async with _started("node", "consumer.mjs", cwd=folder, AMQP_URL=url) as process:
        _, err = await asyncio.wait_for(process.communicate(), LIMIT_S)
    assert (process.returncode, err.decode()) == (1, f"{text}\n")


async def test_the_example_for_curl_continues_after_the_last_event(here: World, tmp_path: Path) -> None:
    variables = {"CALLFOLD_CONSOLE": here.console, "CALLFOLD_CONSOLE_KEY": KEY}
    script = str(ROOT / "docs" / "examples" / "events.sh")
    numbers = itertools.count(600)
    async with _started("sh", script, cwd=tmp_path, **variables) as process:
        first = asyncio.create_task(_line(process))
        while not first.done():  # it begins with what is published once it is connected
            await here.call_back(lines_of(next(numbers)))
            await asyncio.wait([first], timeout=1)
        await eventually(lambda: _exists(tmp_path / "events.position"))
        os.killpg(process.pid, signal.SIGKILL)
        out, _ = await process.communicate()
    before = [json.loads(line)["id"] for line in [await first, *out.decode().splitlines()]]
    last = next(numbers)
    await here.call_back(lines_of(last))
    after: list[str] = []
    async with _started("sh", script, cwd=tmp_path, **variables) as process:
        while f"acme/{last}/1" not in after:
            after.append(json.loads(await _line(process))["id"])
    begin = int(before[0].split("/")[1])
    assert list(dict.fromkeys(before + after)) == [f"acme/{number}/1" for number in range(begin, last + 1)]
    assert len(before + after) <= last - begin + 2  # the last one before the interruption may come again


async def _exists(path: Path) -> bool:
    return path.exists()
