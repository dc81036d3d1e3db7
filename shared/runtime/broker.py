"""Connections to RabbitMQ as the settings describe them."""

from __future__ import annotations

import os
import uuid
from functools import cache
from typing import NoReturn

from shared.amqp.connection import BrokerAddress
from shared.amqp.hosts import HostWatch
from shared.amqp.publisher import Publisher
from shared.amqp.topology import Topology, topology
from shared.config.settings import Settings


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


def create_publisher(settings: Settings, role: str, *, retries_conflicts: bool = False) -> Publisher:
    """Create the publisher of a process; consumers of the same process take its `address`."""
    address = broker_address(settings, role)
    return Publisher(address, timeout_s=settings.publish_timeout_seconds, retries_conflicts=retries_conflicts)
