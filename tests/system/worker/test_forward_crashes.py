"""`kill -9` of a forwarder at each point of an attempt: every event is delivered at least once, in the order of its call."""

from __future__ import annotations

import signal

import pytest

from tests.helpers.forwarding import attempts_of, bound, new_name, publish, revisions_of, table
from tests.helpers.history_process import publishing
from tests.helpers.servers import Servers, eventually
from tests.helpers.webhook_receiver import WebhookReceiver, status

POINTS = ("forward.before_post", "forward.posted", "forward.retry_published", "forward.before_ack")


@pytest.mark.parametrize(
    "point",
    [pytest.param(point, marks=[] if point == "forward.posted" else [pytest.mark.volume]) for point in POINTS],
)
async def test_a_forwarder_that_is_killed_at_any_point_loses_nothing_and_keeps_the_order(
    rabbitmq_only: Servers, point: str
) -> None:
    name = new_name()
    path = rabbitmq_only.directory / "endpoints.toml"
    settings = {"CALLFOLD_ENDPOINTS": str(path), "CALLFOLD_FORWARD_RETRY_SECONDS": "0.5,1"}
    async with WebhookReceiver() as receiver, publishing(rabbitmq_only) as publisher:
        crm = table(name, receiver, order="call")
        path.write_text(crm, "utf-8")
        revisions = revisions_of(name, 513, 3)
        ids = [str(event["id"]) for event in revisions]
        receiver.answers = {ids[0]: [status(500), status(500)]}
        async with rabbitmq_only.fleet(**settings) as fleet:
            dying = fleet.add("forward-1", "worker.forwarding", {"CALLFOLD_CRASH_AT": point})
            await dying.start()
            await bound(rabbitmq_only, crm)
            await publish(publisher, revisions)

            async def is_dead() -> bool:
                return dying.returncode == -signal.SIGKILL

            await eventually(is_dead)
            fleet.processes.remove(dying)
            await fleet.add("forward-2", "worker.forwarding", {}).start()
            await receiver.has(*ids)
            await eventually(lambda: _is_empty(rabbitmq_only, name))
    assert list(dict.fromkeys(receiver.delivered)) == ids
    assert receiver.ids.index(ids[1]) > max(at for at, each in enumerate(receiver.ids) if each == ids[0]), (
        "the second revision waits until the first is delivered"
    )


async def _is_empty(servers: Servers, name: str) -> bool:
    async with servers.queue(f"forward.{name}") as queue:
        return queue.declaration_result.message_count == 0


@pytest.mark.volume
async def test_two_forwarders_that_are_killed_in_turn_deliver_every_event(rabbitmq_only: Servers) -> None:
    name = new_name()
    path = rabbitmq_only.directory / "endpoints.toml"
    settings = {"CALLFOLD_ENDPOINTS": str(path), "CALLFOLD_FORWARD_RETRY_SECONDS": "0.5,1,1,1,1,1,1,1"}
    async with WebhookReceiver() as receiver, publishing(rabbitmq_only) as publisher:
        crm = table(name, receiver, order="call")
        path.write_text(crm, "utf-8")
        calls = [revisions_of(name, call, 3) for call in range(1, 41)]
        ids = [str(event["id"]) for call in calls for event in call]
        receiver.answers = {event_id: [status(500)] for event_id in ids[::17]}
        async with rabbitmq_only.fleet(**settings) as fleet:
            for number in range(6):
                process = fleet.add(f"forward-{number}", "worker.forwarding", {})
                await process.start()
                await bound(rabbitmq_only, crm)
                for call in calls[number * 8 : number * 8 + 8]:
                    await publish(publisher, call)
                if number % 2:
                    killed = fleet.processes.pop(0)
                    await killed.stop(signal.SIGKILL)
            await receiver.has(*ids)
            await attempts_of(rabbitmq_only, name, len(ids))
    for call in calls:
        of_call = [str(event["id"]) for event in call]
        assert [each for each in dict.fromkeys(receiver.delivered) if each in of_call] == of_call
