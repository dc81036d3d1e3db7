"""Audit lines of the command line, for commands that otherwise need no broker."""

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
async def auditing(settings: Settings) -> AsyncIterator[Audit]:
    """Have somebody to tell; with RabbitMQ away only the log has what is told."""
    publisher = create_publisher(settings, "audit")
    async with background(publisher.run()):
        with suppress(TimeoutError):
            async with asyncio.timeout(_CONNECT_S):
                await publisher.wait_until_up()
        yield Audit(publisher)
