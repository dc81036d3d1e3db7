"""Replay of the journal: everything that it holds from a time up to now. It is read through any number of connections."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Literal

import aio_pika
from aiormq.channel import Channel

from callfold_client.connection import ANSWER_TIMEOUT_S, connected, log, open_channel, requests
from callfold_client.errors import CallfoldClientError, SubscriptionError, TransportLostError
from callfold_client.hosts import Hosts
from callfold_client.messages import ChannelConsumer, Message
from callfold_client.stream_cursor import Offset, StreamCursor
from callfold_client.stream_end import EMPTY_AFTER_S, StreamEnd
from callfold_client.stream_reader import SILENCE_S, StreamReader

JOURNAL = "calls.journal"
Since = datetime | timedelta | Literal["first"]
_PREFETCH = 500
_COMPARED_WITHIN_S = 5.0
_NOTHING = -1


class ChannelStream(ChannelConsumer):
    """A stream on one channel, as `StreamReader` reads it."""

    is_stream = True

    def __init__(self, channel: Channel, stream: str, hosts: Hosts) -> None:
        super().__init__(channel, stream)
        self._hosts = hosts

    async def wait_until_up(self) -> None:
        if not self.is_up:
            raise TransportLostError(f"The connection that reads {self.queue} was lost.")

    async def stream_end(self) -> int | None:
        with requests(f"Cannot find the end of {self.queue}"):
            return await StreamEnd(self.channel, self.queue, _PREFETCH).find()

    async def latest_stream_end(self) -> int | None:
        """Return the latest end that any address knows. A replica can be behind, so half of the addresses must answer."""
        end = await self.stream_end()
        if len(self._hosts) == 1:
            return end
        answers = await asyncio.gather(*(self._end_at(url) for url in self._hosts))
        known = [answer for answer in answers if answer is not None]
        if 2 * len(known) < len(self._hosts):
            raise TransportLostError(f"Only {len(known)} of {len(self._hosts)} servers know the end of {self.queue}.")
        latest = max([*known, _NOTHING if end is None else end])
        return None if latest == _NOTHING else latest

    async def _end_at(self, url: str) -> int | None:
        try:
            with requests(f"Cannot find the end of {self.queue}"):
                async with asyncio.timeout(_COMPARED_WITHIN_S + EMPTY_AFTER_S), connected(url, "callfold-client") as connection:
                    channel = await open_channel(connection)
                    await channel.basic_qos(prefetch_count=_PREFETCH)
                    end = await StreamEnd(channel, self.queue, _PREFETCH).find()
                    return _NOTHING if end is None else end
        except CallfoldClientError:
            return None  # the connection that reads reports what is wrong

    def recycle(self, reason: str, /) -> None:
        raise TransportLostError(f"{self.queue} is read again: {reason}.")


class Replay:
    """Reads the journal from a time up to its end at the first connection."""

    def __init__(self, since: Since, hosts: Hosts, stream: str = JOURNAL) -> None:
        self._hosts = hosts
        self._stream = stream
        self._cursor = StreamCursor(_offset(since))
        self._end: int | None = None
        self._has_end = False
        self._connection: aio_pika.Connection | None = None
        self._reader: StreamReader[Message] | None = None
        self._channel: Channel | None = None
        self._waiting: deque[Message] = deque()

    async def next(self, connection: aio_pika.Connection) -> Message | None:
        """Return the next message of the journal; None at the end.

        Raises:
            SubscriptionError: the journal may not be read.
            StreamError: it cannot be read to its end.
            TransportLostError: the connection was lost; call again with another one.
        """
        while not self._waiting:
            reader = await self._reader_on(connection)
            if self._end is None or not reader.is_before(self._end):
                await self._close()
                return None
            received = await reader.next(quiet_s=SILENCE_S)
            if received is None:
                raise TransportLostError(f"{self._stream} delivered nothing for {SILENCE_S} s.")
            read, deliveries = received
            if read.missing:
                log.warning("%s no longer has %d events that were not read yet.", self._stream, read.missing)
            self._waiting.extend(message for message in read.messages if message.offset <= self._end)
            await deliveries[-1].ack_all()  # last, since a caller may cancel here and call again
        return self._waiting.popleft()

    async def _reader_on(self, connection: aio_pika.Connection) -> StreamReader[Message]:
        if self._reader is not None and self._connection is connection:
            return self._reader
        with requests(f"Cannot read {self._stream}"):
            channel = await open_channel(connection)
        transport = ChannelStream(channel, self._stream, self._hosts)
        await transport.consume(_PREFETCH, self._cursor.arguments())
        reader = StreamReader(transport, self._cursor, on_replaced=self._begin_again)
        if not self._has_end:
            self._end, self._has_end = await reader.common_end(), True
        elif self._cursor.last_offset is None:
            await transport.stream_end()  # then the first delivery has arrived
        self._reader, self._connection, self._channel = reader, connection, channel
        return reader

    async def _close(self) -> None:
        if self._channel is not None:
            with suppress(CallfoldClientError), requests(f"Cannot leave {self._stream}"):
                async with asyncio.timeout(ANSWER_TIMEOUT_S):
                    await self._channel.close()

    def _begin_again(self, reason: str) -> None:
        log.warning("%s was replaced, and is read from its beginning: %s.", self._stream, reason)
        self._has_end = False


def _offset(since: Since) -> Offset:
    """Return the offset of a time.

    Raises:
        SubscriptionError: the time has no time zone.
    """
    if isinstance(since, timedelta):
        return datetime.now(UTC) - abs(since)
    if isinstance(since, datetime) and since.tzinfo is None:
        raise SubscriptionError("replay_since has no time zone. Pass a time such as datetime.now(UTC) - timedelta(hours=2).")
    return since
