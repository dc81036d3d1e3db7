"""Timelines of calls: one reader of the journal serves all look-ups that wait for it.

A reader takes a connection and, for an old call, seconds of CPU time. So all searches that begin at about the same place of the
journal share one pass over it. What was found is kept for a while, and the next look-up reads only what came since.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum, auto

from console.lookup.timeline import Row, Search, Timeline, events_of, received_at
from shared.amqp.delivery import Delivery
from shared.amqp.topology import CALLBACKS_JOURNAL
from shared.clock import utc_now
from shared.config.settings import Settings
from shared.domain.adapter_link import Adapter
from shared.domain.call import Call
from shared.domain.ids import CallKey
from shared.errors import CallfoldError, leaf_errors
from shared.streams.journal import Offset, journal_until_now

# The journal is in RabbitMQ's order of arrival. It is read from the call's start for this long, or up to now.
_READ_FOR_S = 5.0
# Limits on connecting, and on the whole pass if RabbitMQ or the journal stops answering; also on the wait for earlier passes.
_CONNECT_S = 3.0
_WAIT_FOR_S = 10.0
_RECENT = timedelta(minutes=5)
# Searches that begin within this time of each other share a pass.
_TOGETHER = timedelta(minutes=10)
_STEP_S = 0.002
_SHORT_BYTES = 16 << 10
_KEPT_FOR_S = 120
_MAX_KEPT = 500
_MAX_KEPT_CHARACTERS = 16 << 20


class _Lane(StrEnum):
    """Searches wait only for those of their lane, so a fresh call does not wait for a pass over days."""

    CONTINUED = auto()
    RECENT = auto()
    OLD = auto()


@dataclass(frozen=True, slots=True)
class _Kept:
    """The events of a call. `last` is the last message that was read; None if the journal was not read to its end."""

    adapter: Adapter
    since: datetime
    until: datetime
    rows: Sequence[Row]
    size: int
    last: tuple[int, int] | None
    at: float

    def is_of(self, search: Search) -> bool:
        is_fresh = time.monotonic() - self.at < _KEPT_FOR_S
        return is_fresh and self.adapter == search.adapter and self.since <= search.since


class Timelines:
    """Reads raw events of calls from the journal."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._kept: OrderedDict[CallKey, _Kept] = OrderedDict()
        self._waiting: dict[_Lane, list[Search]] = defaultdict(list)
        self._locks: dict[_Lane, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def read(self, adapter: Adapter, call: Call) -> Timeline:
        """Read the raw events of a call, up to now. A failure is reported in the result."""
        search = Search.of(call, adapter)
        kept = self._kept.get(call.key)
        if kept is None or not kept.is_of(search):
            now = datetime.fromisoformat(utc_now())
            return await self._wait(search, _Lane.RECENT if search.since > now - _RECENT else _Lane.OLD)
        if kept.last is None and kept.until >= search.until:
            return Timeline(kept.rows, is_whole=True)
        if kept.last is None:
            return await self._wait(search, _Lane.OLD)
        search.since, search.last, search.known = kept.since, kept.last, kept.rows
        timeline = await self._wait(search, _Lane.CONTINUED)
        if search.is_same_journal or timeline.problem:
            return timeline
        self._kept.pop(call.key, None)
        return await self.read(adapter, call)  # the journal was replaced

    async def _wait(self, search: Search, lane: _Lane) -> Timeline:
        """Wait for the searches before this one, then search for all that wait, unless another did."""
        waiting = self._waiting[lane]
        waiting.append(search)
        try:
            async with asyncio.timeout(_WAIT_FOR_S) as limit, self._locks[lane]:
                limit.reschedule(None)  # a pass has another limit
                if search.result is None:
                    since = _offset(search) if lane is _Lane.CONTINUED else search.since
                    await self._pass(self._together(search, lane), since)
        except TimeoutError:
            search.result = Timeline(problem=f"Other look-ups were read for more than {_WAIT_FOR_S:g} s. Try again later.")
        finally:
            waiting.remove(search)
        if search.result is None:
            raise RuntimeError("a search without result")
        return search.result

    def _together(self, first: Search, lane: _Lane) -> list[Search]:
        """Choose the searches that a pass from the begin of the first one serves as well."""
        waiting = [search for search in self._waiting[lane] if search.result is None]
        if lane is _Lane.CONTINUED:
            return [search for search in waiting if _offset(search) >= _offset(first)]
        return [search for search in waiting if timedelta() <= search.since - first.since <= _TOGETHER]

    async def _pass(self, searches: Sequence[Search], since: Offset) -> None:
        problem = None
        try:
            async with asyncio.timeout(_WAIT_FOR_S):
                await self._read_journal(searches, since)
        except* TimeoutError:
            problem = f"RabbitMQ did not answer within {_WAIT_FOR_S:g} s. Try again later."
        except* CallfoldError as group:  # raised in the connection's task group
            problem = str(leaf_errors(group)[0])
        if problem is not None:
            for search in searches:
                search.result = Timeline(problem=problem)

    async def _read_journal(self, searches: Sequence[Search], since: Offset) -> None:
        deadline, step_until = time.monotonic() + _READ_FOR_S, 0.0
        last: Delivery | None = None
        for search in searches:
            search.begin()
        async with journal_until_now(self._settings, since, stream=CALLBACKS_JOURNAL, connect_s=_CONNECT_S) as deliveries:
            async for delivery in deliveries:
                if last is not None and delivery.offset <= last.offset:  # a new connection begins where this one did
                    continue
                last = delivery
                await _search_in(delivery, searches)
                now = time.monotonic()
                if now > deadline:
                    self._finish(searches, None, received_at(delivery.body))
                    return
                if now > step_until:  # dials and streams have their turn
                    await asyncio.sleep(0)
                    step_until = time.monotonic() + _STEP_S
        self._finish(searches, last, None)

    def _finish(self, searches: Sequence[Search], last: Delivery | None, read_until: datetime | None) -> None:
        """End searches, and keep what they found. `read_until` is None if the journal was read to its end."""
        position = None if last is None else (last.offset, hash(last.body))
        for search in searches:
            search.result = search.timeline(is_whole=read_until is None or read_until > search.until)
            is_known_position = position is not None or read_until is not None
            if search.result.is_whole and search.is_same_journal and is_known_position:
                self._keep(search, position)

    def _keep(self, search: Search, last: tuple[int, int] | None) -> None:
        rows = tuple(search.rows)
        self._kept.pop(search.key, None)
        self._kept[search.key] = _Kept(search.adapter, search.since, search.until, rows, search.size, last, time.monotonic())
        while len(self._kept) > _MAX_KEPT or sum(kept.size for kept in self._kept.values()) > _MAX_KEPT_CHARACTERS:
            self._kept.popitem(last=False)


async def _search_in(delivery: Delivery, searches: Sequence[Search]) -> None:
    offset = delivery.offset
    for search in searches:
        if search.last is not None and search.last[0] == offset:
            search.is_same_journal = search.last[1] == hash(delivery.body)
    searching = [search for search in searches if offset > _offset(search) and search.may_be_in(delivery.body)]
    events = events_of(delivery.body) if searching else []
    for search in searching:
        if len(delivery.body) <= _SHORT_BYTES:
            search.add_from(events)
            continue
        for event in events:
            search.add_from((event,))
            await asyncio.sleep(0)  # a long value takes milliseconds, and a message can hold many


def _offset(search: Search) -> int:
    return -1 if search.last is None else search.last[0]
