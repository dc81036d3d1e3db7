"""The history process: it writes three streams to one database.

Nothing waits for it. While it is down, the streams keep the events.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import aclosing, suppress

from console.history.follower import Follower, until_available
from console.history.location import DEFAULT_URL
from console.history.store import History
from console.history.tables import REVISION
from shared.amqp.topology import AUDIT_JOURNAL, CALLS_JOURNAL, FORWARD_JOURNAL
from shared.config.settings import Settings
from shared.errors import HistoryUnavailableError
from shared.exit_codes import EXIT_OK
from shared.log import get_logger
from shared.metrics import Export, Role
from shared.runtime.broker import broker_address, watch_broker, watch_broker_hosts
from shared.runtime.health import private_port
from shared.runtime.process import background
from shared.runtime.supervisor import report_ready

log = get_logger(__name__)


async def migrate(settings: Settings) -> int:
    """Bring the tables to the revision of this program and end; returns the exit code.

    Raises:
        HistoryUnavailableError: the database is unavailable.
        ConfigError: the URL is invalid, or the database has other tables.
    """
    async with aclosing(History(_url(settings), is_writer=True)) as history:
        await history.prepare()
        sys.stdout.write(f"{history.name} has the tables of this release (revision {REVISION}).\n")
    return EXIT_OK


def _url(settings: Settings) -> str:
    return settings.history_url.get_secret_value() if settings.history_url else DEFAULT_URL


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Write until `stop` is set, then finish the current batch and close.

    Raises:
        ConfigError: the URL is invalid, or the database has other tables.
    """
    address = broker_address(settings, "history")
    async with aclosing(History(_url(settings), is_writer=True)) as history:
        followers = [Follower(stream, history, address) for stream in (CALLS_JOURNAL, AUDIT_JOURNAL, FORWARD_JOURNAL)]

        async def problems() -> list[str]:
            current = sorted({follower.problem for follower in followers if follower.problem})
            if not all(follower.is_up for follower in followers):
                current.append("RabbitMQ is not connected")
            return [*current, "shutting down"] if stop.is_set() else current

        def set_problem(error: HistoryUnavailableError) -> None:
            for follower in followers:
                follower.set_problem(error)

        async def follow() -> None:
            await until_available(history.prepare, set_problem)
            log.info("history_started", database=history.name)
            async with asyncio.TaskGroup() as group:
                for follower in followers:
                    group.create_task(follower.run())

        async with (
            private_port(settings.metrics_host, settings.metrics_port, problems, Export(Role.HISTORY)),
            background(follow(), watch_broker(*(follower.consumer for follower in followers)), watch_broker_hosts(settings)),
        ):
            report_ready()
            await stop.wait()
            log.info("shutdown_started", seconds=settings.shutdown_timeout_seconds)
            with suppress(TimeoutError):
                async with asyncio.timeout(settings.shutdown_timeout_seconds):
                    await asyncio.gather(*(follower.finish() for follower in followers))
