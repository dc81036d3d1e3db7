"""Where the Redis that can be written is, among several addresses or as Sentinels say.

redis-py believes the first Sentinel that answers. Its `min_other_sentinels` counts the Sentinels that this one has ever met, not
those that it can reach. A Sentinel that is cut off with the old master is thus believed too.

Here a majority must answer, and the configuration of the latest failover counts. Sentinels number their failovers, and a majority
of them has to agree to a new number.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from redis.asyncio import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError

from shared.state.closed_writes import closed_is_lost
from shared.state.redis_url import Address, RedisUrl

_ANSWER_S: Final = 1.0
# Servers that are not frozen have answered by then.
_PATIENCE_S: Final = 0.3

Answer = TypeVar("Answer")


class UnclearMasterError(RedisConnectionError):
    """The servers do not agree on the one that can be written."""


async def ask(url: str, *commands: Sequence[str | int]) -> list[object]:
    """Send commands to one server on a new connection, which does not check whether the server can be written."""
    limits = {"socket_timeout": _ANSWER_S, "socket_connect_timeout": _ANSWER_S}
    pool = ConnectionPool.from_url(url, protocol=2, retry=Retry(NoBackoff(), 0), **limits)
    connection = pool.make_connection()  # type: ignore[no-untyped-call]
    try:
        with closed_is_lost():
            async with asyncio.timeout(_ANSWER_S):
                await connection.connect()
                replies = []
                for command in commands:
                    await connection.send_command(*command)
                    replies.append(await connection.read_response())
                return replies
    finally:
        await connection.disconnect(nowait=True)


async def answers_of(questions: Iterable[Awaitable[Answer]], *, enough: int) -> tuple[list[Answer], list[str]]:
    """Return the answers and why the others failed. Once enough have answered, a frozen server is not waited for."""
    tasks = [asyncio.ensure_future(question) for question in questions]
    try:
        await asyncio.wait(tasks, timeout=_PATIENCE_S)
        if sum(task.done() and not task.exception() for task in tasks) < enough:
            await asyncio.wait(tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    answers, reasons = [], []
    for task in tasks:
        if task.cancelled():
            reasons.append("no answer")
        elif error := task.exception():
            if not isinstance(error, RedisError | OSError):
                raise error
            reasons.append(_reason(error))
        else:
            answers.append(task.result())
    return answers, reasons


def _reason(error: BaseException) -> str:
    if isinstance(error, AuthenticationError):
        return "it refused the user or password"
    return str(error) or type(error).__name__


class Locator(ABC):
    """Finds the server for new connections, and remembers it until it fails."""

    def __init__(self) -> None:
        self.current: Address | None = None
        self._finding = asyncio.Lock()

    async def locate(self) -> Address:
        """Return the address of the server; tasks that wait for it share one search.

        Raises:
            UnclearMasterError: no server, or more than one, could be it.
        """
        if self.current is None:
            async with self._finding:
                if self.current is None:
                    self.current = await self.find()
        return self.current

    def lost(self, address: Address) -> None:
        """Forget a server that failed, unless another one was found since."""
        if self.current == address:
            self.current = None

    @abstractmethod
    async def find(self) -> Address:
        """Search now. Raises UnclearMasterError as `locate` does."""


class SeveralAddresses(Locator):
    """Several addresses, of which exactly one is a master."""

    def __init__(self, url: RedisUrl) -> None:
        super().__init__()
        self._url = url

    async def find(self) -> Address:
        addresses = self._url.addresses
        roles, reasons = await answers_of(map(self._role, addresses), enough=len(addresses))
        masters = [address for address, is_master in roles if is_master]
        if len(masters) == 1:
            return masters[0]
        if masters:
            raise UnclearMasterError(f"{' and '.join(map(str, masters))} are both masters. Make one a replica of the other.")
        raise UnclearMasterError("; ".join([*(f"Redis at {address} is a replica" for address, _ in roles), *reasons]))

    async def _role(self, address: Address) -> tuple[Address, bool]:
        (replication,) = await ask(self._url.servers.url(address), ("INFO", "replication"))
        return address, b"role:master" in _bytes(replication)


@dataclass(frozen=True, slots=True)
class _Vote:
    """Answer of one Sentinel: the master, the number of the failover that made it one, and how many other Sentinels there are."""

    master: Address
    failover: int
    others: int


class Sentinels(Locator):
    """The master that a majority of Sentinels has agreed to."""

    def __init__(self, url: RedisUrl) -> None:
        super().__init__()
        self._url = url

    async def find(self) -> Address:
        addresses = self._url.addresses
        votes, reasons = await answers_of(map(self._vote, addresses), enough=_majority(len(addresses)))
        known = max([len(addresses), *(vote.others + 1 for vote in votes)])
        if len(votes) < _majority(known):
            why = "; ".join(reasons) or "list more of them in CALLFOLD_REDIS_URL"
            raise UnclearMasterError(
                f"{len(votes)} of {known} Sentinels of {self._url.service} answered, and "
                f"{_majority(known)} must agree on the master: {why}"
            )
        latest = max(vote.failover for vote in votes)
        masters = {vote.master for vote in votes if vote.failover == latest}
        if len(masters) > 1:
            raise UnclearMasterError(f"the Sentinels name {' and '.join(sorted(map(str, masters)))} as the master")
        return masters.pop()

    async def _vote(self, sentinel: Address) -> _Vote:
        url, service = self._url.sentinels.url(sentinel), self._url.service
        try:
            address, state = await ask(url, ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", service), ("SENTINEL", "MASTER", service))
        except (RedisError, OSError) as error:
            raise RedisConnectionError(f"Sentinel {sentinel}: {_reason(error)}") from error
        if not isinstance(address, list) or not isinstance(state, list):
            raise RedisConnectionError(f"Sentinel {sentinel} does not know {service}")
        fields = dict(zip(state[::2], state[1::2], strict=True))
        host, port = address
        return _Vote(Address(_bytes(host).decode(), int(port)), int(fields[b"config-epoch"]), int(fields[b"num-other-sentinels"]))


def _majority(count: int) -> int:
    return count // 2 + 1


def _bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()
