"""The client of one Redis: of one server, or of the one that Sentinels name. `redis_cluster.py` has that of a cluster.

A batch is a pipeline whose writes replicas can confirm. All commands and scripts of Callfold run through these clients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError

from shared.state.connections import WritablePool
from shared.state.keys import PLAIN_KEYS, PROBE_KEY, Keys
from shared.state.locating import Locator
from shared.state.redis_url import Address, RedisUrl
from shared.state.replicas import Confirm, Replicas

STEP_S: Final = 4
"""Limit of a step: 2 s for a connection, and 2 s for the replies."""

_SOCKET_TIMEOUT_S: Final = 2
_CONNECTIONS: Final = 32
PROBE_KEPT_MS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Node:
    """A server that has data."""

    address: str
    url: str
    is_master: bool


def open_pool(url: str) -> WritablePool:
    return WritablePool.from_url(
        url,
        max_connections=_CONNECTIONS,
        timeout=_SOCKET_TIMEOUT_S,
        socket_timeout=_SOCKET_TIMEOUT_S,
        socket_connect_timeout=_SOCKET_TIMEOUT_S,
        protocol=2,  # keeps the shape of script replies if the default of the library changes
        retry=Retry(NoBackoff(), 0),  # callers repeat whole steps; a retry in the library would only hide an outage
    )


class RedisClient(Redis):
    """A client whose connections are to a Redis that can be written."""

    key_names: Keys = PLAIN_KEYS

    def __init__(
        self, url: RedisUrl, replicas: Replicas, *, address: Address | None = None, locator: Locator | None = None
    ) -> None:
        """Prepare connections to an address of the URL, or to where the locator finds the server; opens none."""
        first = address or next(iter(url.addresses), None)
        self._pool = open_pool(url.socket if first is None else url.servers.url(first))
        self._pool.locator = locator
        super().__init__(connection_pool=self._pool)
        self.auto_close_connection_pool = True
        self.url, self.replicas = url, replicas
        self._first = first

    @property
    def address(self) -> str:
        """The address of the server, as far as known."""
        located = self._pool.locator.current if self._pool.locator else None
        return str(located or self._first or self.url.socket.partition("?")[0])

    @property
    def incarnation(self) -> int:
        """A number that grows when a connection leads to another server, or to one whose data may be other data."""
        return self._pool.incarnation

    def batch(self, confirm: Confirm = Confirm.NO) -> Batch:
        """Begin a pipeline whose writes replicas may have to confirm."""
        return Batch(self, confirm)

    def pipeline(self, transaction: bool = False, shard_hint: str | None = None) -> Batch:  # noqa: ARG002, FBT001, FBT002 - the library's signature
        """Begin a batch. A cluster runs no batch as a transaction, because its commands can be for several nodes."""
        batch = self.batch()
        batch.is_transaction = transaction
        return batch

    async def probe(self) -> None:
        """Write to every server that has partitions."""
        await self.set(PROBE_KEY, b"", px=PROBE_KEPT_MS)

    async def verify(self) -> None:
        """Find out again which server can be written, and whether its replicas confirm.

        Raises:
            UnclearMasterError: the servers do not agree. Commands go on with the connections that exist.
        """
        if self.replicas.are_required:
            batch = self.batch(Confirm.FULLY)
            batch.set(PROBE_KEY, b"", px=PROBE_KEPT_MS)
            await batch.execute()
        await self._pool.verify()

    async def nodes(self) -> list[Node]:
        """Return the server and its replicas."""
        if self._first is None:
            return [Node(self.address, self.url.socket, is_master=True)]
        replication = await self.info("replication")
        master = await self._pool.locator.locate() if self._pool.locator else self._first
        rows = [value for name, value in replication.items() if name.startswith("slave") and isinstance(value, dict)]
        servers = [(master, True), *((Address(str(row["ip"]), int(row["port"])), False) for row in rows)]
        return [Node(str(address), self.url.servers.url(address), is_master) for address, is_master in servers]


class Batch(Pipeline):
    """Commands that are sent in one round trip. None is undone if another fails."""

    def __init__(self, client: RedisClient, confirm: Confirm) -> None:
        super().__init__(client.connection_pool, client.response_callbacks, False, None)  # noqa: FBT003 - the library's signature
        self._client = client
        self._confirm = confirm if client.replicas.are_required else Confirm.NO

    async def execute(self, raise_on_error: bool = True) -> list[Any]:  # noqa: FBT001, FBT002 - the library's signature
        """Send the commands; returns the replies in order, and errors among them unless they are raised."""
        if self._confirm is Confirm.NO or not self.command_stack:
            return await super().execute(raise_on_error)
        replicas, server = self._client.replicas, self._client.address
        self.execute_command(*replicas.command(server, self._confirm))
        *replies, confirmed = await super().execute(raise_on_error=False)
        replicas.confirmed(server, confirmed)
        return raised(replies) if raise_on_error else replies


def raised(replies: list[Any]) -> list[Any]:
    """Return replies, or raise the first error among them."""
    for reply in replies:
        if isinstance(reply, ResponseError):
            raise reply
    return replies
