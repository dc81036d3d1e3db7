"""Each example of the client's README runs as it is written; where it would run for ever, it gets a limit."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator
from pathlib import Path

import aio_pika
import orjson
import pytest
import pytest_asyncio
from aiohttp import web
from aiormq.exceptions import ChannelNotFoundEntity

from tests.helpers.history import recording_event
from tests.helpers.pace import LIMIT_S
from tests.helpers.servers import Servers, eventually
from tests.helpers.subscribers import Events, events_at

README = Path(__file__).parents[3] / "clients" / "python" / "README.md"
FIRST, SYNC, FILTERS, REPLAY, RECORDINGS = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
GUID = "923041af-adb5-a8ae-f29c-e60ea5e17448"
# A replay reads what other tests published too.
pytestmark = pytest.mark.foreign_events
QUEUES = ("billing.calls", "speech.recordings")
AUDIO = b"RIFF" * 100


@pytest_asyncio.fixture
async def events(rabbitmq_only: Servers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[Events]:
    monkeypatch.setenv("AMQP_URL", rabbitmq_only.stack.amqp_url)
    monkeypatch.chdir(tmp_path)
    async with events_at(rabbitmq_only.stack.amqp_url) as made:
        yield made
        for queue in QUEUES:
            for name in (queue, f"{queue}.dead"):
                await made.channel.queue_delete(name)
            await made.channel.exchange_delete(f"{queue}.dead")


async def _run(example: str, events: Events, queue: str, publish: list[tuple[str, bytes]]) -> None:
    """Run an example in a thread. Publish once its queue is there, and again until it ends, since the binding comes a moment later."""

    async def is_declared() -> bool:
        async with await aio_pika.connect(events.url, timeout=LIMIT_S) as connection:
            try:
                await (await connection.channel()).declare_queue(queue, passive=True)
            except ChannelNotFoundEntity:
                return False
            return True

    def execute() -> None:
        exec(compile(example, str(README), "exec"), {})  # noqa: S102 - this is the test

    running = asyncio.create_task(asyncio.to_thread(execute))
    await eventually(is_declared)
    async with asyncio.timeout(LIMIT_S):
        while not running.done():
            for key, body in publish:
                await events.exchange.publish(aio_pika.Message(body), key)
            await asyncio.wait([running], timeout=0.2)
        await running


@pytest.mark.parametrize("example", [FIRST, SYNC], ids=["async", "sync"])
async def test_the_first_examples_print_what_is_published(
    events: Events, example: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert 'filter="call.#")' in FIRST
    assert "limit=10" in SYNC
    limited = example.replace('filter="call.#")', 'filter="call.#", limit=2)').replace("limit=10", "limit=2")
    async with asyncio.TaskGroup() as group:
        group.create_task(_run(limited, events, "billing.calls", []))
        await eventually(lambda: _is_bound(events))
        await events.publish(1, 2)
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == events.ids


async def _is_bound(events: Events) -> bool:
    """Publish to nobody until somebody listens: the routing key of a probe reaches the queue once it is bound."""
    probe = aio_pika.Message(b"probe")
    async with await aio_pika.connect(events.url, timeout=LIMIT_S) as connection:
        channel = await connection.channel()
        try:
            queue = await channel.declare_queue("billing.calls.dead", passive=True)
        except ChannelNotFoundEntity:
            return False
        await (await channel.get_exchange("calls")).publish(probe, f"call.completed.{events.source}.probe")
        return await queue.get(fail=False, timeout=LIMIT_S) is not None


def test_the_filters_are_read_and_match() -> None:
    exec(compile(FILTERS, str(README), "exec"), {})  # noqa: S102 - this is the test


async def test_the_replay_prints_what_was_published_before(events: Events, capsys: pytest.CaptureFixture[str]) -> None:
    assert 'queue="billing.calls", replay_since=timedelta(days=2)' in REPLAY
    own = REPLAY.replace('queue="billing.calls"', f'queue="billing.calls", filter="{events.pattern}"').replace(
        "limit=10", "limit=3"
    )
    await events.publish(1, 2, 3)
    await _run(own, events, "billing.calls", [])
    assert capsys.readouterr().out.split() == events.ids


async def test_a_recording_is_fetched_from_the_console(
    events: Events, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    async def answer(request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == "Bearer viewer-key"
        return web.Response(body=AUDIO)

    app = web.Application()
    app.router.add_get(f"/recordings/acme/{GUID}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    monkeypatch.setenv("CONSOLE_URL", f"http://127.0.0.1:{runner.addresses[0][1]}")
    monkeypatch.setenv("CONSOLE_KEY", "viewer-key")
    sha256 = hashlib.sha256(AUDIO).hexdigest()
    body = orjson.dumps(recording_event(513, "stored", name=GUID, bytes=len(AUDIO), sha256=sha256, seconds=1.0))
    try:
        await _run(RECORDINGS, events, "speech.recordings", [("recording.stored.acme", body)])
    finally:
        await runner.cleanup()
    assert (tmp_path / "17.wav").read_bytes() == AUDIO
    assert capsys.readouterr().out == f"acme/513/recording/{GUID}/stored 17.wav 1.0\n"
