"""Test events: one signed request to an endpoint now, in the same way as the forwarder posts events. It is attempted once."""

from __future__ import annotations

import uuid
from typing import Final

import orjson

from console.endpoints.models import TrialView
from shared.clock import utc_now
from shared.config.endpoints import Endpoint
from shared.domain.cloud_event import JSON, SPEC_VERSION
from shared.webhooks.attempts import shown_answer, shown_error
from shared.webhooks.signing import webhook_id
from worker.forwarding.outgoing_event import OutgoingEvent
from worker.forwarding.poster import Poster

TEST_TYPE: Final = "callfold.webhook.test.v1"


class Trials:
    """Sends test events."""

    async def send(self, endpoint: Endpoint) -> TrialView:
        """Send a test event, also to an endpoint that is disabled."""
        event = OutgoingEvent.of(_body(endpoint.name), {}, "", endpoint.name)
        async with Poster(endpoint) as poster:
            answer = await poster.post(event)
        return TrialView(
            delivered=answer.is_success,
            status=answer.status,
            error=shown_error(answer.failure) or None,
            seconds=round(answer.seconds, 3),
            answer=shown_answer(answer.body, endpoint.credentials),
            webhook_id=webhook_id(event.id),
        )


def _body(name: str) -> bytes:
    return orjson.dumps(
        {
            "specversion": SPEC_VERSION,
            "id": f"test/{uuid.uuid4()}",
            "source": "/callfold",
            "subject": "test",
            "type": TEST_TYPE,
            "time": utc_now(),
            "datacontenttype": JSON,
            "data": {"endpoint": name},
        }
    )
