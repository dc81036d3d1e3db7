"""Brings the consequence of an attempt into RabbitMQ, confirmed, before the event is acked."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from shared import metrics
from shared.amqp.dead_letters import DeadLetterReason
from shared.amqp.publisher import Message, Publisher
from shared.amqp.topology import ENDPOINTS_JOURNAL, FORWARD_JOURNAL
from shared.clock import utc_now
from shared.config.endpoint_options import Order
from shared.config.endpoints import Endpoint
from shared.crash_points import crash_point
from shared.domain.times import rfc3339
from shared.errors import BrokerUnavailableError, CallfoldError
from shared.log import get_logger
from shared.outage import Outage
from shared.webhooks.attempts import AttemptRecord, Result, shown_answer, shown_error
from shared.webhooks.endpoint_changes import DisabledMark, encode_disabled
from worker.forwarding.call_order import CallOrder
from worker.forwarding.consequence import Answer, Consequence, Dead, Delivered, Disable, Retry, consequence_of
from worker.forwarding.outgoing_event import OutgoingEvent, undecodable

log = get_logger(__name__)
_RECORDS = Outage(log, "forward_attempts_not_recorded", "forward_attempts_recorded")


class Settlement:
    """The consequences of attempts at one endpoint."""

    def __init__(
        self,
        endpoint: Endpoint,
        publisher: Publisher,
        schedule_s: Sequence[float],
        order: CallOrder,
        declare: Callable[[], Awaitable[object]],
    ) -> None:
        """Take a function that declares the queues of the endpoint; it may raise CallfoldError."""
        self._endpoint = endpoint
        self._declare = declare
        self._publisher = publisher
        self._schedule_s = schedule_s
        self._order = order
        self._is_ordered = endpoint.order is Order.CALL

    async def settle(self, event: OutgoingEvent, answer: Answer, at: str) -> Consequence:
        """Decide what follows from an answer, and publish it. The event can be acked then, unless it is `Disable`."""
        name, attempt = self._endpoint.name, event.attempts + 1
        consequence = consequence_of(answer, attempt, self._schedule_s)
        match consequence:
            case Delivered():
                await self._end(event)
                await self._record(event, answer, at, Result.DELIVERED)
            case Retry(delay_s=delay_s, at_least_s=at_least_s):
                copy = event.retry(name, delay_s, at_least_s=at_least_s, counts=True)
                await self._copy(copy)
                crash_point("forward.retry_published")
                if self._is_ordered:
                    waits = self._order.waits(name, event.call, event.id, delay_s)
                    await self._publisher.publish_until_confirmed([waits])
                next_at = rfc3339(datetime.now(UTC) + timedelta(seconds=consequence.wait_s))
                await self._record(event, answer, at, Result.RETRY, next_at)
                self._log_failure(event, answer, consequence.wait_s)
            case Dead():
                detail = f"{attempt} attempts failed, the last one with: {answer.failure}"
                dead = event.dead_letter(name, DeadLetterReason.FORWARD_FAILED, detail, attempts=attempt)
                await self._publisher.publish_until_confirmed([dead])
                await self._end(event)
                await self._record(event, answer, at, Result.DEAD)
                self._log_failure(event, answer, None)
            case Disable():
                mark = DisabledMark(utc_now(), "answered 410", self._endpoint.url_digest)
                body = encode_disabled(name, mark)
                await self._publisher.publish_until_confirmed([Message("", ENDPOINTS_JOURNAL, body, uuid.uuid4().hex)])
                await self._record(event, answer, at, Result.DISABLED)
                log.error("endpoint_disabled", endpoint=name, id=event.id, detail="answered 410")
        return consequence

    async def park(self, event: OutgoingEvent, delay_s: float) -> None:
        """Let an event wait behind an earlier one of its call, in the same retry queue. No attempt is made.

        The queue of a delay that is no longer in the schedule may be gone. The event looks again after the shortest delay then.
        """
        name = self._endpoint.name
        if delay_s not in self._schedule_s:
            delay_s = min(self._schedule_s)
        await self._copy(event.retry(name, delay_s, counts=False))
        await self._publisher.publish_until_confirmed([self._order.waits(name, event.call, event.id, delay_s)])

    async def release(self, event: OutgoingEvent) -> None:
        """Let later events of the call pass one that the endpoint does not take any more."""
        await self._end(event)

    async def refuse(self, body: bytes, reason: DeadLetterReason, detail: str, routing_key: str) -> None:
        """Dead-letter a message that is no event, or that could not be processed."""
        await self._publisher.publish_until_confirmed([undecodable(body, self._endpoint.name, reason, detail, routing_key)])

    async def _copy(self, copy: Message) -> None:
        """Publish a copy to a retry queue. One that was deleted is declared again, or its events would wait for ever."""
        try:
            await self._publisher.publish(copy)
        except BrokerUnavailableError:
            with suppress(CallfoldError):  # the publish that follows logs that it fails
                await self._declare()
            await self._publisher.publish_until_confirmed([copy])

    async def _end(self, event: OutgoingEvent) -> None:
        if self._is_ordered and self._order.is_waiting(self._endpoint.name, event.call, event.id):
            await self._publisher.publish_until_confirmed([self._order.ended(self._endpoint.name, event.call, event.id)])

    async def _record(self, event: OutgoingEvent, answer: Answer, at: str, result: Result, next_at: str | None = None) -> None:
        """Publish the record of an attempt. Without RabbitMQ it is lost: an event must not wait for it."""
        name = self._endpoint.name
        metrics.FORWARD_ATTEMPTS.labels(name, result).inc()
        metrics.FORWARD_SECONDS.labels(name).observe(answer.seconds)
        record = AttemptRecord(
            endpoint=name,
            event_id=event.id,
            type=event.type,
            attempt=event.attempts + 1,
            at=at,
            status=answer.status,
            error=shown_error(answer.failure) or None,
            seconds=round(answer.seconds, 4),
            answer=shown_answer(answer.body, self._endpoint.credentials),
            next_at=next_at,
            result=result,
        )
        try:
            await self._publisher.publish(Message("", FORWARD_JOURNAL, record.encode(), uuid.uuid4().hex))
            _RECORDS.succeeded()
        except BrokerUnavailableError as error:
            _RECORDS.failed(str(error))

    def _log_failure(self, event: OutgoingEvent, answer: Answer, next_s: float | None) -> None:
        log.warning(
            "forward_attempt_failed",
            endpoint=self._endpoint.name,
            id=event.id,
            attempt=event.attempts + 1,
            detail=answer.failure,
            next_s=next_s,
        )
