"""Endpoints that hang, are slow, go away, ask to wait or answer 410, and queues that are full."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from datetime import UTC, datetime

import aio_pika
import orjson
import pytest

from console.commands.forward_replay import replay
from shared.amqp.publisher import Message, Publisher
from shared.amqp.server_check import check_server
from shared.amqp.topology import ENDPOINTS_JOURNAL, FORWARD_ORDER_JOURNAL, endpoint_topology, forward_queue, forward_retry_queue
from shared.config.endpoints import EndpointName
from shared.config.settings import load_settings
from shared.errors import leaf_errors
from shared.webhooks.attempts import Result
from shared.webhooks.endpoint_changes import ManagedEndpoints
from shared.webhooks.stream_follower import StreamFollower
from tests.helpers.forwarding import SECRET, attempts_of, events_of, forwarding, new_name, publish, revisions_of, table
from tests.helpers.history_process import publishing
from tests.helpers.pace import LIMIT_S, PACE
from tests.helpers.servers import Servers, eventually
from tests.helpers.webhook_receiver import WebhookReceiver, hang, status
from worker.forwarding import breaker
from worker.forwarding.call_order import CallOrder
from worker.forwarding.endpoint_runner import Common
from worker.forwarding.removal import remove

pytestmark = pytest.mark.volume


@pytest.fixture
def servers(rabbitmq_only: Servers) -> Servers:
    return rabbitmq_only


async def manage(publisher: Publisher, state: ManagedEndpoints) -> None:
    await publisher.publish_until_confirmed([Message("", ENDPOINTS_JOURNAL, state.encode(), f"state-{time.time_ns()}")])


async def waiting(servers: Servers, name: str) -> int:
    async with await aio_pika.connect(servers.stack.amqp_url, timeout=LIMIT_S) as connection:
        queue = await (await connection.channel()).declare_queue(forward_queue(name), passive=True)
        return queue.declaration_result.message_count or 0


async def test_an_endpoint_that_hangs_delays_no_other_one(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    slow, quick = new_name(), new_name()
    async with WebhookReceiver(then=hang) as hanging, WebhookReceiver() as receiver, publishing(servers) as publisher:
        both = table(slow, hanging, timeout_s=min(60, LIMIT_S)) + table(quick, receiver)
        async with forwarding(servers, monkeypatch, both, CALLFOLD_SHUTDOWN_TIMEOUT_SECONDS="1"):
            await publish(publisher, events_of(slow, 40))

            async def are_hanging() -> bool:
                return len(hanging.received) == 8

            await eventually(are_hanging)
            began = time.monotonic()
            await receiver.has(*await publish(publisher, events_of(quick, 100)))
            assert time.monotonic() - began < 10 * PACE
            assert len(hanging.received) == 8, "no more than max_in_flight"


async def test_an_endpoint_that_is_too_slow_is_a_failure_with_its_time_limit(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = new_name()
    async with WebhookReceiver() as receiver, publishing(servers) as publisher:
        (event,) = events_of(name, 1)
        receiver.answers = {str(event["id"]): [hang]}
        async with forwarding(servers, monkeypatch, table(name, receiver, timeout_s=0.3 * PACE)):
            await publish(publisher, [event])
            first, second = await attempts_of(servers, name, 2)
    assert (first.result, first.status, second.result) == (Result.RETRY, None, Result.DELIVERED)
    assert "no answer within" in str(first.error)


async def test_an_endpoint_that_answers_410_gets_nothing_until_it_is_enabled_and_loses_nothing(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = new_name()
    async with WebhookReceiver(then=status(410)) as receiver, publishing(servers) as publisher:
        ids = [str(event["id"]) for event in events_of(name, 5)]
        async with forwarding(servers, monkeypatch, table(name, receiver, max_in_flight=1)):
            await publish(publisher, events_of(name, 5))
            (record,) = await attempts_of(servers, name, 1)
            assert record.result is Result.DISABLED

            async def are_waiting() -> bool:
                return await waiting(servers, name) == 5

            await eventually(are_waiting)
        async with forwarding(servers, monkeypatch, ""):  # another forwarder, whose file lacks it
            pass
        asked = len(receiver.received)
        receiver.then = status(200)
        path = servers.directory / "endpoints.toml"
        async with forwarding(servers, monkeypatch, ""):
            path.write_text(table(name, receiver), "utf-8")
            await asyncio.sleep(3)
            assert len(receiver.received) == asked, "the mark holds for a forwarder that starts later"
            await manage(publisher, ManagedEndpoints(revision=1))
            await receiver.has(*ids)
            await eventually(lambda: _none_waits(servers, name))
    assert {*receiver.ids} == {*ids}


async def _none_waits(servers: Servers, name: str) -> bool:
    return await waiting(servers, name) == 0


async def test_endpoints_of_the_api_come_change_and_go_without_a_restart(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = new_name()
    async with WebhookReceiver() as first, WebhookReceiver() as second, publishing(servers) as publisher:
        given = {"url": first.url, "secret": SECRET, "filter": f"call.*.{name}.#"}
        async with forwarding(servers, monkeypatch, "", CALLFOLD_FORWARD_RETRY_SECONDS="2,3"):
            await manage(publisher, ManagedEndpoints(1, {name: given}))
            await eventually(lambda: _exists(servers, name))
            await first.has(*await publish(publisher, events_of(name, 2)))
            await manage(publisher, ManagedEndpoints(2, {name: {**given, "url": second.url}}))
            await asyncio.sleep(2)
            await second.has(*await publish(publisher, events_of(name, 2, first=10)))
            assert len(first.received) == 2
            second.then = status(500)
            lost = await publish(publisher, events_of(name, 1, first=20))
            await attempts_of(servers, name, 5)
            await manage(publisher, ManagedEndpoints(3, {}))
            await eventually(lambda: _is_gone(servers, name))
            (letter,) = await servers.take_all("forward.dead")
    assert orjson.loads(letter.body)["id"] == lost[0]
    assert (letter.headers["reason"], letter.headers["endpoint"]) == ("endpoint_removed", name)


async def test_a_retry_queue_that_was_deleted_is_declared_again_by_the_first_event_for_it(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = new_name()
    (event,) = events_of(name, 1)
    async with (
        WebhookReceiver(answers={str(event["id"]): [status(500)]}) as receiver,
        publishing(servers) as publisher,
        forwarding(servers, monkeypatch, table(name, receiver)),
    ):
        async with await aio_pika.connect(servers.stack.amqp_url, timeout=LIMIT_S) as connection:
            await (await connection.channel()).queue_delete(forward_retry_queue(name, 0.2))
        await receiver.has(*await publish(publisher, [event]))


async def test_a_name_that_is_added_again_while_its_queues_are_removed_keeps_them(servers: Servers) -> None:
    name, answers = new_name(), [True, False, False]
    patterns = [f"call.*.{name}.#"]
    asked: list[bool] = []

    async def is_removed() -> bool:
        asked.append(answers.pop(0))
        return asked[-1]

    async with publishing(servers) as publisher:
        declared = endpoint_topology(name, patterns, (2, 3))
        await check_server(replace(publisher.address, topology=declared))
        await publish(publisher, events_of(name, 1))
        order = CallOrder(time.time)
        follower = StreamFollower(publisher.address, FORWARD_ORDER_JOURNAL, order.apply, order.reset)
        common = Common(publisher.address, publisher, (2, 3), order, follower)
        await asyncio.wait_for(remove(EndpointName(name), patterns, common, asyncio.Event(), is_removed), LIMIT_S)
        assert asked == [True, False, False], "asked before it unbinds, and before it deletes"
        assert await waiting(servers, name) == 0, "the queue is there"
        answers += [True, True]
        await asyncio.wait_for(remove(EndpointName(name), patterns, common, asyncio.Event(), is_removed), LIMIT_S)
        assert await _is_gone(servers, name)
        (letter,) = await servers.take_all("forward.dead")
    assert letter.headers["endpoint"] == name


async def _is_gone(servers: Servers, name: str) -> bool:
    async with await aio_pika.connect(servers.stack.amqp_url, timeout=LIMIT_S) as connection:
        for queue in (forward_queue(name), forward_retry_queue(name, 2), forward_retry_queue(name, 3)):
            try:
                await (await connection.channel()).declare_queue(queue, passive=True)
            except aio_pika.exceptions.ChannelNotFoundEntity:
                continue
            return False
    return True


async def _exists(servers: Servers, name: str) -> bool:
    """Return whether the queue exists and is consumed. Then it is bound too."""
    async with await aio_pika.connect(servers.stack.amqp_url, timeout=LIMIT_S) as connection:
        try:
            queue = await (await connection.channel()).declare_queue(forward_queue(name), passive=True)
        except aio_pika.exceptions.ChannelNotFoundEntity:
            return False
        return bool(queue.declaration_result.consumer_count)


async def test_after_failures_in_a_row_events_wait_in_the_broker_and_all_arrive_once_it_works(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = new_name()
    monkeypatch.setattr(breaker.Breaker.__init__, "__kwdefaults__", {
        "failures": 5, "unanswered": 5, "probe_s": (1.0, 2.0), "clock": time.monotonic,
    })  # fmt: skip
    async with WebhookReceiver(then=status(500)) as receiver, publishing(servers) as publisher:
        crm = table(name, receiver, max_in_flight=2)
        async with forwarding(servers, monkeypatch, crm, CALLFOLD_FORWARD_RETRY_SECONDS="1,2,3,4,5,6,7,8,9"):
            ids = await publish(publisher, events_of(name, 50))

            async def is_open() -> bool:
                return len(receiver.received) >= 5 and await waiting(servers, name) >= 40

            await eventually(is_open)
            assert len(receiver.received) < 20
            receiver.then = status(204)
            await receiver.has(*ids)


async def test_429_and_503_wait_as_long_as_the_endpoint_asks(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    name = new_name()
    async with WebhookReceiver() as receiver, publishing(servers) as publisher:
        (event,) = events_of(name, 1)
        receiver.answers = {str(event["id"]): [status(429, retry_after="2"), status(503, retry_after="1")]}
        async with forwarding(servers, monkeypatch, table(name, receiver), CALLFOLD_FORWARD_RETRY_SECONDS="0.2,0.3,5"):
            await publish(publisher, [event])
            await attempts_of(servers, name, 3)
    first, second, third = (each.at for each in receiver.received)
    assert second - first >= 2
    assert third - second >= 1


async def test_a_full_queue_drops_its_oldest_event_into_the_dead_letters_and_publishing_goes_on(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.amqp.topology.FORWARD_QUEUE_BYTES", 8000)
    name = new_name()
    async with WebhookReceiver() as receiver, publishing(servers) as publisher:
        crm = table(name, receiver, max_in_flight=1)
        async with forwarding(servers, monkeypatch, crm):
            path = servers.directory / "endpoints.toml"
            path.write_text(crm + "enabled = false\n", "utf-8")

            async def is_paused() -> bool:
                return not await _exists(servers, name)

            await eventually(is_paused)
            ids = await publish(publisher, events_of(name, 30))

            async def are_dropped() -> bool:
                return await waiting(servers, name) < 20

            await eventually(are_dropped)
            await eventually(lambda: _both(servers, name, len(ids)))
            letters = await servers.take_all("forward.dead")
            deaths = [letter.headers["x-death"][0] for letter in letters]  # type: ignore[index]
            assert {(death["reason"], death["queue"]) for death in deaths} == {("maxlen", forward_queue(name))}  # type: ignore[index, call-overload]
            assert orjson.loads(letters[0].body)["id"] == ids[0]
            path.write_text(crm, "utf-8")
            await receiver.has(*ids[len(letters) :])


async def _both(servers: Servers, name: str, count: int) -> bool:
    async with servers.queue("forward.dead") as queue:
        dead = queue.declaration_result.message_count or 0
    return dead + await waiting(servers, name) == count


async def test_later_events_of_a_call_follow_when_the_earlier_one_is_a_dead_letter(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = new_name()
    async with WebhookReceiver() as receiver, publishing(servers) as publisher:
        revisions = revisions_of(name, 513, 3)
        ids = [str(event["id"]) for event in revisions]
        receiver.answers = {ids[0]: [status(422)] * 3}
        async with forwarding(servers, monkeypatch, table(name, receiver, order="call")):
            await publish(publisher, revisions)
            await receiver.has(*ids[1:])
            (letter,) = await servers.take_all("forward.dead")
    assert receiver.ids == [ids[0], ids[0], ids[0], ids[1], ids[2]]
    assert orjson.loads(letter.body)["id"] == ids[0]


async def test_two_forwarders_keep_the_order_of_a_call_when_one_stops(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    name = new_name()
    async with WebhookReceiver() as receiver, publishing(servers) as publisher:
        crm = table(name, receiver, order="call")
        revisions = revisions_of(name, 513, 6)
        receiver.answers = {str(revisions[0]["id"]): [status(500)]}
        more = {"CALLFOLD_FORWARD_RETRY_SECONDS": "3"}
        async with forwarding(servers, monkeypatch, crm, **more):
            async with forwarding(servers, monkeypatch, crm, **more):
                await publish(publisher, revisions[:3])
                await attempts_of(servers, name, 1)
            await publish(publisher, revisions[3:])
            await receiver.has(*(str(event["id"]) for event in revisions))
    once = list(dict.fromkeys(receiver.ids))
    assert once == [str(event["id"]) for event in revisions]
    delivered_at = max(index for index, each in enumerate(receiver.ids) if each == once[0])
    assert delivered_at < receiver.ids.index(once[1])


async def test_a_restart_of_rabbitmq_loses_no_event(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    name = new_name()
    async with (
        WebhookReceiver() as receiver,
        publishing(servers) as publisher,
        forwarding(servers, monkeypatch, table(name, receiver, order="call")),
    ):
        ids = await publish(publisher, events_of(name, 20))
        await servers.stack.rabbitmq.stop()
        await servers.stack.rabbitmq.start()
        ids += await publish(publisher, events_of(name, 20, first=100))
        await receiver.has(*ids)


async def test_a_replay_delivers_what_an_endpoint_that_is_new_has_missed(
    servers: Servers, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = new_name()
    async with WebhookReceiver() as receiver, publishing(servers) as publisher:
        ids = await publish(publisher, events_of(name, 5))
        await publish(publisher, events_of(new_name(), 5))
        crm = table(name, receiver, where="request_id != 3")
        async with forwarding(servers, monkeypatch, crm):
            since = datetime(2020, 1, 1, tzinfo=UTC)
            assert await replay(load_settings(), name, since, None, is_dry_run=True) == 0
            assert not receiver.received
            assert await replay(load_settings(), name, since, None, is_dry_run=False) == 0
            await receiver.has(*(each for each in ids if each != ids[2]))
            await eventually(lambda: _none_waits(servers, name))
            with pytest.raises(ExceptionGroup) as raised:
                await replay(load_settings(), "nobody", since, None, is_dry_run=False)
            (error,) = leaf_errors(raised.value)
            assert f"Configured: {name}" in str(error)
    assert sorted(receiver.ids) == sorted(each for each in ids if each != ids[2])
    assert f"{name} gets 4 events of the journal again." in capsys.readouterr().out
