"""Connections to RabbitMQ as the settings describe them."""

from __future__ import annotations

import asyncio
import os
import random
import uuid
from contextlib import suppress
from functools import cache
from typing import NoReturn

from shared import metrics
from shared.amqp.connection import BrokerAddress, BrokerConnection
from shared.amqp.hosts import HostWatch
from shared.amqp.publisher import Publisher
from shared.amqp.topology import Topology, topology
from shared.config.settings import Settings
from shared.errors import BrokerUnavailableError

_ROUND_TRIP_INTERVAL_S = 10.0


def broker_address(settings: Settings, role: str) -> BrokerAddress:
    """Return the address for one process; its name is unique, for claims and for RabbitMQ's list of connections."""
    name = f"{role}-{os.uname().nodename}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    declared = whole_topology(settings) if settings.amqp_declare else Topology()
    return BrokerAddress(settings.amqp_urls, declared, name, _host_watch(settings.amqp_urls))


def whole_topology(settings: Settings) -> Topology:
    """Return the topology with the limits that the settings name, whether this process declares it or not."""
    return topology(settings.recording_retry_seconds, fold_bytes=settings.fold_queue_bytes)


@cache
def _host_watch(urls: tuple[str, ...]) -> HostWatch:
    """Return the watch that all connections of this process share."""
    return HostWatch(urls)


async def watch_broker_hosts(settings: Settings) -> NoReturn:
    """Watch which addresses of RabbitMQ answer, until cancelled. Without this task, connections stay where they are."""
    await _host_watch(settings.amqp_urls).run()


async def watch_broker(*connections: BrokerConnection) -> NoReturn:
    """Export whether all these connections are usable, and the round trip of the first one, until cancelled."""
    metrics.BROKER_UP.set_function(lambda: float(all(connection.is_usable for connection in connections)))
    while True:
        await asyncio.sleep(_ROUND_TRIP_INTERVAL_S * random.uniform(0.75, 1.25))  # noqa: S311 - spreads the processes, no secret
        with suppress(BrokerUnavailableError):  # the connection logs it
            metrics.BROKER_ROUND_TRIP.observe(await connections[0].round_trip_s())


def create_publisher(settings: Settings, role: str, *, retries_conflicts: bool = False) -> Publisher:
    """Create the publisher of a process; consumers of the same process take its `address`."""
    address = broker_address(settings, role)
    return Publisher(address, timeout_s=settings.publish_timeout_seconds, retries_conflicts=retries_conflicts)
