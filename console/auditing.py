"""Audit lines of the command line, for commands that otherwise need no broker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from shared.audit import Audit
from shared.broker import Publisher
from shared.process import background, broker_address
from shared.settings import Settings

_CONNECT_S = 3


@asynccontextmanager
async def auditing(settings: Settings) -> AsyncIterator[Audit]:
    """Have somebody to tell; with RabbitMQ away only the log has what is told."""
    publisher = Publisher(broker_address(settings, "audit"), timeout_s=settings.publish_timeout_seconds)
    async with background(publisher.run()):
        with suppress(TimeoutError):
            async with asyncio.timeout(_CONNECT_S):
                await publisher.wait_up()
        yield Audit(publisher)
