"""Watches Redis: whether it can be written, and whether the clock of this process agrees with it."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Final, NoReturn
from weakref import WeakSet

from shared import metrics
from shared.domain.sender_clock import EQUAL_CLOCKS
from shared.errors import StoreUnavailableError
from shared.log import get_logger
from shared.outage import Outage
from shared.state.replies import REDIS_OUTAGE
from shared.state.store import Store

log = get_logger(__name__)
_CLOCKS = Outage(log, "clock_differs", "clock_agrees")
_MASTER = Outage(log, "redis_master_unclear", "redis_master_clear")

# Stores of this process that cannot be used. The console has two.
_AWAY: Final[WeakSet[Store]] = WeakSet()

_INTERVAL_S: Final = 5.0
_ROLES_INTERVAL_S: Final = 15.0
_CHECKS_PER_CLOCK: Final = 12  # once a minute


async def watch_store(store: Store) -> NoReturn:
    """Write to Redis and find its master again every few seconds, and compare the clocks once a minute. Run it as a task.

    A refused write drops all connections, so that readers leave a server that cannot be written too.
    """
    for number in itertools.count():
        try:
            began = time.perf_counter()
            await store.check()
            metrics.REDIS_ROUND_TRIP.observe(time.perf_counter() - began)
            await store.verify()
            _report_master(store)
            if number % _CHECKS_PER_CLOCK == 0 or store.clock.offset_s is None:
                await store.now()
                report_clock(store.clock.offset_s)
        except StoreUnavailableError as error:
            REDIS_OUTAGE.failed(str(error), task=store)
            _AWAY.add(store)
        else:
            REDIS_OUTAGE.succeeded(task=store)
            _AWAY.discard(store)
        metrics.REDIS_UP.set(not _AWAY)
        await asyncio.sleep(_INTERVAL_S)
    raise AssertionError("count() does not end")


async def watch_server_roles(store: Store) -> NoReturn:
    """Export which role each known server of Redis has, until cancelled. Run it as a task."""
    exported: dict[str, str] = {}
    while True:
        roles = await store.roles.read()
        for server, role in exported.items():
            if roles.get(server) != role:
                metrics.REDIS_SERVER_ROLE.set(None, server, role)
        for server, role in roles.items():
            metrics.REDIS_SERVER_ROLE.set(1, server, role)
        exported = roles
        await asyncio.sleep(_ROLES_INTERVAL_S)


def _report_master(store: Store) -> None:
    if store.unclear_master:
        _MASTER.failed(store.unclear_master, task=store)
    else:
        _MASTER.succeeded(task=store)


def report_clock(offset_s: float | None) -> None:
    """Log and count how far the clock of this process is ahead of Redis; None if it could not be measured."""
    if offset_s is None:
        return
    metrics.CLOCK_OFFSET.set(offset_s)
    if problem := clock_problem(offset_s):
        _CLOCKS.failed(problem, offset_s=round(offset_s, 1))
    else:
        _CLOCKS.succeeded()


def clock_problem(offset_s: float) -> str:
    """Return what is wrong with a clock that is `offset_s` ahead of Redis, or ''."""
    if abs(offset_s) <= EQUAL_CLOCKS.total_seconds():
        return ""
    return f"The clock of this machine is {'ahead of' if offset_s > 0 else 'behind'} that of Redis. Synchronize both with NTP."
