"""Checks once that a RabbitMQ server answers and takes the topology."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from yarl import URL

from shared.amqp.connection import BrokerAddress
from shared.amqp.connection_errors import is_cancelled, is_lost, refusal
from shared.amqp.declare import declare
from shared.amqp.hosts import location
from shared.amqp.plain_connection import CONNECT_TIMEOUT_S, plain_connection
from shared.amqp.topology import Topology
from shared.errors import BrokerUnavailableError
from shared.server_version import ServerVersion, broker_version


@dataclass(frozen=True, slots=True)
class Server:
    """A server that answered.

    Attributes:
        version: of the server.
        location: host and port, without credentials.
        fixed: the queues whose sizes are arguments, because an earlier release declared them.
    """

    version: ServerVersion
    location: str
    fixed: Sequence[str]


async def check_server(address: BrokerAddress) -> Server:
    """Connect once to the first server that answers, as `BrokerConnection` would, and declare the topology there.

    Raises:
        BrokerUnavailableError: no server is reachable, or it does not support quorum queues or streams.
        ConfigError: a queue or exchange exists with other arguments.
    """
    failures: list[str] = []
    for url in map(URL, address.urls):
        try:
            return await _check(url, address.topology)
        except Exception as error:
            if not is_lost(error):
                raise
            failures.append(_failure(url, error))
    raise BrokerUnavailableError(f"RabbitMQ: {'; '.join(failures)}")


async def find_unusable(urls: Sequence[str]) -> dict[str, str]:
    """Log in at all addresses at once, as a client would; returns those that fail, each with its location and the reason."""
    failures = await asyncio.gather(*map(_reach, map(URL, urls)))
    return {url: failure for url, failure in zip(urls, failures, strict=True) if failure}


async def _reach(url: URL) -> str:
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S * 2), plain_connection(url, {"connection_name": "probe"}):
            return ""
    except (Exception, asyncio.CancelledError) as error:  # the library also raises CancelledError by itself
        if is_cancelled() or not (is_lost(error) or isinstance(error, asyncio.CancelledError)):
            raise
        return _failure(url, error)


def _failure(url: URL, error: BaseException) -> str:
    return f"{location(url)}: {_problem(error)}"


def _problem(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {CONNECT_TIMEOUT_S} s"
    return refusal(error) or f"{type(error).__name__}: {error}"


async def _check(url: URL, topology: Topology) -> Server:
    async with asyncio.timeout(CONNECT_TIMEOUT_S * 2), plain_connection(url) as connection:
        fixed = await declare(connection, topology)
        properties = connection.transport.connection.server_properties if connection.transport else {}
        return Server(broker_version(properties), location(url), fixed)
