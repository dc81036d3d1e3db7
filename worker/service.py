"""The worker process, put together. Nested contexts: what is entered last is closed first."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from shared.amqp.consumer import Consumer
from shared.amqp.topology import CALLBACKS_FOLD, RECORDINGS
from shared.archive.archive import Archive
from shared.config.settings import Settings
from shared.errors import StoreUnavailableError
from shared.log import get_logger
from shared.runtime.broker import create_publisher
from shared.runtime.health import private_port
from shared.runtime.process import background
from shared.runtime.store import open_store
from worker.daily_retention import DailyRetention
from worker.download.partial_file import keep_swept, prepare
from worker.folding.backlog import BacklogReporter
from worker.folding.fold import Fold
from worker.folding.timers import Timers
from worker.recordings.archive_gate import taking
from worker.recordings.consumer import Recordings

log = get_logger(__name__)

# Enough to fill a batch while the one before it is folded; the broker holds at most so many back for one worker.
FOLD_PREFETCH = 128
# While one batch awaits its confirms another is merged.
FOLDS_AT_A_TIME = 2


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Fold and fetch until `stop` is set; then stop intake, finish what is in hand, close.

    Raises:
        ConfigError: a source, the archive, the directory of downloads or the broker's topology cannot work as configured; an
            archive that is only away is waited for.
    """
    sources = settings.load_sources()
    publisher = create_publisher(settings, "worker")
    address = publisher.address
    jobs = Consumer(address, RECORDINGS, prefetch=settings.recording_concurrency)  # none waits here
    archive = Archive(settings.archive_url)
    prepare(settings.recording_dir)
    async with open_store(settings) as store:
        raw = Consumer(address, CALLBACKS_FOLD, prefetch=FOLD_PREFETCH, register=store.watermarks.join)
        holders = [f"{address.name}/{number}" for number in range(FOLDS_AT_A_TIME)]
        folds = [Fold(publisher, store, sources, settings.policy, holder=holder) for holder in holders]
        timers = Timers(
            publisher,
            store,
            sources,
            lease_s=settings.timer_lease_seconds,
            hold_off_s=settings.timer_hold_off_seconds,
        )
        markers = BacklogReporter(store, publisher, raw)
        recordings = Recordings(publisher, store, archive, sources, settings)

        daily = DailyRetention(archive, publisher, store, sources, settings)

        async def problems() -> list[str]:
            found = [] if publisher.is_up and raw.is_up else ["RabbitMQ is not connected"]
            try:
                await store.ping()
            except StoreUnavailableError as error:
                found.append(str(error))
            return [*found, "shutting down"] if stop.is_set() else found

        async with (
            taking(jobs, archive),
            private_port(settings.metrics_host, settings.metrics_port, problems),
            background(publisher.run(), raw.run()),
            background(
                *(fold.run(raw) for fold in folds),
                markers.send_markers(),
                markers.report(),
                recordings.run(jobs),
                timers.run(raw),
                daily.run(),
                keep_swept(settings.recording_dir),
            ),
        ):
            await stop.wait()
            log.info("draining", seconds=settings.shutdown_timeout_seconds)
            with suppress(TimeoutError):
                async with asyncio.timeout(settings.shutdown_timeout_seconds):
                    await asyncio.gather(raw.stop_intake(), jobs.stop_intake())
                    await asyncio.gather(*(fold.finish() for fold in folds), recordings.finish())
