"""One event on its way to an endpoint: the event in the body, facts of earlier attempts in the headers."""

from __future__ import annotations

import random
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from shared.amqp.batch_publish import HeaderValue
from shared.amqp.dead_letters import FIRST_SEEN, dead_letter_headers
from shared.amqp.publisher import Message
from shared.amqp.topology import FORWARD_DEAD, forward_queue, forward_retry_queue
from shared.clock import utc_now
from shared.domain.cloud_event import CLOUDEVENT
from shared.tracing.contexts import TRACEPARENT, parse_context

ATTEMPTS: Final = "attempts"
ENDPOINT: Final = "endpoint"
ROUTING_KEY: Final = "routing_key"
# The retry queue has the longest wait. Each message expires a little earlier, so events that failed together are spread.
JITTER: Final = 0.2
_MAX_CHARACTERS: Final = 255
_MAX_ATTEMPTS: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class OutgoingEvent:
    """An event as it was delivered by RabbitMQ.

    Attributes:
        text: the body as text, as it is signed.
        content: the parsed body.
        call: the call that it is about, such as `acme/513`. Its events keep their order on request.
        attempts: earlier attempts.
        first_seen: when it was delivered first.
    """

    body: bytes
    text: str
    content: Mapping[str, Any]
    id: str
    type: str
    call: str
    routing_key: str
    attempts: int
    first_seen: str
    traceparent: str

    @classmethod
    def of(cls, body: bytes, headers: Mapping[str, object], routing_key: str, endpoint: str) -> OutgoingEvent:
        """Read a delivery. A message from a retry queue, or a replay, has the first routing key in a header.

        Raises:
            ValueError: the body is no event. Every client of the broker may publish to the exchange.
        """
        text = body.decode("utf-8")
        content = orjson.loads(body)
        if routing_key == forward_queue(endpoint):
            routing_key = str(headers.get(ROUTING_KEY) or "")[:_MAX_CHARACTERS]
        attempts = headers.get(ATTEMPTS, 0)
        match content:
            case {"id": str(event_id), "type": str(kind), "subject": str(subject), "source": str(source)}:
                call = content.get("partitionkey")
                return cls(
                    body=body,
                    text=text,
                    content=content,
                    id=event_id,
                    type=kind,
                    call=call if isinstance(call, str) else f"{source}/{subject}",
                    routing_key=routing_key,
                    attempts=attempts if isinstance(attempts, int) and 0 <= attempts <= _MAX_ATTEMPTS else 0,
                    first_seen=str(headers.get(FIRST_SEEN) or utc_now())[:64],
                    traceparent=str(parse_context(headers.get(TRACEPARENT)) or ""),
                )
        raise ValueError("the message is no event")

    def retry(self, endpoint: str, delay_s: float, *, at_least_s: float = 0.0, counts: bool) -> Message:
        """Return the message that waits in a retry queue; without `counts`, no attempt was made.

        `at_least_s` is what the endpoint asked for. Only the head of a queue expires, so the wait can be longer.
        """
        spread = random.uniform(1 - JITTER, 1) if counts else 1.0  # noqa: S311 - spreads load, no secret
        wait_s = min(delay_s, at_least_s * (2 - spread)) if at_least_s else delay_s * spread
        return Message(
            "",
            forward_retry_queue(endpoint, delay_s),
            self.body,
            uuid.uuid4().hex,
            CLOUDEVENT,
            headers=self._headers(self.attempts + counts),
            expires_ms=max(1, round(1000 * wait_s)),
        )

    def dead_letter(self, endpoint: str, reason: str, detail: str, *, attempts: int) -> Message:
        """Return the message for `forward.dead`."""
        headers = {**self._headers(attempts), **dead_letter_headers(reason, detail, self.first_seen), ENDPOINT: endpoint}
        return Message("", FORWARD_DEAD, self.body, uuid.uuid4().hex, CLOUDEVENT, headers=headers)

    def _headers(self, attempts: int) -> dict[str, HeaderValue]:
        traced: dict[str, HeaderValue] = {TRACEPARENT: self.traceparent} if self.traceparent else {}
        return {ATTEMPTS: attempts, FIRST_SEEN: self.first_seen, ROUTING_KEY: self.routing_key, **traced}


def undecodable(body: bytes, endpoint: str, reason: str, detail: str, routing_key: str) -> Message:
    """Return the message for `forward.dead` of a body that is no event, or that could not be processed."""
    headers: dict[str, HeaderValue] = {
        **dead_letter_headers(reason, detail, utc_now()),
        ENDPOINT: endpoint,
        ROUTING_KEY: routing_key[:_MAX_CHARACTERS],
    }
    return Message("", FORWARD_DEAD, body, uuid.uuid4().hex, CLOUDEVENT, headers=headers)
