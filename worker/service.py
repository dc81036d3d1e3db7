"""The worker process, put together. Nested contexts: what is entered last is closed first."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress

from shared.broker import BrokerAddress, Consumer, Publisher
from shared.errors import StoreUnavailableError
from shared.health import private_port
from shared.log import get_logger
from shared.process import background, instance_name
from shared.settings import Settings
from shared.store import Store
from shared.topology import CALLBACKS_FOLD, RECORDINGS, topology
from worker.archive import Archive
from worker.fold import Fold
from worker.recordings import Recordings
from worker.timers import Timers

log = get_logger(__name__)

# Enough to fill a batch while the one before it is folded; the broker holds at most so many back for one worker.
FOLD_PREFETCH = 128
# While one batch awaits its confirms another is merged.
FOLDS_AT_A_TIME = 2


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Fold and fetch until `stop` is set; then stop intake, finish what is in hand, close.

    Raises:
        ConfigError: a source, the archive or the broker's topology cannot work as configured.
    """
    sources = settings.load_sources()
    name = instance_name("worker")
    address = BrokerAddress(settings.amqp_urls, topology(settings.recording_retry_seconds), name)
    publisher = Publisher(address, timeout_s=settings.publish_timeout_seconds)
    raw = Consumer(address, CALLBACKS_FOLD, prefetch=FOLD_PREFETCH)
    jobs = Consumer(address, RECORDINGS, prefetch=settings.recording_concurrency * 2)
    archive = Archive(settings.archive_url)
    await archive.check()
    opened = Store(
        settings.redis_url.get_secret_value(), first_look_s=settings.max_call_seconds, retain_s=settings.retain_seconds
    )
    async with aclosing(opened) as store:
        folds = [Fold(publisher, store, sources, settings.policy, holder=f"{name}/{number}") for number in range(FOLDS_AT_A_TIME)]
        timers = Timers(
            publisher,
            store,
            sources,
            lease_s=settings.timer_lease_seconds,
            hold_off_s=settings.timer_hold_off_seconds,
        )
        recordings = Recordings(publisher, archive, sources, settings)

        async def problems() -> list[str]:
            found = [] if publisher.is_up and raw.is_up else ["RabbitMQ is not connected"]
            try:
                await store.ping()
            except StoreUnavailableError as error:
                found.append(str(error))
            return [*found, "shutting down"] if stop.is_set() else found

        async with (
            private_port(settings.metrics_host, settings.metrics_port, problems),
            background(publisher.run(), raw.run(), jobs.run()),
            background(*(fold.run(raw) for fold in folds), recordings.run(jobs), timers.run(raw)),
        ):
            await stop.wait()
            log.info("draining", seconds=settings.shutdown_timeout_seconds)
            with suppress(TimeoutError):
                async with asyncio.timeout(settings.shutdown_timeout_seconds):
                    await asyncio.gather(raw.stop_intake(), jobs.stop_intake())
                    await asyncio.gather(*(fold.finish() for fold in folds), recordings.finish())
