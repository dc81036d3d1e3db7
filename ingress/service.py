"""The ingress process. Contexts are nested: the last one entered is closed first."""

from __future__ import annotations

import asyncio
from functools import partial

from ingress.callbacks import CallbackHandler
from ingress.fair_shares import WAITING_PART, FairShares
from ingress.final_drain import drain_before_exit
from ingress.group_commit import GroupCommit
from ingress.intake import Intake
from ingress.live_handler import LiveHandler
from ingress.own_conditions import OwnConditions
from ingress.quarantine import Quarantine
from ingress.refusals import Refusals
from ingress.server import serving
from ingress.source_secrets import SourceSecrets
from ingress.spools import Spools
from shared import metrics
from shared.config.live_sources import LiveSources
from shared.config.secret_strength import check_source_secrets
from shared.config.settings import Settings
from shared.errors import SpoolLeftError
from shared.log import get_logger
from shared.metrics import Export, Role
from shared.runtime.broker import create_publisher, watch_broker, watch_broker_hosts
from shared.runtime.client_address import Proxies
from shared.runtime.descriptors import connection_limit, descriptor_limit
from shared.runtime.health import Handicap, private_port
from shared.runtime.process import StopRequest, background
from shared.runtime.sources_watch import watch_sources
from shared.runtime.supervisor import report_ready

log = get_logger(__name__)


async def serve(settings: Settings, stop: StopRequest) -> None:
    """Accept callbacks until `stop` is set.

    Then report not ready, wait for load balancers, close the port, finish requests, and drain the spool.

    Raises:
        ConfigError: a source, the port or (at the first connection) the broker's topology is misconfigured.
        SpoolLeftError: it was stopped, and callbacks are left in the spool.
    """
    stop.extra_s = settings.spool_drain_seconds
    sources = LiveSources.load(settings.sources_file, partial(check_source_secrets, settings))
    export = Export(Role.INGRESS)
    metrics.SPOOL_MAX_BYTES.set(settings.spool_max_bytes)
    sources.derive(export.add_sources)
    proxies = Proxies(settings.ingress_proxies, setting="CALLFOLD_INGRESS_PROXIES")
    # Once ingress serves, no error of the broker may end it: the spool accepts what RabbitMQ does not.
    publisher = create_publisher(settings, "ingress", retries_conflicts=True)
    # On a separate connection, so that what strangers send cannot hold up the confirms of good callbacks.
    strangers = create_publisher(settings, "quarantine", retries_conflicts=True)
    quarantine = Quarantine(strangers, sources.derive(SourceSecrets))
    sizes = {"max_bytes": settings.spool_max_bytes, "fold_bytes": settings.fold_queue_bytes}
    async with Spools(settings.spool_dir, publisher, **sizes) as spools:
        writer = spools.writer
        commit = GroupCommit(writer.write)
        max_waiting_bytes = int(WAITING_PART * settings.spool_max_bytes)
        shares = FairShares(sources.current, bytes_per_day=settings.source_bytes_per_day, max_waiting_bytes=max_waiting_bytes)
        intake = Intake(shares, commit, spools.waiting, spools.probes)
        refusals = Refusals(proxies, quarantine)
        handlers = sources.derive(lambda of_sources: CallbackHandler(of_sources, intake, writer.send, refusals))

        own_conditions = OwnConditions(
            publisher,
            spools.spool,
            settings.spool_dir,
            max_bytes=settings.spool_max_bytes,
            hold_s=settings.ops_hold_seconds,
        )

        async def problems() -> list[str]:
            if stop.is_set():
                return ["shutting down"]
            return [*await writer.problems(), *intake.problems(), *map(Handicap, sources.problems())]

        async with (
            private_port(settings.metrics_host, settings.metrics_port, problems, export),
            background(*spools.tasks(), spools.drain.watch()),
            background(commit.run(), intake.run(sources), quarantine.run(), own_conditions.run()),
            background(watch_broker(publisher), watch_broker_hosts(settings), watch_sources(sources)),
        ):
            async with serving(
                LiveHandler(handlers),
                settings.ingress_host,
                settings.ingress_port,
                shutdown_timeout_s=settings.shutdown_timeout_seconds,
                max_connections=connection_limit(settings.max_connections, descriptor_limit()),
            ):
                report_ready()
                await stop.wait()
                log.info("shutdown_started", seconds=settings.drain_seconds)
                await asyncio.sleep(settings.drain_seconds)
            left = await drain_before_exit(spools, stop, settings.spool_drain_seconds)
            await own_conditions.finish()
    if left:
        raise SpoolLeftError(left)
