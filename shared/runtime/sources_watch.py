"""Watches the sources file: a process takes over a change within two seconds, or at once on SIGHUP."""

from __future__ import annotations

import asyncio
import signal
from typing import Final, NoReturn

from shared.config.live_sources import LiveSources
from shared.log import get_logger
from shared.runtime.process import wait_at_most

log = get_logger(__name__)

_POLL_S: Final = 1.0


async def watch_sources(sources: LiveSources) -> NoReturn:
    """Poll the sources file until cancelled. Run it as a task."""
    requested = asyncio.Event()
    if sources.has_file:  # otherwise SIGHUP has no effect, and the process logs it as ignored
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, requested.set)
    while True:
        await wait_at_most(requested, _POLL_S)
        is_requested = requested.is_set()
        requested.clear()
        if is_requested:
            log.info("sources_reload_requested", signal="SIGHUP")
        await sources.refresh(at_once=is_requested)
