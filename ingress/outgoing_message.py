"""The messages that ingress sends, published or spooled."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from ingress.traced_callback import contexts_header
from shared.amqp.publisher import Message
from shared.amqp.topology import CALLBACKS, SENT_AT, SENT_BY
from shared.clock import utc_now
from shared.domain.raw_event import join
from shared.tracing.spans import is_on

_MACHINE = os.uname().nodename


@dataclass(frozen=True, slots=True)
class OutgoingMessage:
    """A message that has no id until it is published."""

    exchange: str
    routing_key: str
    headers: Mapping[str, str | int]
    body: bytes

    @classmethod
    def of_callbacks(cls, events: Sequence[bytes]) -> Self:
        """Return the message of some encoded events."""
        return cls(CALLBACKS, "", contexts_header(events) if is_on() else {}, join(events))

    def with_fresh_id(self) -> Message:
        """Return the message for one publish attempt: no two attempts may share an id. Callbacks say when it is sent."""
        sent = {SENT_AT: utc_now(), SENT_BY: _MACHINE} if self.exchange == CALLBACKS else {}
        return Message(self.exchange, self.routing_key, self.body, uuid.uuid4().hex, headers={**self.headers, **sent})
