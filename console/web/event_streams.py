"""`GET /events` and the page's live part, as server-sent events (HTML standard, section 9.2)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from aiohttp import web
from pydantic import ValidationError

from console.live.feed import Feed, PublishedEvent
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
        """Stream the published events whose routing key matches `topic`; with `Last-Event-ID`, from the next event on."""
        try:
            query = read_parameters(request, EventsQuery)
        except ValidationError as error:
            return invalid(error, EventsQuery)
        last = request.headers.get("Last-Event-ID")
        if last and not re.fullmatch(EVENT_ID_PATTERN, last):
            title = "Last-Event-ID is not an event id. Send the `id` of an event from this stream, or leave the header out."
            return problem(400, title, parameter="Last-Event-ID")
        # Read before the response begins: everything published after that is sent.
        after = await self._feed.resume_offset(int(last) if last else query.after)
        return await self._serve(request, self._published(after, topic_matcher(query.topic)))

    async def live(self, request: web.Request) -> web.StreamResponse:
        """Stream the live part of the page as HTML."""
        return await self._serve(request, self._snapshots())

    async def _published(self, after: int, matches: Callable[[str], bool]) -> AsyncGenerator[bytes, None]:
        async with aclosing(self._feed.events(after)) as events:
            async for event in events:
                if event is None:
                    yield _KEEPALIVE
                elif matches(event.routing_key):
                    yield _encode(event)

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


def _encode(event: PublishedEvent) -> bytes:
    """Encode one event, whose body is one line."""
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (event.offset, event.routing_key.encode(), event.body)
