"""Connections to a Redis that can be written. A server that cannot write is treated as away.

The name or virtual address of Redis can move to another server. The old one then still answers as a replica, so nothing would
ever connect to the new one. Each refused write therefore drops its connection, and the idle ones too. The next command connects
again, which resolves the name again, or asks the Sentinels again. Commands in flight on other connections are finished first.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

from redis.asyncio import BlockingConnectionPool, Connection, SSLConnection, UnixDomainSocketConnection
from redis.connection import HiredisRespSerializer
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.typing import EncodableT

from shared.state.closed_writes import closed_is_lost
from shared.state.locating import Locator
from shared.state.redis_url import Address

_REPLICA: Final = "role:slave"
# For each error code of Redis: what is wrong, after "Redis at <address> ".
_REFUSALS: Final = {
    _REPLICA: "is a replica",
    "READONLY": "is a replica and cannot be written",
    "MASTERDOWN": "is a replica that lost its master",
    "LOADING": "is loading its data and does not answer yet",
    "CLUSTERDOWN": "belongs to a cluster that is down",
    "NOREPLICAS": "refuses writes because too few replicas follow it",
    "OOM": "refuses writes because its memory is full",
    "MISCONF": "refuses writes because it cannot save its data to disk",
}
# These come from the right server, and reading still works there.
_READABLE: Final = frozenset({"NOREPLICAS", "OOM", "MISCONF"})
_DROP_ALL_INTERVAL_S: Final = 1.0
_HISTORY: Final = re.compile(rb"master_replid:(\w+)")
_PACKER: Final = HiredisRespSerializer()


class RefusedError(RedisConnectionError):
    """Redis answers but cannot be written. As an error of the connection it makes the library drop the connection.

    Attributes:
        is_readable: it is the right server, and only writing fails.
    """

    def __init__(self, address: str, code: str) -> None:
        super().__init__(f"Redis at {address} {_REFUSALS[code]} ({code})")
        self.is_readable = code in _READABLE


if TYPE_CHECKING:
    _Base = Connection
else:
    _Base = object


class _Watched(_Base):
    """A connection that checks the role of its server and recognizes refused writes."""

    pool: WritablePool | None = None
    history: bytes | None = None

    async def connect_check_health(self, check_health: bool = True, retry_socket_connect: bool = True) -> None:  # noqa: FBT001, FBT002 - the library's signature
        """Connect, to where the server is now if it can be at several addresses."""
        locator = self.pool.locator if self.pool is not None else None
        if locator is not None and not self.is_connected:
            self.host, self.port = await locator.locate()
        try:
            await super().connect_check_health(check_health, retry_socket_connect)
        except (RedisError, asyncio.CancelledError):  # a frozen server can take the time of the whole step
            self._lost()
            raise

    async def on_connect_check_health(self, check_health: bool = True) -> None:  # noqa: FBT001, FBT002 - the library's signature
        """Finish the connection, and refuse a replica: what it answers can be out of date, and what it stores is lost."""
        await super().on_connect_check_health(check_health=check_health)
        await self.send_command("INFO", "replication", check_health=False)
        try:
            answer = await self.read_response(disable_decoding=True)
        except ResponseError:  # the user may not ask; a write shows it then
            answer = b""
        if _REPLICA.encode() in answer:
            raise RefusedError(self.address, _REPLICA)
        if self.pool is not None:
            self.pool.met(self, _history(answer))

    async def send_packed_command(self, command: bytes | str | Iterable[bytes], check_health: bool = True) -> None:  # noqa: FBT001, FBT002 - the library's signature
        with closed_is_lost():
            await super().send_packed_command(command, check_health)

    async def read_response(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - as the library declares it
        """Read a reply; each reply of a pipeline is read here too."""
        try:
            return await super().read_response(*args, **options)
        except asyncio.CancelledError:
            self._lost()
            raise
        except RedisError as error:
            code = _code(error)
            if code not in _REFUSALS:
                if isinstance(error, RedisConnectionError | RedisTimeoutError):
                    self._lost()
                raise
            # A connection that is marked already was dropped with all others.
            if self.pool is not None and not self.should_reconnect():  # type: ignore[no-untyped-call]
                self.pool.drop_all()
            raise RefusedError(self.address, code) from error

    def _lost(self) -> None:
        if self.pool is not None and self.pool.locator is not None:
            self.pool.locator.lost(Address(self.host, self.port))

    def pack_command(self, *args: EncodableT) -> list[bytes]:
        """Write a command in the protocol of Redis, in UTF-8; four times as fast as the library's own way for asyncio.

        An argument is a text, bytes, an int or a float, but of no subclass of `int`.
        """
        return _PACKER.pack(*args)  # type: ignore[no-any-return, arg-type]

    @property
    def address(self) -> str:
        """The configured address, with the resolved one if that is another."""
        configured = self._host_error()
        peer = self._peer()
        return configured if peer is None or peer == configured else f"{configured} ({peer})"

    def _peer(self) -> str | None:
        name = self._writer.get_extra_info("peername") if self._writer else None
        if not isinstance(name, tuple):
            return None
        host, port = name[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class _WatchedTcp(_Watched, Connection): ...


class _WatchedTls(_Watched, SSLConnection): ...


class _WatchedUnixSocket(_Watched, UnixDomainSocketConnection): ...


_WATCHED = {Connection: _WatchedTcp, SSLConnection: _WatchedTls, UnixDomainSocketConnection: _WatchedUnixSocket}


def _code(error: RedisError) -> str:
    """Return the error code of a reply. The library keeps it apart for the errors that it knows."""
    return error.status_code or str(error).partition(" ")[0]


def _history(replication: bytes) -> bytes | None:
    """Return the id of the history of a server's data: a master has a new one after each start and each promotion."""
    history = _HISTORY.search(replication)
    return history[1] if history else None


class WritablePool(BlockingConnectionPool):
    """A pool whose connections are dropped once the server refuses a write.

    Attributes:
        incarnation: grows when a connection leads to a server with another history, or to one that does not say which it has.
    """

    def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - as the library declares it
        super().__init__(*args, **options)
        self.connection_class = _WATCHED[self.connection_class]
        self.locator: Locator | None = None
        self._made: WeakSet[_Watched] = WeakSet()
        self._dropped_at = -_DROP_ALL_INTERVAL_S
        self.incarnation = 0
        self._history: bytes | None = None

    def met(self, connection: _Watched, history: bytes | None) -> None:
        """Record the history of the server that a new connection leads to. Connections to another history are dropped."""
        connection.history = history
        if history is None or history != self._history:
            self.incarnation += 1
            self._history = history
            for other in self._made:
                if other.history not in {None, history}:
                    other.mark_for_reconnect()  # type: ignore[no-untyped-call]

    def make_connection(self) -> Any:  # noqa: ANN401 - as the library declares it
        connection = super().make_connection()  # type: ignore[no-untyped-call]
        connection.pool = self
        self._made.add(connection)
        return connection

    async def ensure_connection(self, connection: Any) -> None:  # noqa: ANN401 - as the library declares it
        if connection.should_reconnect():
            await connection.disconnect()
        await super().ensure_connection(connection)

    def drop_all(self) -> None:
        """Drop each connection before its next command. Refusals in quick succession drop only their own connections."""
        if time.monotonic() - self._dropped_at < _DROP_ALL_INTERVAL_S:
            return
        self._dropped_at = time.monotonic()
        if self.locator is not None and self.locator.current is not None:
            self.locator.lost(self.locator.current)
        for connection in self._made:
            connection.mark_for_reconnect()  # type: ignore[no-untyped-call]

    async def verify(self) -> None:
        """Search the server again, and drop each connection to another one before its next command.

        Raises:
            UnclearMasterError: it is not clear which one it is. Connections stay, because the Sentinels may only be away.
        """
        if self.locator is None:
            return
        address = self.locator.current = await self.locator.find()
        for connection in self._made:
            if (connection.host, connection.port) != address:
                connection.mark_for_reconnect()  # type: ignore[no-untyped-call]
