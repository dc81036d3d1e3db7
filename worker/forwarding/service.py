"""The forwarder process. Contexts are nested: the last one entered is closed first."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from shared.amqp.topology import FORWARD_ORDER_JOURNAL
from shared.config.settings import Settings
from shared.log import get_logger
from shared.metrics import Export, Role
from shared.runtime.broker import create_publisher, watch_broker, watch_broker_hosts
from shared.runtime.health import Handicap, private_port
from shared.runtime.process import background
from shared.runtime.supervisor import report_ready
from shared.webhooks.live_endpoints import LiveEndpoints
from shared.webhooks.stream_follower import StreamFollower
from worker.forwarding.call_order import CallOrder
from worker.forwarding.endpoint_runner import Common
from worker.forwarding.forwarder import Forwarder

log = get_logger(__name__)


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Forward events until `stop` is set. Then begin no more attempts, finish those in flight and close.

    Raises:
        ConfigError: the endpoints file has a fault, or the broker's topology is misconfigured.
    """
    publisher = create_publisher(settings, "forward")
    address = publisher.address
    endpoints = LiveEndpoints(settings.endpoints_file, address)
    order = CallOrder(time.time)
    follower = StreamFollower(address, FORWARD_ORDER_JOURNAL, order.apply, order.reset)
    forwarder = Forwarder(endpoints, Common(address, publisher, settings.forward_retry_seconds, order, follower))

    async def problems() -> list[str]:
        current: list[str] = [] if publisher.is_up and follower.is_up else ["RabbitMQ is not connected"]
        current += map(Handicap, publisher.obstacles())
        current += map(Handicap, endpoints.problems())
        return [*current, "shutting down"] if stop.is_set() else current

    async with (
        private_port(settings.metrics_host, settings.metrics_port, problems, Export(Role.FORWARD)),
        background(
            publisher.run(),
            endpoints.run(),
            follower.run(),
            watch_broker(publisher, follower.consumer),
            watch_broker_hosts(settings),
        ),
        background(forwarder.run(), forwarder.measure()),
    ):
        report_ready()
        await stop.wait()
        log.info("shutdown_started", seconds=settings.shutdown_timeout_seconds)
        with suppress(TimeoutError):
            async with asyncio.timeout(settings.shutdown_timeout_seconds):
                await forwarder.finish()
