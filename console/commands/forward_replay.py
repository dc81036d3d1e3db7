"""`callfold forward replay`: deliver events of the journal to one endpoint, after it was added or corrected."""

from __future__ import annotations

import asyncio
import sys
import uuid
from dataclasses import replace
from datetime import datetime
from typing import Final

from shared.amqp.delivery import Delivery
from shared.amqp.publisher import Message, Publisher
from shared.amqp.server_check import check_server
from shared.amqp.topology import CALLS_JOURNAL, endpoint_topology, forward_queue
from shared.clock import utc_now
from shared.config.endpoints import Endpoint, EndpointName
from shared.config.settings import Settings
from shared.domain.cloud_event import CLOUDEVENT
from shared.domain.times import rfc3339
from shared.errors import CallfoldError, ConfigError
from shared.exit_codes import EXIT_OK
from shared.runtime.broker import create_publisher
from shared.runtime.process import background
from shared.streams.connections import wait_until_connected
from shared.streams.events import read_event
from shared.streams.journal import journal_until_now
from shared.webhooks.live_endpoints import LiveEndpoints
from worker.forwarding.outgoing_event import OutgoingEvent
from worker.forwarding.selection import Selection

_READ_S: Final = 30.0
_BATCH: Final = 200


async def replay(settings: Settings, name: str, since: datetime, until: datetime | None, *, is_dry_run: bool) -> int:
    """Put the events of a span that the endpoint takes into its queue again; returns the exit code.

    Raises:
        ConfigError: there is no such endpoint.
        CallfoldError: RabbitMQ cannot be reached, or does not confirm.
    """
    publisher = create_publisher(settings, "forward-replay")
    endpoints = LiveEndpoints(settings.endpoints_file, publisher.address)
    async with background(publisher.run(), endpoints.run()):
        await wait_until_connected(publisher)
        endpoint = await _endpoint(endpoints, name)
        declared = endpoint_topology(endpoint.name, endpoint.filters, settings.forward_retry_seconds)
        await check_server(replace(publisher.address, topology=declared))
        count = await _replay(settings, publisher, endpoint, (since, until), is_dry_run=is_dry_run)
    verb = "would get" if is_dry_run else "gets"
    sys.stdout.write(f"{name} {verb} {count} events of the journal again.\n")
    return EXIT_OK


async def _endpoint(endpoints: LiveEndpoints, name: str) -> Endpoint:
    try:
        async with asyncio.timeout(_READ_S):
            while not endpoints.is_complete:
                await endpoints.wait_for_change(timeout_s=1)
    except TimeoutError:
        raise CallfoldError(f"endpoints.journal could not be read within {_READ_S:g} s. Check RabbitMQ.") from None
    state = endpoints.current.get(EndpointName(name))
    if state is None:
        known = ", ".join(sorted(endpoints.current)) or "none"
        raise ConfigError(f"Unknown endpoint {name[:40]!r}. Configured: {known}. Check CALLFOLD_ENDPOINTS.")
    return state.endpoint


async def _replay(
    settings: Settings, publisher: Publisher, endpoint: Endpoint, span: tuple[datetime, datetime | None], *, is_dry_run: bool
) -> int:
    since, until = span
    first, last = rfc3339(since), None if until is None else rfc3339(until)
    selection, batch, count = Selection(endpoint), list[Message](), 0
    async with journal_until_now(settings, since, stream=CALLS_JOURNAL) as deliveries:
        async for delivery in deliveries:
            content = read_event(delivery)
            at = "" if content is None else str(content["time"])
            if content is None or at < first or (last is not None and at >= last):
                continue
            event = OutgoingEvent.of(delivery.body, delivery.headers, delivery.routing_key, endpoint.name)
            if not selection.takes(event):
                continue
            count += 1
            batch.append(_again(delivery, endpoint.name))
            if len(batch) >= _BATCH and not is_dry_run:
                await publisher.publish(*batch)
                batch.clear()
    if batch and not is_dry_run:
        await publisher.publish(*batch)
    return count


def _again(delivery: Delivery, endpoint: EndpointName) -> Message:
    """Return an event as a message to the queue of one endpoint alone."""
    headers: dict[str, str | int | datetime] = {"routing_key": delivery.routing_key, "first_seen": utc_now()}
    traceparent = delivery.headers.get("traceparent")
    if isinstance(traceparent, str):
        headers["traceparent"] = traceparent
    return Message("", forward_queue(endpoint), delivery.body, uuid.uuid4().hex, CLOUDEVENT, headers=headers)
