"""A source that sends one RequestID for all its calls: the calls of another source are published as before."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from pathlib import Path

import aio_pika
import pytest

from console.commands.doctor import CHECKS, run_check
from shared.clock import utc_now
from shared.config.settings import Settings
from shared.domain.ids import SourceName
from shared.domain.raw_event import CallbackEvent, encode, join
from shared.state.store import Store
from tests.helpers.attacks import ATTACK_S, assert_unharmed, measuring, undisturbed, within_bounds
from tests.helpers.servers import Servers, eventually, lines_of, next_events

_SOURCES = """
[sources.good]
[sources.constant]
"""
_GOOD_CALL_S = 2
_EVENTS_PER_MESSAGE = 200
_MESSAGES_PER_S = 10


def _sources(directory: Path) -> str:
    path = directory / "sources.toml"
    path.write_text(_SOURCES, "utf-8")
    return str(path)


def _body(source: str, lines: list[str]) -> bytes:
    return join(encode(CallbackEvent(SourceName(source), utc_now(), line)) for line in lines)


async def test_one_request_id_for_all_calls_of_a_source_delays_no_other(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = itertools.count(1000)
    environment = {"CALLFOLD_SOURCES": _sources(servers.directory)}
    async with (
        servers.fleet(**environment) as fleet,
        servers.subscribed("call.completed.good.#") as published,
        servers.queue("callbacks.fold") as queue,
    ):
        fleet.add("worker", "worker", {})
        await fleet.start_all()
        exchange = await queue.channel.get_exchange("callbacks")

        async def send(source: str, lines: list[str]) -> None:
            message = aio_pika.Message(_body(source, lines), message_id=uuid.uuid4().hex, delivery_mode=2)
            await exchange.publish(message, "")

        async def good() -> None:
            await send("good", lines_of(next(calls)))
            await next_events(published, 1)

        async def attack() -> int:
            """Send legs of one call at a rate that a worker folds easily: what matters is that they cost no more and more."""
            sent = 0
            for message in range(round(ATTACK_S * _MESSAGES_PER_S)):
                legs = range(message * _EVENTS_PER_MESSAGE + 1, (message + 1) * _EVENTS_PER_MESSAGE + 1)
                await send("constant", [f"CallType=Outgoing&Event=pickup&CallID={leg}&RequestID=7" for leg in legs])
                sent += len(legs)
                await asyncio.sleep(1 / _MESSAGES_PER_S)
            return sent

        before = await undisturbed(good)
        async with within_bounds(*fleet.processes), measuring(good) as during:
            sent = await attack()
        assert_unharmed(during, before, limit_s=_GOOD_CALL_S)

        store = Store(servers.stack.redis_url)

        async def refused() -> bool:
            return bool(await store.refused_legs.of([SourceName("constant")]))

        await eventually(refused)
        await store.aclose()
        assert sent > 0
    for name, value in servers.environment(**environment).items():
        monkeypatch.setenv(name, value)
    finding = await run_check("request ids", CHECKS["request ids"], Settings())
    assert not finding.ok
    assert "Source constant sends one RequestID for many calls: constant/7" in finding.detail
    assert "{{DialApiRequestID}}" in finding.detail
