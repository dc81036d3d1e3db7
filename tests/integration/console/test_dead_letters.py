"""Dead letters whose confirmations or acks are lost, and readers that wait for each other."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from console.commands.dead_letters import drop, redrive
from console.dead_letters import turns
from console.dead_letters.listing import LookRequest, find
from console.dead_letters.queue import DeadLetterQueue, Filter
from console.dead_letters.redrive_or_drop import Settled, SettleRequest, settle
from shared.amqp.delivery import Delivery
from shared.amqp.publisher import Message, Publisher
from shared.config.settings import Settings
from shared.errors import BrokerUnavailableError
from shared.runtime.audit import Action
from tests.helpers.dead_letters import bury, left
from tests.helpers.pace import LIMIT_S
from tests.helpers.servers import Servers, eventually
from tests.helpers.settings import settings_here


@pytest.fixture
def settings(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(turns, "_LOCK_TIMEOUT_S", LIMIT_S)
    monkeypatch.setattr(turns, "_PATIENCE_S", LIMIT_S)
    return settings_here(monkeypatch, servers.environment())


@pytest.mark.parametrize(
    ("work", "refused"), [(redrive, "callbacks"), (redrive, ""), (drop, "")], ids=["put back", "redrive told", "drop told"]
)
async def test_a_letter_stays_where_the_broker_does_not_confirm_that_it_is_put_back_or_told_of(
    servers: Servers, settings: Settings, monkeypatch: pytest.MonkeyPatch, work: Callable[..., Awaitable[int]], refused: str
) -> None:
    publish = Publisher.publish

    async def refuse(publisher: Publisher, message: Message) -> None:
        if message.exchange == refused:
            raise BrokerUnavailableError(f"RabbitMQ refused {message.routing_key}")
        await publish(publisher, message)

    await bury(servers, "acme", "a=1", "unknown_source")
    with monkeypatch.context() as broken:
        broken.setattr(Publisher, "publish", refuse)
        with pytest.raises(ExceptionGroup):  # it ends the tasks that keep the connections
            await work(settings, DeadLetterQueue.CALLBACKS, Filter(), dry_run=False, as_json=False)

    async def back() -> bool:
        return await left(servers) == 1

    await eventually(back)
    assert len(await servers.take_all("callbacks.dead")) == 1


Cut = Callable[[Delivery], Awaitable[object]]


def _cut_at(monkeypatch: pytest.MonkeyPatch, number: int, cut: Cut) -> None:
    """Cut the connection before so many acks have been sent."""
    ack, acked = Delivery.ack, 0

    async def ack_or_cut(delivery: Delivery) -> None:
        nonlocal acked
        acked += 1
        if acked == number:
            await cut(delivery)
        await ack(delivery)

    monkeypatch.setattr(Delivery, "ack", ack_or_cut)


async def _close(delivery: Delivery) -> None:
    await delivery.channel.connection.close()


@pytest.mark.parametrize("how", ["closed", "killed"])
@pytest.mark.parametrize("number", [1, 3])
async def test_a_letter_whose_ack_was_lost_is_not_said_to_be_dropped(
    servers: Servers, settings: Settings, monkeypatch: pytest.MonkeyPatch, how: str, number: int
) -> None:
    async def kill(_: Delivery) -> None:
        await servers.stack.rabbitmq.kill()

    for letter in range(3):
        await bury(servers, "acme", f"a={letter}", "unknown_source")
    told: list[int] = []
    with monkeypatch.context() as broken:
        _cut_at(broken, number, _close if how == "closed" else kill)
        try:
            with pytest.raises(ExceptionGroup) as failed:
                await settle(
                    settings, DeadLetterQueue.CALLBACKS, Filter(), SettleRequest(Action.DROP, "tests"), progress=told.append
                )
        finally:
            if how == "killed":
                await servers.stack.rabbitmq.start()
    assert "RabbitMQ confirmed 0 of 3 as dropped" in str(failed.value.exceptions)
    assert told == []
    await find(settings, DeadLetterQueue.CALLBACKS, LookRequest(Filter(), 10))  # it waits for a broker that has just come up

    async def back() -> int:
        # RabbitMQ counts the letters of a queue whose leader is back a moment before it gives them out.
        with suppress(ExceptionGroup):
            found = (await find(settings, DeadLetterQueue.CALLBACKS, LookRequest(Filter(), 10))).count
            return found if found >= 4 - number else 0
        return 0

    async def dropped() -> Settled | None:
        # The stream of the audit comes back at a time of its own, and without its line nothing is dropped.
        with suppress(ExceptionGroup):
            return await settle(settings, DeadLetterQueue.CALLBACKS, Filter(), SettleRequest(Action.DROP, "tests"))
        return None

    count = await eventually(back)
    assert await eventually(dropped) == (count, 0, True)
    assert (await find(settings, DeadLetterQueue.CALLBACKS, LookRequest(Filter(), 10))).count == 0


async def test_a_letter_that_was_put_back_and_whose_ack_was_lost_is_redriven_twice_and_counted_once(
    servers: Servers, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for letter in range(3):
        await bury(servers, "acme", f"a={letter}", "unknown_source")
    order = SettleRequest(Action.REDRIVE, "tests")
    told: list[int] = []
    with monkeypatch.context() as broken:
        _cut_at(broken, 2, _close)
        with pytest.raises(ExceptionGroup) as failed:
            await settle(settings, DeadLetterQueue.CALLBACKS, Filter(), order, progress=told.append)
    assert "RabbitMQ confirmed 1 of 3 as redriven" in str(failed.value.exceptions)
    assert told == [1]

    async def both_back() -> bool:
        return await left(servers) == 2

    await eventually(both_back)
    assert await settle(settings, DeadLetterQueue.CALLBACKS, Filter(), order) == (2, 0, True)
    bodies = [message.body for message in await servers.take_all("callbacks.fold")]
    assert (len(bodies), len(set(bodies))) == (4, 3)


async def test_one_who_looks_for_long_is_waited_for_and_then_told_of(
    servers: Servers, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bury(servers, "acme", "a=1", "unknown_source")
    async with servers.queue("callbacks.dead") as queue:
        await queue.channel.declare_queue("callbacks.dead.turn", exclusive=True)
        with monkeypatch.context() as hasty:
            hasty.setattr(turns, "_LOCK_TIMEOUT_S", 0.5)
            with pytest.raises(ExceptionGroup) as told:  # it ends the tasks of the connections
                await find(settings, DeadLetterQueue.CALLBACKS, LookRequest(Filter(), 10))
        assert "Others are reading these dead letters" in str(told.value.exceptions)
        waiting = asyncio.create_task(find(settings, DeadLetterQueue.CALLBACKS, LookRequest(Filter(), 10)))
    assert (await waiting).count == 1
