"""The worker process. Contexts are nested: the last one entered is closed first."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable
from contextlib import suppress

from shared.amqp.consumer import Consumer
from shared.amqp.publisher import Publisher
from shared.amqp.topology import CALLBACKS_FOLD, RECORDINGS
from shared.archive.storage import Archive
from shared.config.live_sources import LiveSources
from shared.config.settings import Settings
from shared.errors import StoreUnavailableError
from shared.log import get_logger
from shared.metrics import Export, Role
from shared.runtime.broker import create_publisher, watch_broker, watch_broker_hosts
from shared.runtime.health import Handicap, private_port
from shared.runtime.process import background
from shared.runtime.sources_watch import watch_sources
from shared.runtime.store import open_store
from shared.runtime.store_watch import watch_server_roles, watch_store
from shared.runtime.supervisor import report_ready
from shared.state.store import Store
from worker.daily_retention import DailyRetention
from worker.download.download_directory import keep_swept, prepare
from worker.folding.barrier_rounds import BarrierRounds
from worker.folding.echoes import Echoes
from worker.folding.fold import Fold
from worker.folding.ingress_clocks import IngressClocks
from worker.folding.pbx_clocks import PbxClocks
from worker.folding.prefetch import FEWEST_MESSAGES, FoldPrefetch
from worker.folding.state_journal import StateJournal
from worker.folding.state_watch import StateWatch
from worker.folding.timers import Timers
from worker.folding.waiting_events import WaitingEvents
from worker.policy_watch import watch_policies
from worker.rebuilding.rebuilder import Rebuilder
from worker.recordings.archive_gate import consuming
from worker.recordings.consumer import RecordingConsumer
from worker.watching.observations import Observations
from worker.watching.pbx_watch import PbxWatch
from worker.watching.watcher import Watcher

log = get_logger(__name__)

# One batch is merged while another waits for its confirms.
CONCURRENT_FOLDS = 2


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Fold callbacks and store recordings until `stop` is set. Then stop intake, finish what is in flight and close.

    Raises:
        ConfigError: a source, the archive, the download directory or the broker's topology is misconfigured. If the archive is
            only unavailable, the worker starts and waits for it.
    """
    sources = LiveSources.load(settings.sources_file)
    export = Export(Role.WORKER)
    sources.derive(export.add_sources)
    publisher = create_publisher(settings, "worker")
    address = publisher.address
    jobs = Consumer(address, RECORDINGS, prefetch=settings.recording_concurrency)  # every delivered job starts at once
    archive = Archive(settings.archive_url)
    prepare(settings.recording_dir)
    async with open_store(settings, is_guarded=True) as store:
        raw = Consumer(address, CALLBACKS_FOLD, prefetch=FEWEST_MESSAGES, register=store.watermarks.register)
        prefetch = FoldPrefetch(raw)
        clocks, echoes, pbx_clocks = IngressClocks(store.clock), Echoes(publisher), PbxClocks()
        observations = Observations()
        journal = StateJournal(address, publisher, store.positions, store.clock.now)
        watch = StateWatch(store, journal)

        def handicaps() -> list[Handicap]:
            return [*map(Handicap, sources.problems()), *watch.problems()]

        def fold_with(other: Store, name: str) -> Fold:
            return Fold(
                publisher,
                other,
                sources,
                settings.policy,
                holder=f"{address.name}/{name}",
                clocks=clocks,
                echoes=echoes,
                pbx_clocks=pbx_clocks,
                prefetch=prefetch if other is store else None,
                journal=journal,
                observations=observations,
            )

        folds = [fold_with(store, str(number)) for number in range(CONCURRENT_FOLDS)]
        drains = itertools.count()
        waiting = WaitingEvents(store, lambda other: fold_with(other, f"waiting{next(drains)}"))
        timers = Timers(
            publisher,
            store,
            lease_s=settings.timer_lease_seconds,
            hold_off_s=settings.timer_hold_off_seconds,
        )
        pbx_watch = PbxWatch(
            store,
            sources,
            observations,
            folded=lambda: timers.folded,
            clocks=pbx_clocks.current,
        )
        watcher = Watcher(store, publisher, sources, settings, silences=pbx_watch.observations)
        reports = watcher.lost_state
        rebuilder = Rebuilder(store, settings, sources, on_begin=reports.began, on_finish=reports.finished)
        rounds = BarrierRounds(store, publisher, raw, on_refused=timers.hold_off)
        recordings = RecordingConsumer(publisher, store, archive, sources, settings)
        daily = DailyRetention(archive, publisher, store, sources, settings)

        async with (
            consuming(jobs, archive),
            private_port(
                settings.metrics_host, settings.metrics_port, lambda: _problems(publisher, raw, store, handicaps(), stop), export
            ),
            background(publisher.run(), raw.run()),
            background(
                *(fold.run(raw) for fold in folds),
                echoes.run(),
                rounds.send_markers(),
                rounds.report(),
                recordings.run(jobs),
                timers.run(raw),
                pbx_watch.run(),
                journal.run(),
                watch.run(),
                waiting.run(),
                rebuilder.run(),
                watcher.run(),
                daily.run(),
                watch_policies(settings),
                watch_broker(publisher, raw),
                watch_broker_hosts(settings),
                watch_server_roles(store),
                keep_swept(settings.recording_dir),
                watch_store(store),
                watch_sources(sources),
            ),
        ):
            report_ready()
            await stop.wait()
            log.info("shutdown_started", seconds=settings.shutdown_timeout_seconds)
            with suppress(TimeoutError):
                async with asyncio.timeout(settings.shutdown_timeout_seconds):
                    await asyncio.gather(raw.stop_intake(), jobs.stop_intake())
                    await asyncio.gather(*(fold.finish() for fold in folds), recordings.finish())
                    with suppress(StoreUnavailableError):  # a few seconds of counts
                        await pbx_watch.flush()


async def _problems(
    publisher: Publisher, raw: Consumer, store: Store, handicaps: Iterable[Handicap], stop: asyncio.Event
) -> list[str]:
    """List why this worker is not ready."""
    problems: list[str] = [] if publisher.is_up and raw.is_up else ["RabbitMQ is not connected"]
    problems += map(Handicap, publisher.obstacles())  # it waits, and a restart would not help
    problems += handicaps
    try:
        await store.check()
    except StoreUnavailableError as error:
        problems.append(str(error))
    problems += map(Handicap, store.handicaps)
    return [*problems, "shutting down"] if stop.is_set() else problems
