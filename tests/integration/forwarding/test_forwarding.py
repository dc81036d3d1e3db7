"""A forwarder on a real broker, and receivers that answer in every way."""

from __future__ import annotations

import orjson
import pytest

from shared.webhooks.attempts import Result
from shared.webhooks.signing import webhook_id
from tests.helpers.forwarding import (
    OTHER_SECRET,
    SECRET,
    attempts_of,
    events_of,
    forwarding,
    new_name,
    publish,
    revisions_of,
    table,
)
from tests.helpers.history_process import publishing
from tests.helpers.servers import Servers, eventually
from tests.helpers.webhook_receiver import WebhookReceiver, endless, reset, status


@pytest.fixture
def servers(rabbitmq_only: Servers) -> Servers:
    return rabbitmq_only


async def test_an_event_arrives_with_its_exact_bytes_signed_with_both_secrets_and_fixed_headers(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = new_name()
    async with WebhookReceiver() as receiver, publishing(servers) as publisher:
        crm = table(name, receiver, secret=OTHER_SECRET, previous_secrets=[SECRET], where="talk_seconds >= 0")
        crm += f'[endpoints.{name}.headers]\nAuthorization = "Bearer key"\n'
        async with forwarding(servers, monkeypatch, crm):
            events = events_of(name, 3)
            await receiver.has(*await publish(publisher, events))
            records = await attempts_of(servers, name, 3)
    assert sorted(each.body for each in receiver.received) == sorted(orjson.dumps(event) for event in events)
    for each in receiver.received:
        each.verify(SECRET)
        each.verify(OTHER_SECRET)
        assert each.headers["Content-Type"] == "application/cloudevents+json"
        assert each.headers["Authorization"] == "Bearer key"
        assert each.headers["webhook-id"] == webhook_id(each.id)
    assert {(record.status, record.result, record.attempt) for record in records} == {(200, Result.DELIVERED, 1)}


async def test_every_other_answer_is_attempted_again_and_then_a_dead_letter(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = new_name()
    async with WebhookReceiver() as receiver, publishing(servers) as publisher:
        events = events_of(name, 6)
        ids = [str(event["id"]) for event in events]
        receiver.answers = {
            ids[0]: [status(500, text="token=hidden-value")],
            ids[1]: [receiver.redirect(), receiver.redirect(307)],
            ids[2]: [reset],
            ids[3]: [status(404)] * 3,
            ids[4]: [endless(200)],
            ids[5]: [status(503, retry_after="0")],
        }
        async with forwarding(servers, monkeypatch, table(name, receiver, max_in_flight=1)):
            for event in events:  # one after the other, so that failures in a row open no breaker
                await publish(publisher, [event])

            async def counted() -> bool:
                return len(receiver.received) >= 2 + 3 + 2 + 3 + 1 + 2

            await eventually(counted)
            records = await attempts_of(servers, name, 13)
            (dead,) = await eventually(lambda: servers.take_all("forward.dead"))
    assert receiver.inward == 0
    assert len(receiver.received) == 13
    assert (dead.headers["reason"], dead.headers["endpoint"], dead.headers["attempts"]) == ("forward_failed", name, 3)
    assert "404" in str(dead.headers["detail"])
    assert orjson.loads(dead.body)["id"] == ids[3]
    by_id = {event_id: [record for record in records if record.event_id == event_id] for event_id in ids}
    assert [record.result for record in by_id[ids[3]]] == [Result.RETRY, Result.RETRY, Result.DEAD]
    assert by_id[ids[0]][0].answer == "token=***"
    assert by_id[ids[4]][0].status == 200


async def test_events_of_a_call_keep_their_order_through_retries_and_others_do_not_wait(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = new_name()
    async with WebhookReceiver() as receiver, publishing(servers) as publisher:
        revisions, others = revisions_of(name, 513, 3), events_of(name, 2, first=600)
        first = str(revisions[0]["id"])
        receiver.answers = {first: [status(500), status(500)]}
        async with forwarding(servers, monkeypatch, table(name, receiver, order="call")):
            await publish(publisher, [*revisions, *others])
            await receiver.has(*(str(event["id"]) for event in (*revisions, *others)))
    of_call = [each for each in receiver.ids if each.startswith(f"{name}/513/")]
    assert of_call == [first, first, first, f"{name}/513/2", f"{name}/513/3"]
    assert receiver.ids.index(str(others[1]["id"])) < receiver.ids.index(f"{name}/513/2")
