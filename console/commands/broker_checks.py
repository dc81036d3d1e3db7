"""Checks of RabbitMQ for `callfold doctor`: its version, whether it accepts callbacks, and its policies."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import replace

from console.commands.doubt import DoubtError
from shared.amqp.policies import changed_limits, harmful_policies, missing_limits, read_policies
from shared.amqp.publisher import Message, Publisher
from shared.amqp.server_check import check_server, find_unusable
from shared.amqp.subscribers import read_endpoint_queues
from shared.amqp.topology import CALLBACKS_FOLD, MARKER, MARKER_BODY
from shared.config.settings import Settings
from shared.errors import BrokerRejectedError, BrokerUnavailableError, ConfigError
from shared.runtime.broker import broker_address, whole_topology
from shared.runtime.process import background

_IMPORT = "Run `callfold broker definitions > definitions.json`, then `rabbitmqctl import_definitions definitions.json`."


async def rabbitmq(settings: Settings) -> str:
    """Connect to every node of RabbitMQ. At one, declare the topology, and publish an empty message to the fold queue.

    Raises:
        BrokerUnavailableError: RabbitMQ is not reachable, its fold queue is full, or an alarm blocks publishers.
        ConfigError: it is too old, or a queue exists with other arguments.
        DoubtError: it works, but not at every address, or an earlier release declared queues whose sizes can only be lowered.
    """
    address = broker_address(settings, "doctor")
    unusable = await find_unusable(address.urls) if len(address.urls) > 1 else {}
    # Only the others are used: each that does not answer would take several seconds again.
    address = replace(address, urls=tuple(url for url in address.urls if url not in unusable) or address.urls)
    server = await check_server(address)
    if server.version.problem:
        raise ConfigError(f"{server.location}: {server.version.problem}")
    publisher = Publisher(address, timeout_s=settings.publish_timeout_seconds)
    async with background(publisher.run()):
        await _probe(publisher, settings.publish_timeout_seconds)
    working = "quorum queues, streams and at-least-once dead-lettering (no plugin needed)"
    summary = f"{server.version} at {server.location}, with working {working}"
    doubts = [f"CALLFOLD_AMQP_URL names servers that cannot be used: {'; '.join(unusable.values())}."] if unusable else []
    if server.fixed:
        doubts.append(
            f"An earlier release declared {', '.join(server.fixed)} with sizes as arguments, which cannot change. "
            "Policies apply to the streams, and can lower the limits of the others. docs/operations.md says how to raise them."
        )
    if doubts:
        raise DoubtError(f"{summary}. {' '.join(doubts)}")
    return summary


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
        ConfigError: a policy is missing, or one can lose messages.
        DoubtError: nothing is known without the management API.
    """
    if settings.management_url is None:
        raise DoubtError(
            "not known: only RabbitMQ's management API shows policies. Set CALLFOLD_MANAGEMENT_URL, or compare "
            "`rabbitmqctl list_policies` with `callfold broker definitions`."
        )
    api = settings.management_url.get_secret_value(), settings.amqp_urls[0]
    all_policies = await read_policies(*api)
    of_endpoints = await read_endpoint_queues(*api, settings.forward_retry_seconds)
    queues = whole_topology(settings).queues
    if harmful := harmful_policies(all_policies, [*(queue.name for queue in queues), *of_endpoints]):
        raise ConfigError(f"{'. '.join(harmful)}. Narrow the pattern of the policy, or delete it.")
    if missing := missing_limits(all_policies, queues):
        raise ConfigError(f"{', '.join(missing)} can grow without limit. {_IMPORT}")
    if changed := changed_limits(all_policies, queues):
        return f"none can lose messages. Changed limits: {'; '.join(changed)}"
    return f"none of {len(all_policies)} can lose messages, and every limit is as shipped"
