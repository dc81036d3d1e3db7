"""Removes the queues of an endpoint that the API has removed. Its events become dead letters, so that none is lost silently.

The name can be added again at any time, and another forwarder may serve it by then. So the stream of endpoints is read to its end
before anything is unbound or deleted.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from typing import Final

from shared.amqp.dead_letters import DeadLetterReason
from shared.amqp.delivery import Delivery
from shared.amqp.publisher import Message
from shared.amqp.queue_removal import delete_unused, unbind
from shared.amqp.topology import CALLS, Topology, forward_queue, forward_retry_queue
from shared.config.endpoints import EndpointName
from shared.errors import BrokerUnavailableError
from shared.log import get_logger
from shared.runtime.process import background, wait_at_most
from worker.forwarding.endpoint_runner import Common, EndpointConsumer
from worker.forwarding.outgoing_event import OutgoingEvent, undecodable

log = get_logger(__name__)

_PREFETCH: Final = 50
_IDLE_S: Final = 1.0
# Events can be in a retry queue for a day. Other forwarders do the same, at other times.
_PAUSE_S: Final = (1.0, 5.0, 30.0, 120.0)
_DETAIL: Final = "the endpoint was removed"


async def remove(
    name: EndpointName,
    patterns: Iterable[str],
    common: Common,
    interrupted: asyncio.Event,
    is_removed: Callable[[], Awaitable[bool]],
) -> None:
    """Unbind the queue, dead-letter what is in it, and delete it once its retry queues are empty too.

    `is_removed` reads the stream of endpoints to its end, and may raise BrokerUnavailableError.
    """
    queue = forward_queue(name)
    # What a retry queue has lost when it is counted is in the other queue, which is counted last.
    queues = [*(forward_retry_queue(name, delay_s) for delay_s in sorted(set(common.schedule_s))), queue]
    count, rounds = 0, 0
    while not interrupted.is_set():
        try:
            if not (await is_removed() and await unbind(common.address.urls, queue, CALLS, patterns)):
                return
            count += await _empty(name, queue, common, interrupted)
            pause_s = _PAUSE_S[min(rounds, len(_PAUSE_S) - 1)]
            await wait_at_most(interrupted, pause_s * random.uniform(0.2, 1))  # noqa: S311 - spreads the processes, no secret
            if not interrupted.is_set() and await delete_unused(common.address.urls, queues, is_removed):
                log.info("endpoint_removed", endpoint=name, dead_letters=count)
                return
        except BrokerUnavailableError:
            await wait_at_most(interrupted, _PAUSE_S[0])
        rounds += 1


async def _empty(name: EndpointName, queue: str, common: Common, interrupted: asyncio.Event) -> int:
    """Dead-letter what is in the queue now; returns how many events that are."""
    consumer = EndpointConsumer(replace(common.address, topology=Topology()), queue, prefetch=_PREFETCH)
    count = 0
    async with background(consumer.run()):
        await consumer.wait_until_up()
        while not interrupted.is_set():
            try:
                async with asyncio.timeout(_IDLE_S):
                    delivery = await consumer.get()
            except TimeoutError:
                break
            await common.publisher.publish_until_confirmed([_dead_letter(name, delivery)])
            await delivery.ack()
            count += 1
    return count


def _dead_letter(name: EndpointName, delivery: Delivery) -> Message:
    try:
        event = OutgoingEvent.of(delivery.body, delivery.headers, delivery.routing_key, name)
    except ValueError as error:
        return undecodable(delivery.body, name, DeadLetterReason.UNDECODABLE, type(error).__name__, delivery.routing_key)
    return event.dead_letter(name, DeadLetterReason.ENDPOINT_REMOVED, _DETAIL, attempts=event.attempts)
