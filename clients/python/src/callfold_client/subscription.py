"""Subscriptions: an asynchronous iterator of events, acked one by one after the body of the loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

import aio_pika

from callfold_client.connection import Attempts, connected, log, open_channel, requests
from callfold_client.errors import (
    CallfoldClientError,
    NotAnEventError,
    RefusedError,
    StreamError,
    SubscriptionError,
    TransportLostError,
)
from callfold_client.events import Event, parse_event
from callfold_client.hosts import Hosts, location
from callfold_client.messages import ChannelConsumer, Message
from callfold_client.replay import Replay, Since
from callfold_client.seen import MemorySeenIds, SeenIds
from callfold_client.subscriber_queue import CALLS, SubscriberQueue
from callfold_client.topics import topic_matcher
from callfold_client.where import Where

_T = TypeVar("_T")
_MAX_PATTERN_BYTES = 255
MAX_BYTES = 1 << 30
PREFETCH = 50
DELIVERY_LIMIT = 20
CONNECT_WITHIN_S = 30.0


class _Session:
    """One connection that consumes the queue.

    It begins with one message at a time, and goes on with the full prefetch once that one is acked. A message that makes its
    consumer crash is then counted alone: RabbitMQ would count each crash for all that were delivered together.
    """

    def __init__(self, url: str, connection: aio_pika.Connection, consumer: ChannelConsumer, closing: AsyncExitStack) -> None:
        self.url = url
        self.connection = connection
        self.consumer = consumer
        self._closing = closing
        self._is_wide = False
        self.is_usable = True

    @classmethod
    async def open(cls, url: str, queue: SubscriberQueue) -> _Session:
        async with AsyncExitStack() as closing:
            with requests(f"Cannot connect to RabbitMQ for the queue {queue.name}"):
                connection = await closing.enter_async_context(connected(url, f"callfold-client {queue.name}"))
            await queue.declare(connection)
            with requests(f"Cannot consume {queue.name}"):
                channel = await open_channel(connection)
            return cls(url, connection, ChannelConsumer(channel, queue.name), closing.pop_all())
        raise AssertionError("an exit stack does not suppress errors")

    async def ack(self, message: Message, prefetch: int) -> None:
        if self._is_wide or prefetch == 1 or message.channel is not self.consumer.channel:
            await message.ack()
            return
        self.is_usable = False  # for the case that the caller is cancelled before this consumes again
        await self.consumer.cancel()  # with the only message still unacked, nothing else can be on its way
        await message.ack()
        await self.consumer.consume(prefetch)
        self._is_wide = self.is_usable = True

    async def close(self) -> None:
        try:
            await self.consumer.finish()
        finally:
            await self._closing.aclose()


@dataclass(slots=True)
class _Current:
    """The event whose body runs. A replayed event has no message to ack."""

    event: Event
    message: Message | None


class Subscription:
    """The events of a subscription. Use it with `async with`, then `async for`.

    An event is acked when the body of the loop is done: at the next event, or when the block ends. If the body raises, the event
    is given back. The next consumer of the queue gets it again, until it is a dead letter after `delivery_limit` deliveries.
    """

    def __init__(
        self,
        hosts: Hosts,
        queue: SubscriberQueue,
        *,
        where: Where | None,
        replay: Replay | None,
        seen: SeenIds,
        only_newer: bool,
        prefetch: int,
        limit: int | None,
        connect_within_s: float,
    ) -> None:
        self._attempts = Attempts(hosts)
        self._queue = queue
        self._matches = [topic_matcher(pattern) for pattern in queue.filters]
        self._where = where
        self._replay = replay
        self._seen = seen
        self._only_newer = only_newer
        self._prefetch = prefetch
        self._left = limit
        self._connect_within_s = connect_within_s
        self._session: _Session | None = None
        self._current: _Current | None = None
        self._taken: Message | None = None
        self._remembering: asyncio.Future[Any] | None = None
        self._is_open = False
        self._has_consumed = False
        self._is_allowed = False
        self._stopping: asyncio.Future[object] | None = None

    async def __aenter__(self) -> Self:
        """Connect, and declare and bind the queue: no event that is published from now on is missed.

        Raises:
            SubscriptionError: RabbitMQ refuses the user or a right, or the queue exists with other arguments.
            TransportLostError: RabbitMQ cannot be reached within `connect_within_s`.
        """
        self._stopping = asyncio.get_running_loop().create_future()
        await self._connect(within_s=self._connect_within_s)
        self._is_open = True
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Ack the current event, or give it back if the body raised. Then close the connection, which requeues the rest."""
        self._is_open = False
        try:
            if self._session is not None:  # first, since RabbitMQ delivers again at once what is given back
                await self._session.consumer.cancel_softly()
            await self._settle(kind)
            await self._remembering_done()
        finally:
            session, self._session = self._session, None
            if session is not None:
                await session.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """Ack the event before, and wait for the next one. A caller that is cancelled here, by a time-out too, may call again."""
        if not self._is_open:
            raise SubscriptionError("The subscription is not open. Use `async with subscribe(...) as events`.")
        await self._settle(None)
        while self._left != 0:
            self._taken = message = self._taken or await self._next_message()
            if message is None:
                break
            event = await self._used(message)
            self._taken = None
            if event is None:
                continue
            self._current = _Current(event, None if message.is_from_stream else message)
            if self._left is not None:
                self._left -= 1
            return event
        raise StopAsyncIteration

    def stop(self) -> None:
        """End the iteration after the current event. Call it from the same thread, for example in a signal handler."""
        if self._stopping is not None and not self._stopping.done():
            self._stopping.set_result(None)

    @property
    def _is_stopping(self) -> bool:
        return self._stopping is None or self._stopping.done()

    @property
    def _is_ending(self) -> bool:
        """True if no further event will be delivered."""
        return self._is_stopping or not self._is_open or self._left == 0

    async def _settle(self, kind: type[BaseException] | None) -> None:
        if self._current is None:
            return
        event, message = self._current.event, self._current.message
        if kind is None:
            await self._remembered(self._seen.add, event.id, _name(event), event.revision or 0)
            if message is not None:
                await self._ack(message)
        elif message is not None:
            await message.requeue(counts=issubclass(kind, Exception))
        self._current = None

    async def _ack(self, message: Message) -> None:
        if message.is_from_stream:
            return
        try:
            if self._session is None or self._is_ending:
                if self._session is not None:
                    await self._session.consumer.cancel_softly()
                await message.ack()
            else:
                # What is prefetched and not used counts as an attempt, so no more is prefetched than will be used.
                left = self._prefetch if self._left is None else self._left
                await self._session.ack(message, min(self._prefetch, left))
        except CallfoldClientError as error:  # it is delivered again, and recognized then
            await self._disconnect(error)

    async def _remembered(self, call: Callable[..., _T], *arguments: object) -> _T:
        """Use the memory of handled events. One that may wait for a disk or a server does so in a thread."""
        if isinstance(self._seen, MemorySeenIds):
            return call(*arguments)
        await self._remembering_done()
        self._remembering = remembering = asyncio.ensure_future(asyncio.to_thread(call, *arguments))
        return await asyncio.shield(remembering)

    async def _remembering_done(self) -> None:
        """Wait for the last use of the memory. A cancelled caller does not end its thread, and two must not use it at once."""
        if self._remembering is not None:
            await asyncio.wait([self._remembering])

    async def _next_message(self) -> Message | None:
        """Return the next message of the replay or the queue; None once the subscription is to stop."""
        while not self._is_stopping:
            try:
                session = self._session or await self._connect()
                if session is None:
                    break
                if self._replay is not None:
                    message = await self._replay.next(session.connection)
                    if message is not None:
                        self._attempts.succeeded()
                        return message
                    self._replay = None
                    log.info("The replay is complete. The queue %s follows.", self._queue.name)
                if (message := await self._from_queue(session)) is not None:
                    return message
            except (TransportLostError, StreamError) as error:
                await self._disconnect(error)
        return None

    async def _from_queue(self, session: _Session) -> Message | None:
        """Return the next message of the queue; None if none arrives for a second."""
        if not session.is_usable:
            raise TransportLostError("The last request to RabbitMQ was cancelled.")
        try:
            if not self._has_consumed:
                await session.consumer.consume(1)
                self._has_consumed = self._is_allowed = True
                self._attempts.succeeded()
        except SubscriptionError as error:
            if isinstance(error, RefusedError) and not self._is_allowed:
                raise
            raise TransportLostError(str(error)) from None  # if the queue was just deleted, it is declared again
        if self._stopping is not None and await session.consumer.arrived(self._stopping):
            return await session.consumer.get()
        return None

    async def _used(self, message: Message) -> Event | None:
        """Return the event of a message. If it is to be skipped or is no event, settle it and return None."""
        try:
            event = await self._accepted(message)
        except NotAnEventError as error:
            await self._dead_letter(message, str(error))
            return None
        if event is None:
            await self._ack(message)
        return event

    async def _accepted(self, message: Message) -> Event | None:
        """Return the event of a message; None if it is to be skipped.

        Raises:
            NotAnEventError: it is no event.
        """
        is_published = (
            message.is_from_stream or message.exchange == CALLS
        )  # else someone put it into this queue, such as a redrive
        if is_published and not any(matches(message.routing_key) for matches in self._matches):
            return None  # an earlier filter of the queue, whose binding is still there
        event = parse_event(message.body, message.routing_key)
        if self._where is not None and not self._where.matches(event.raw):
            return None
        if await self._remembered(self._seen.has, event.id):
            return None
        if self._only_newer and event.revision and event.revision <= await self._remembered(self._seen.revision, _name(event)):
            return None
        return event

    async def _dead_letter(self, message: Message, reason: str) -> None:
        """Dead-letter a message that is no event, and settle it. It stays in the journal if it was replayed."""
        log.error("A message with the routing key %r was not used. %s", message.routing_key, reason)
        if message.is_from_stream or self._session is None:
            return
        try:
            await self._queue.dead_letter(self._session.url, message, reason)
        except CallfoldClientError as error:
            log.warning("The reason is not in the dead letter. %s", error)
            await message.dead_letter()
        else:
            await self._ack(message)

    async def _connect(self, *, within_s: float | None = None) -> _Session | None:
        """Connect to any address; None if the subscription is to stop. Without `within_s` this never gives up."""
        began = time.monotonic()
        while not self._is_stopping:
            url = self._attempts.next()
            try:
                self._session = await _Session.open(url, self._queue)
            except (TransportLostError, SubscriptionError) as error:
                pause_s = self._attempts.pause_s()
                is_late = within_s is not None and time.monotonic() + pause_s - began > within_s
                if is_late or (within_s is not None and isinstance(error, SubscriptionError)):
                    raise
                self._attempts.log_lost(url, error)
                await self._pause(pause_s)
            else:
                self._has_consumed = False
                log.info("Connected to RabbitMQ at %s for the queue %s.", location(url), self._queue.name)
                return self._session
        return None

    async def _pause(self, pause_s: float) -> None:
        if self._stopping is not None:
            await asyncio.wait([self._stopping], timeout=pause_s)

    async def _disconnect(self, error: CallfoldClientError) -> None:
        session, self._session = self._session, None
        if session is not None:
            self._attempts.log_lost(session.url, error)
            await session.close()
            await self._pause(self._attempts.pause_s())


def subscribe(
    url: str | Sequence[str],
    *,
    queue: str,
    filter: str | Sequence[str] = "call.#",  # noqa: A002 - the word of the field
    where: str | Where | None = None,
    replay_since: Since | None = None,
    seen: SeenIds | None = None,
    only_newer: bool = False,
    prefetch: int = PREFETCH,
    limit: int | None = None,
    max_bytes: int = MAX_BYTES,
    delivery_limit: int = DELIVERY_LIMIT,
    declare: bool = True,
    connect_within_s: float = CONNECT_WITHIN_S,
) -> Subscription:
    """Subscribe to events. The queue keeps them while the program is down.

    Args:
        url: one or several URLs of RabbitMQ, as a list or separated by commas. They are used in a random order.
        queue: the name of the queue. Consumers of one queue share its events; another queue gets all of them again.
        filter: one or several topic patterns, such as `call.completed.acme.*`.
        where: a filter on the content, such as `talk_seconds > 60 and outcome == 'answered'`.
        replay_since: first replay the journal since this time or for this duration; `"first"` is all of it.
        seen: where the ids of handled events are kept. By default it is the memory of the process.
        only_newer: skip a revision of a call if that one or a higher one was handled.
        prefetch: number of messages that RabbitMQ sends ahead.
        limit: number of events after which the iteration ends.
        max_bytes: limit of the queue. A full queue drops its oldest messages to `<queue>.dead`.
        delivery_limit: number of deliveries without an ack after which an event is a dead letter.
        declare: declare and bind the queue. Otherwise it must exist.
        connect_within_s: how long the first connection may take. After that the subscription never gives up.

    Raises:
        SubscriptionError: an argument is not valid; for `where` it is WhereError.
    """
    filters = (filter,) if isinstance(filter, str) else tuple(filter)
    if not filters or not all(pattern and len(pattern.encode()) <= _MAX_PATTERN_BYTES for pattern in filters):
        raise SubscriptionError(f"A filter is a topic pattern of 1 to {_MAX_PATTERN_BYTES} bytes, such as call.completed.#.")
    if not queue or len(queue.encode()) + len(".dead") > _MAX_PATTERN_BYTES or queue.startswith("amq."):
        raise SubscriptionError("The name of the queue is empty, too long, or begins with amq.")
    for name, number in (("prefetch", prefetch), ("max_bytes", max_bytes), ("delivery_limit", delivery_limit)):
        if number < 1:
            raise SubscriptionError(f"{name} must be at least 1.")
    hosts = Hosts(url)
    return Subscription(
        hosts,
        SubscriberQueue(queue, filters, max_bytes, delivery_limit, declare),
        where=Where(where) if isinstance(where, str) else where,
        replay=None if replay_since is None else Replay(replay_since, hosts),
        seen=MemorySeenIds() if seen is None else seen,
        only_newer=only_newer,
        prefetch=prefetch,
        limit=limit,
        connect_within_s=connect_within_s,
    )


def _name(event: Event) -> str:
    return "/".join(event.call)
