"""What is published, and what is going on, as server-sent events (HTML standard, section 9.2)."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from aiohttp import web
from pydantic import ValidationError

from console.live.feed import Feed, PublishedEvent
from console.live.monitor import Monitor
from console.live.snapshot import Snapshot
from console.streams.events import topic_matcher
from console.web.access import WHO
from console.web.models import EventsQuery
from console.web.problems import invalid, problem, read_parameters
from shared.log import get_logger

log = get_logger(__name__)

_MAX_WATCHERS = 200
_MAX_WATCHERS_OF_ONE = 100  # with one key, so that no key takes every place
_RETRY_MS = 2000
_GONE_KNOWN_S = 0.25
# Comments that keep a connection alive where nothing happens.
_NOTHING = b": nothing new\n\n"
EVENT_ID_PATTERN = "[0-9]{1,18}"


class LiveApi:
    """Serves everybody who watches, out of one feed; each reads as fast as he can, none holds up another."""

    def __init__(self, feed: Feed, monitor: Monitor, stop: asyncio.Event, render: Callable[[Snapshot], str]) -> None:
        """`render` writes the live part of the page; `stop` ends every stream."""
        self._feed = feed
        self._monitor = monitor
        self._stop = stop
        self._render = render
        self._watchers: Counter[str] = Counter()
        self._written: tuple[Snapshot, bytes] | None = None

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Follow the published events whose routing key matches `topic`; `Last-Event-ID` goes on after that event."""
        try:
            query = read_parameters(request, EventsQuery)
        except ValidationError as error:
            return invalid(error, EventsQuery)
        last = request.headers.get("Last-Event-ID")
        if last and not re.fullmatch(EVENT_ID_PATTERN, last):
            return problem(400, "Last-Event-ID is not an id that came with an event.", parameter="Last-Event-ID")
        # Known before the answer begins, so that what is published from then on comes.
        after = await self._feed.resume_offset(int(last) if last else query.after)
        return await self._serve(request, self._published(after, topic_matcher(query.topic)))

    async def live(self, request: web.Request) -> web.StreamResponse:
        """Follow the live part of the page, as HTML."""
        return await self._serve(request, self._snapshots())

    async def _published(self, after: int, matcher: re.Pattern[str]) -> AsyncGenerator[bytes, None]:
        async with aclosing(self._feed.events(after)) as events:
            async for event in events:
                if event is None:
                    yield _NOTHING
                elif matcher.fullmatch(event.routing_key):
                    yield _write(event)

    async def _snapshots(self) -> AsyncGenerator[bytes, None]:
        while True:
            yield self._live_event(await self._monitor.next())

    def _live_event(self, snapshot: Snapshot) -> bytes:
        """Write the event of a snapshot; everybody who watches gets the same bytes, so they are written once."""
        if self._written is None or self._written[0] is not snapshot:
            lines = self._render(snapshot).splitlines()
            self._written = snapshot, b"event: live\n" + b"".join(b"data: " + line.encode() + b"\n" for line in lines) + b"\n"
        return self._written[1]

    async def _serve(self, request: web.Request, pieces: AsyncGenerator[bytes, None]) -> web.StreamResponse:
        who = request[WHO].who
        if self._watchers[who] >= _MAX_WATCHERS_OF_ONE:
            return problem(429, "Too many watch with this key already.", {"Retry-After": "10"})
        if self._watchers.total() >= _MAX_WATCHERS:
            return problem(503, "Too many watch already.", {"Retry-After": "10"})
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
        self._watchers[who] += 1
        try:
            await response.prepare(request)
            await response.write(b"retry: %d\n\n" % _RETRY_MS)
            ends = (_write_all(response, pieces), self._stop.wait(), _until_gone(request))
            tasks = [asyncio.ensure_future(end) for end in ends]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                ended, *_ = await asyncio.gather(*tasks, return_exceptions=True)
            # A reader who leaves is no error.
            if isinstance(ended, Exception) and not isinstance(ended, ConnectionError):
                log.warning("stream_ended", path=request.path, detail=f"{type(ended).__name__}: {ended}")
        finally:
            self._watchers[who] -= 1
        return response


async def _until_gone(request: web.Request) -> None:
    """Return soon after who asked has left: a write would find out too, but where nothing happens it can be long until one."""
    while request.transport is not None and not request.transport.is_closing():  # noqa: ASYNC110 - it has no event
        await asyncio.sleep(_GONE_KNOWN_S)


async def _write_all(response: web.StreamResponse, pieces: AsyncGenerator[bytes, None]) -> None:
    async with aclosing(pieces):
        async for piece in pieces:
            await response.write(piece)


def _write(event: PublishedEvent) -> bytes:
    """Write one event; its body is one line."""
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (event.offset, event.routing_key.encode(), event.body)
