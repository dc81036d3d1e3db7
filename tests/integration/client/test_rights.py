"""What the user of a subscriber may do with the Python client."""

from __future__ import annotations

import pytest

from callfold_client import RefusedError, subscribe
from shared.amqp.roles import subscriber
from tests.helpers.servers import Servers
from tests.helpers.subscribers_broker import event, subscribers_broker

QUEUE = "python.calls"


@pytest.mark.volume
async def test_a_user_with_the_rights_of_a_subscriber_gets_the_events_of_its_source_alone(rabbitmq_only: Servers) -> None:
    async with subscribers_broker(rabbitmq_only, QUEUE) as broker, broker.user("python", subscriber("python", "acme")) as url:
        for options in ({"filter": "#"}, {"filter": "call.#"}, {"filter": "call.*.other.#"}, {"queue": "billing.calls"}):
            with pytest.raises(RefusedError, match="ACCESS_REFUSED"):
                await subscribe(url, **{"queue": QUEUE, "filter": "call.*.acme.#"} | options).__aenter__()  # type: ignore[arg-type]
        with pytest.raises(RefusedError, match=r"calls\.journal"):
            async with subscribe(url, queue=QUEUE, filter="call.*.acme.#", replay_since="first") as events:
                await anext(events)
        async with subscribe(url, queue=QUEUE, filter="call.*.acme.#", limit=2) as events:
            await broker.publish(event(1), event(2, source="other"), ("call.completed.acme.answered", "x", b"5"), event(3))
            assert [each.id async for each in events] == ["acme/1/1", "acme/3/1"]
        assert len(await broker.waiting(f"{QUEUE}.dead")) == 1
