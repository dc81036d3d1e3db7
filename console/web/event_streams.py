"""`GET /events` and the page's live part, as server-sent events (HTML standard, section 9.2)."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from datetime import datetime

import orjson
from aiohttp import web
from pydantic import ValidationError

from callfold_client.where import Where
from console.live.feed import BEFORE_FIRST, Feed, PublishedEvent
from console.live.monitor import Monitor
from console.live.snapshot import Snapshot
from console.web.keys import IDENTITY
from console.web.models import EventsQuery
from console.web.open_responses import OpenResponses
from console.web.parameters import read_parameters
from console.web.problems import invalid, problem
from shared.log import get_logger
from shared.streams.events import topic_matcher

log = get_logger(__name__)

_MAX_STREAMS = 200
_MAX_STREAMS_PER_KEY = 100  # so that no key can take all
_RETRY_MS = 2000
_DISCONNECT_POLL_S = 0.25
_POSITION_S = 10.0  # at most so long without a byte, also while events come that do not match
_KEEPALIVE = b": nothing new\n\n"
EVENT_ID_PATTERN = "[0-9]{1,18}"


class EventStreams:
    """Serves every reader from one feed. A slow reader delays no other."""

    def __init__(self, feed: Feed, monitor: Monitor, stop: asyncio.Event, render: Callable[[Snapshot], str]) -> None:
        """`render` writes the live part of the page; `stop` ends every stream."""
        self._feed = feed
        self._monitor = monitor
        self._stop = stop
        self._render = render
        self._open = OpenResponses("streams", per_key=_MAX_STREAMS_PER_KEY, total=_MAX_STREAMS)
        self._latest: tuple[Snapshot, bytes] | None = None

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Stream the published events that match `topic` and `where`; with `Last-Event-ID`, from the next event on."""
        try:
            query = read_parameters(request, EventsQuery)
        except ValidationError as error:
            return invalid(error, EventsQuery)
        last = request.headers.get("Last-Event-ID")
        if last and not re.fullmatch(EVENT_ID_PATTERN, last):
            title = "Last-Event-ID is not an event id. Send the `id` of an event from this stream, or leave the header out."
            return problem(400, title, parameter="Last-Event-ID")
        known = int(last) if last else query.after
        if known is None and query.since is not None:
            return await self._serve(request, self._published(BEFORE_FIRST, query))
        # Read before the response begins: everything published after that is sent.
        return await self._serve(request, self._published(await self._feed.resume_offset(known), query))

    async def live(self, request: web.Request) -> web.StreamResponse:
        """Stream the live part of the page as HTML."""
        return await self._serve(request, self._snapshots())

    async def _published(self, after: int, query: EventsQuery) -> AsyncGenerator[bytes, None]:
        """Write the events that match. The position is sent too, so that a reader who saw no event resumes without a gap."""
        matches = _matcher(query)
        since = datetime.fromisoformat(query.since) if query.since else None
        position, sent_at = after, time.monotonic()
        yield _encode_position(position)
        async with aclosing(self._feed.events(after, since)) as events:
            async for event in events:
                position = position if event is None else event.offset
                if event is not None and matches(event):
                    yield _encode(event)
                elif event is None or time.monotonic() - sent_at >= _POSITION_S:
                    yield _encode_position(position)
                else:
                    continue
                sent_at = time.monotonic()

    async def _snapshots(self) -> AsyncGenerator[bytes, None]:
        while True:
            yield self._encode_snapshot(await self._monitor.next())

    def _encode_snapshot(self, snapshot: Snapshot) -> bytes:
        """Encode a snapshot once for all readers."""
        if self._latest is None or self._latest[0] is not snapshot:
            lines = self._render(snapshot).splitlines()
            self._latest = snapshot, b"event: live\n" + b"".join(b"data: " + line.encode() + b"\n" for line in lines) + b"\n"
        return self._latest[1]

    async def _serve(self, request: web.Request, chunks: AsyncGenerator[bytes, None]) -> web.StreamResponse:
        key_name = request[IDENTITY].name
        refusal = self._open.refuse_beyond(key_name)
        if refusal is not None:
            return refusal
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
        with self._open.one(key_name):
            await response.prepare(request)
            await response.write(b"retry: %d\n\n" % _RETRY_MS)
            ends = (_write_all(response, chunks), self._stop.wait(), _until_disconnected(request))
            tasks = [asyncio.ensure_future(end) for end in ends]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                result, *_ = await asyncio.gather(*tasks, return_exceptions=True)
            # A reader that disconnects is no error.
            if isinstance(result, Exception) and not isinstance(result, ConnectionError):
                log.warning("event_stream_failed", path=request.path, detail=f"{type(result).__name__}: {result}")
        return response


async def _until_disconnected(request: web.Request) -> None:
    """Wait until the client has disconnected. Without this, a quiet stream would notice only at its next write."""
    while request.transport is not None and not request.transport.is_closing():  # noqa: ASYNC110 - it has no event
        await asyncio.sleep(_DISCONNECT_POLL_S)


async def _write_all(response: web.StreamResponse, chunks: AsyncGenerator[bytes, None]) -> None:
    async with aclosing(chunks):
        async for chunk in chunks:
            await response.write(chunk)


def _matcher(query: EventsQuery) -> Callable[[PublishedEvent], bool]:
    """Return the filter of a reader. Parsing comes last, since it takes the most time."""
    has_topic = topic_matcher(query.topic)
    where = Where(query.where) if query.where else None

    def matches(event: PublishedEvent) -> bool:
        return has_topic(event.routing_key) and (where is None or where.matches(orjson.loads(event.body)))

    return matches


def _encode_position(offset: int) -> bytes:
    """Encode where a reader is. An id without data is no event, but a reader sends it as its Last-Event-ID."""
    return _KEEPALIVE if offset == BEFORE_FIRST else b"id: %d\n%s" % (offset, _KEEPALIVE)


def _encode(event: PublishedEvent) -> bytes:
    """Encode one event, whose body is one line."""
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (event.offset, event.routing_key.encode(), event.body)
