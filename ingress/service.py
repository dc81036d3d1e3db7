"""The ingress process, put together. Nested contexts: what is entered last is closed first."""

from __future__ import annotations

import asyncio

from ingress.callbacks import CallbackHandler
from ingress.group_commit import GroupCommit
from ingress.publish_or_spool import DurableWriter
from ingress.server import serving
from ingress.spool import Spool
from shared.config.settings import LOOPBACK, Settings
from shared.config.sources import Sources
from shared.errors import ConfigError
from shared.log import get_logger
from shared.runtime.broker import create_publisher
from shared.runtime.health import private_port
from shared.runtime.process import background

log = get_logger(__name__)


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Take callbacks until `stop` is set; then readiness off, a pause for load balancers, finish, close.

    Raises:
        ConfigError: a source, port, spool or, at the first connection, the broker's topology cannot work as configured.
    """
    sources = settings.load_sources()
    _refuse_open_door(settings, sources)
    # Once it serves, nothing of the broker's may end it: the spool takes what the broker does not.
    publisher = create_publisher(settings, "ingress", retries_conflicts=True)
    async with Spool(settings.spool_dir, max_bytes=settings.spool_max_bytes) as spool:
        outlet = DurableWriter(publisher, spool)
        commit = GroupCommit(outlet.write)
        door = CallbackHandler(sources, commit, outlet.send)

        async def problems() -> list[str]:
            return ["shutting down"] if stop.is_set() else await outlet.problems()

        async with (
            private_port(settings.metrics_host, settings.metrics_port, problems),
            background(publisher.run(), outlet.drain(), outlet.watch(), commit.run()),
            serving(door, settings.ingress_host, settings.ingress_port, shutdown_timeout_s=settings.shutdown_timeout_seconds),
        ):
            await stop.wait()
            log.info("draining", seconds=settings.drain_seconds)
            await asyncio.sleep(settings.drain_seconds)


def _refuse_open_door(settings: Settings, sources: Sources) -> None:
    if settings.ingress_host in LOOPBACK:
        return
    for source in sources.values():
        if source.secret is None:
            raise ConfigError(
                f"Source {source.name} has no secret: without one ingress listens on loopback only, "
                f"not on {settings.ingress_host}. Set its secret in the sources file."
            )
