"""Checks of RabbitMQ for `callfold doctor`: its version, whether it accepts callbacks, and its policies."""

from __future__ import annotations

import asyncio
import uuid

from shared.amqp.policies import harmful_policies, read_policies
from shared.amqp.publisher import Message, Publisher
from shared.amqp.server_check import check_server
from shared.amqp.topology import CALLBACKS_FOLD, MARKER, MARKER_BODY, topology
from shared.config.settings import Settings
from shared.errors import BrokerRejectedError, BrokerUnavailableError, ConfigError
from shared.runtime.broker import broker_address
from shared.runtime.process import background


async def rabbitmq(settings: Settings) -> str:
    """Connect to RabbitMQ, declare the topology, and publish an empty message to the fold queue.

    Raises:
        BrokerUnavailableError: RabbitMQ is not reachable, its fold queue is full, or an alarm blocks publishers.
        ConfigError: it is too old, or a queue exists with other arguments.
    """
    address = broker_address(settings, "doctor")
    server = await check_server(address)
    if server.version.problem:
        raise ConfigError(f"{server.location}: {server.version.problem}")
    publisher = Publisher(address, timeout_s=settings.publish_timeout_seconds)
    async with background(publisher.run()):
        await _probe(publisher, settings.publish_timeout_seconds)
    working = "quorum queues, streams and at-least-once dead-lettering (no plugin needed)"
    return f"{server.version} at {server.location}, with working {working}"


async def _probe(publisher: Publisher, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await publisher.wait_until_up()
        await publisher.publish(Message("", CALLBACKS_FOLD, MARKER_BODY, uuid.uuid4().hex, headers={MARKER: "0"}))
    except TimeoutError:
        raise BrokerUnavailableError("RabbitMQ: a second connection was not possible. Check its limits and its log.") from None
    except BrokerRejectedError as error:
        raise BrokerUnavailableError(
            f"The queue {CALLBACKS_FOLD} is full: ingress spools every callback. Check that workers run and reach Redis."
        ) from error


async def policies(settings: Settings) -> str:
    """Read the policies of RabbitMQ.

    Raises:
        BrokerUnavailableError: the management API does not answer.
        ConfigError: a policy can lose messages.
    """
    if settings.management_url is None:
        return "not checked"
    all_policies = await read_policies(settings.management_url.get_secret_value(), settings.amqp_urls[0])
    queues = [queue.name for queue in topology(settings.recording_retry_seconds).queues]
    if harmful := harmful_policies(all_policies, queues):
        raise ConfigError(f"{'. '.join(harmful)}. Narrow the pattern of the policy, or delete it.")
    return f"none of {len(all_policies)} can lose messages"
