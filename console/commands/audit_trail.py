"""Audit lines for commands that need RabbitMQ for nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from shared.config.settings import Settings
from shared.runtime.audit import Audit
from shared.runtime.broker import create_publisher
from shared.runtime.process import background

_CONNECT_S = 3


@asynccontextmanager
async def open_audit(settings: Settings) -> AsyncIterator[Audit]:
    """Open an audit publisher. While RabbitMQ is unavailable, audit lines go only to the log."""
    publisher = create_publisher(settings, "audit")
    async with background(publisher.run()):
        with suppress(TimeoutError):
            async with asyncio.timeout(_CONNECT_S):
                await publisher.wait_until_up()
        yield Audit(publisher)
