"""The Idempotency-Keys of dial requests in the stream `dials.journal`, so that a Redis that was lost makes no phone ring twice.

A request with a key is recorded in the stream before anything is dialed. The first record of a key counts, by the order of the
stream, which all consoles read alike. Redis answers repeats while it has the key, so this decides only once Redis has lost it.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NoReturn

import orjson

from shared.amqp.batch_publish import HeaderValue
from shared.amqp.consumer import Consumer
from shared.amqp.publisher import Message, Publisher
from shared.amqp.topology import DIALS_JOURNAL
from shared.errors import BrokerUnavailableError
from shared.log import get_logger
from shared.outage import Outage
from shared.runtime.process import background

log = get_logger(__name__)
_RECORDS = Outage(log, "dial_key_not_recorded", "dial_keys_recorded")

KEPT_S: Final = 24 * 3600
_READ_BACK_S: Final = 10.0
_PREFETCH: Final = 500
_MAX_UNRECORDED: Final = 10_000


@dataclass(slots=True)
class _Holder:
    """The first request with a key: the `entry` that Redis has of it, and when it was recorded (seconds since 1970).

    One that `is_refused` dialed nothing, and its release was not read yet. It still precedes the records ahead of its release.
    """

    by: str
    entry: bytes
    at_s: float
    is_refused: bool = False


class DialKeys:
    """Reads and writes the stream. Without RabbitMQ nothing is recorded before a dial, and Redis alone knows the key."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._consumer = Consumer(publisher.address, DIALS_JOURNAL, prefetch=_PREFETCH, arguments=self._arguments)
        self._last: int | None = None
        self._holders: dict[str, _Holder] = {}
        self._read_back: dict[str, asyncio.Future[bytes | None]] = {}
        self._unrecorded: deque[Mapping[str, Any]] = deque(maxlen=_MAX_UNRECORDED)

    def _arguments(self) -> dict[str, HeaderValue]:
        since = datetime.now(UTC) - timedelta(seconds=KEPT_S)
        return {"x-stream-offset": since if self._last is None else self._last + 1}

    async def run(self) -> NoReturn:
        """Read the records of all consoles until cancelled. Run it as a task."""
        async with background(self._consumer.run()):
            while True:
                delivery = await self._consumer.get()
                await delivery.ack()
                if self._last is None or delivery.offset > self._last:
                    self._last = delivery.offset
                    self._take(delivery.body)
        raise AssertionError("the loop does not end")

    async def claim(self, name: str, by: str, entry: bytes) -> bytes | None:
        """Record a request before it dials; returns the entry of the earlier request that has this key, if there is one."""
        read_back: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self._read_back[by] = read_back
        read_to = self._last
        try:
            for delayed in [each for each in self._unrecorded if each["name"] == name]:
                await self._record(delayed)  # a claim ahead of the release of its key does not count
            await self._record({"name": name, "by": by, "entry": entry.decode(), "at": time.time()})
            async with asyncio.timeout(_READ_BACK_S):
                earlier = await read_back
        except BrokerUnavailableError as error:
            _RECORDS.failed(str(error))
            return self._earlier(name, by)
        except TimeoutError:
            _RECORDS.failed("RabbitMQ did not deliver the record in time")
            if self._last == read_to:  # a stream that was replaced begins at a lower offset
                self._last = None
                self._consumer.recycle(f"{DIALS_JOURNAL} delivers nothing")
            return self._earlier(name, by)
        finally:
            self._read_back.pop(by, None)
        _RECORDS.succeeded()
        return earlier

    def entry(self, name: str) -> bytes | None:
        """Return the entry of the request that has a key, as far as it was read, until the key expires."""
        holder = self._holders.get(name)
        is_free = holder is None or holder.is_refused or holder.at_s < time.time() - KEPT_S
        return None if holder is None or is_free else holder.entry

    def _earlier(self, name: str, by: str) -> bytes | None:
        holder = self._holders.get(name)
        return None if holder is None or holder.by == by else self.entry(name)

    async def finish(self, name: str, by: str, entry: bytes) -> None:
        """Record the answer to a request."""
        await self._record_soon({"name": name, "by": by, "entry": entry.decode(), "at": time.time(), "is_answer": True})

    async def release(self, name: str, by: str) -> None:
        """Record that a request dialed nothing, so that its key is free. Here it is free at once."""
        holder = self._holders.get(name)
        if holder is not None and holder.by == by:
            holder.is_refused = True
        await self._record_soon({"name": name, "by": by, "entry": "", "at": time.time()})

    async def record_delayed(self) -> None:
        """Record what RabbitMQ did not take before."""
        while self._unrecorded and self._publisher.is_up:
            record = self._unrecorded[0]
            try:
                await self._record(record)
            except BrokerUnavailableError as error:
                _RECORDS.failed(str(error))
                return
            if self._unrecorded and self._unrecorded[0] is record:
                self._unrecorded.popleft()
        _RECORDS.succeeded()

    async def _record_soon(self, record: Mapping[str, Any]) -> None:
        try:
            await self._record(record)
        except BrokerUnavailableError as error:
            _RECORDS.failed(str(error))
            self._unrecorded.append(record)

    async def _record(self, record: Mapping[str, Any]) -> None:
        await self._publisher.publish(Message("", DIALS_JOURNAL, orjson.dumps(record), uuid.uuid4().hex))

    def _take(self, body: bytes) -> None:
        match _decoded(body):
            case {"name": str(name), "by": str(by), "entry": str(entry), "at": float() | int() as at_s, **more}:
                self._forget(time.time() - KEPT_S)
                holder = self._holders.get(name)
                if not entry:
                    if holder is not None and holder.by == by:
                        del self._holders[name]
                elif holder is None or (holder.is_refused and more.get("is_answer")):  # only if its release was lost
                    self._holders[name] = _Holder(by, entry.encode(), at_s)
                elif holder.by == by and more.get("is_answer"):
                    holder.entry = entry.encode()
                read_back = self._read_back.get(by)
                if read_back is not None and not read_back.done():
                    read_back.set_result(self._earlier(name, by))
            case _:
                log.warning("unexpected_message", queue=DIALS_JOURNAL)

    def _forget(self, before_s: float) -> None:
        """Forget the keys that have expired. The order of the stream is about that of their times."""
        for name, holder in list(self._holders.items()):
            if holder.at_s >= before_s:
                return
            del self._holders[name]


def _decoded(body: bytes) -> object:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
