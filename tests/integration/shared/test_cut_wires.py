"""A connection that is reset or closed, whatever was on its way: an outage to the doors, on the event loop of the processes."""

from __future__ import annotations

import asyncio
import itertools
import random
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import uvloop
from aiormq import Connection as Amqp
from pamqp.base import Frame
from redis.asyncio import Connection

from shared.amqp import connection
from shared.amqp.connection import BrokerAddress
from shared.amqp.consumer import Consumer
from shared.amqp.publisher import Message, Publisher
from shared.amqp.topology import CALLBACKS, CALLBACKS_FOLD, topology
from shared.errors import BrokerUnavailableError, StoreUnavailableError
from shared.runtime.process import background
from shared.state.store import Store
from tests.helpers.certificates import Authority
from tests.helpers.cut_wire import CutWire, cut_wire, tls_in_front
from tests.helpers.pace import LIMIT_S
from tests.helpers.servers import RETRY_S, Servers, eventually


async def test_redis_whose_connection_closed_under_a_write_is_away(redis_only: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    """uvloop answers such a write with a `RuntimeError`, which redis-py passes on."""
    write = Connection._send_packed_command

    async def cut_first(connection: Connection, command: list[bytes]) -> None:
        assert connection._writer
        connection._writer.transport.abort()
        await asyncio.sleep(0)  # now it is closed
        await write(connection, command)

    async def ask() -> None:
        store = Store(redis_only.stack.redis_url)
        try:
            with monkeypatch.context() as patched:
                patched.setattr(Connection, "_send_packed_command", cut_first)
                with pytest.raises(StoreUnavailableError, match="the connection was lost before a command was written"):
                    await store.check()
            await store.check()
        finally:
            await store.aclose()

    await asyncio.to_thread(uvloop.run, ask())


@pytest.mark.parametrize("has_tls", [False, True])
async def test_redis_cut_off_at_any_byte_is_away(redis_only: Servers, tmp_path: Path, *, has_tls: bool) -> None:
    scheme, options, most, rounds = ("rediss", "?ssl_cert_reqs=none", 4000, 100) if has_tls else ("redis", "", 400, 400)

    async def ask(port: int) -> None:
        store = Store(f"{scheme}://127.0.0.1:{port}/0{options}")
        try:
            for _ in range(rounds):
                try:
                    await store.check()
                    await store.now()
                    await store.watermarks.open_round(pause_s=0)
                except StoreUnavailableError:
                    continue
        finally:
            await store.aclose()

    async with _wire(redis_only.stack.redis_url, most, tmp_path if has_tls else None) as wire:
        await asyncio.to_thread(uvloop.run, ask(wire.port))
    assert wire.cut > rounds // 4


async def test_rabbitmq_whose_connection_closed_before_a_channel_opens_is_away(
    rabbitmq_only: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library answers with a bare `RuntimeError`."""
    open_channel = Amqp.channel

    async def cut_first(connection: Amqp, *arguments: object, **options: object) -> object:
        if next(openings) < 4:
            await connection.close(ConnectionResetError("cut"))
        return await open_channel(connection, *arguments, **options)  # type: ignore[arg-type]

    openings = itertools.count()
    monkeypatch.setattr(Amqp, "channel", cut_first)
    await _links_come_up(rabbitmq_only, monkeypatch)
    assert next(openings) > 4


async def test_rabbitmq_whose_connection_closed_in_the_handshake_is_away(
    rabbitmq_only: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """uvloop answers a write to it with a bare `RuntimeError`, which the library passes on."""
    request = Amqp._rpc

    async def cut_first(frame: Frame, writer: asyncio.StreamWriter, *arguments: object, **options: object) -> object:
        if next(requests) < 4:
            writer.transport.abort()
            await asyncio.sleep(0)  # now it is closed
        return await request(frame, writer, *arguments, **options)  # type: ignore[arg-type]

    requests = itertools.count()
    monkeypatch.setattr(Amqp, "_rpc", staticmethod(cut_first))
    await _links_come_up(rabbitmq_only, monkeypatch)
    assert next(requests) > 4


async def _links_come_up(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connect both links, on the event loop of the processes."""
    monkeypatch.setattr(connection, "BACKOFF_S", (0.01,))

    async def connect() -> None:
        address = BrokerAddress((servers.stack.amqp_url,), topology(RETRY_S), "tests")
        publisher, consumer = Publisher(address, timeout_s=LIMIT_S), Consumer(address, CALLBACKS_FOLD, prefetch=10)
        async with background(publisher.run(), consumer.run()), asyncio.timeout(LIMIT_S):
            await publisher.wait_until_up()
            await consumer.wait_until_up()

    await asyncio.to_thread(uvloop.run, connect())


@pytest.mark.parametrize("has_tls", [False, pytest.param(True, marks=pytest.mark.volume)])
async def test_rabbitmq_cut_off_at_any_byte_is_away_and_both_links_come_back(
    rabbitmq_only: Servers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, has_tls: bool
) -> None:
    monkeypatch.setattr(connection, "BACKOFF_S", (0.01,))
    scheme, options, most = ("amqps", "?no_verify_ssl=1", 16_000) if has_tls else ("amqp", "", 12_000)

    async def use(wire: CutWire) -> None:
        address = BrokerAddress((f"{scheme}://guest:guest@127.0.0.1:{wire.port}/{options}",), topology(RETRY_S), "tests")
        publisher, consumer = Publisher(address, timeout_s=LIMIT_S), Consumer(address, CALLBACKS_FOLD, prefetch=10)

        async def publish() -> None:
            while True:
                try:
                    await publisher.wait_until_up()
                    await publisher.count_consumers(CALLBACKS_FOLD)
                    await publisher.publish(*(Message(CALLBACKS, "", b"x" * 2000, uuid.uuid4().hex) for _ in range(5)))
                except BrokerUnavailableError:
                    await asyncio.sleep(0.01)

        async def consume() -> None:
            while True:
                await (await consumer.get()).ack()

        async def was_cut() -> bool:
            return wire.cut > 200

        async def were_up() -> bool:
            return publisher.sessions > 1 and consumer.sessions > 1

        async with background(publisher.run(), consumer.run(), publish(), consume()):
            await eventually(was_cut)
            await eventually(were_up)

    async with _wire(rabbitmq_only.stack.amqp_url, most, tmp_path if has_tls else None) as wire:
        await asyncio.to_thread(uvloop.run, use(wire))


@asynccontextmanager
async def _wire(url: str, most: int, certificates: Path | None) -> AsyncIterator[CutWire]:
    """Cut connections to a server after at most so many bytes; with a directory for certificates, they have TLS."""
    port = urlsplit(url).port
    assert port
    async with AsyncExitStack() as stack:
        if certificates is not None:
            port = await stack.enter_async_context(tls_in_front(port, Authority(certificates).server()))
        yield await stack.enter_async_context(cut_wire(port, _budgets(most)))


def _budgets(most: int) -> Iterator[int]:
    """Deal the same budgets in every run: none, and between them short and long ones."""
    rng = random.Random(most)  # noqa: S311 - no secret
    for number in itertools.count():
        yield 0 if number % 2 else rng.randrange(1, most)
