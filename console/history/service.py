"""The history process: two streams, one database. Nothing waits for it: where it is away, the streams keep what it missed."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress

from console.history.engine import DEFAULT_URL
from console.history.follower import Follower, patiently
from console.history.store import History
from shared.amqp.topology import AUDIT_JOURNAL, CALLS_JOURNAL
from shared.config.settings import Settings
from shared.log import get_logger
from shared.runtime.broker import broker_address
from shared.runtime.health import private_port
from shared.runtime.process import background

log = get_logger(__name__)


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Write until `stop` is set; then finish the batch in hand, close.

    Raises:
        ConfigError: the URL, or what is in the database, cannot work.
    """
    url = settings.history_url.get_secret_value() if settings.history_url else DEFAULT_URL
    address = broker_address(settings, "history")
    async with aclosing(History(url, is_writer=True)) as history:
        followers = [Follower(stream, history, address) for stream in (CALLS_JOURNAL, AUDIT_JOURNAL)]

        async def problems() -> list[str]:
            found = sorted({follower.problem for follower in followers if follower.problem})
            if not all(follower.is_up for follower in followers):
                found.append("RabbitMQ is not connected")
            return [*found, "shutting down"] if stop.is_set() else found

        async def follow() -> None:
            await patiently(history.prepare)
            log.info("history_writes", database=history.name)
            async with asyncio.TaskGroup() as group:
                for follower in followers:
                    group.create_task(follower.run())

        async with private_port(settings.metrics_host, settings.metrics_port, problems), background(follow()):
            await stop.wait()
            log.info("draining", seconds=settings.shutdown_timeout_seconds)
            with suppress(TimeoutError):
                async with asyncio.timeout(settings.shutdown_timeout_seconds):
                    await asyncio.gather(*(follower.finish() for follower in followers))
