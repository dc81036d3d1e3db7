"""A worker without recordings, so that only the fold is measured and no downloads run."""

from __future__ import annotations

import asyncio
import sys

from shared.amqp.consumer import Consumer
from shared.amqp.topology import CALLBACKS_FOLD
from shared.config.live_sources import LiveSources
from shared.config.settings import Settings
from shared.runtime.broker import create_publisher
from shared.runtime.process import background, run_process
from shared.runtime.store import open_store
from worker.folding.fold import Fold
from worker.folding.prefetch import MOST_MESSAGES
from worker.service import CONCURRENT_FOLDS


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    publisher = create_publisher(settings, "bench")
    raw = Consumer(publisher.address, CALLBACKS_FOLD, prefetch=MOST_MESSAGES)
    async with open_store(settings) as store:
        sources = LiveSources.load(settings.sources_file)
        holders = [f"{publisher.address.name}/{number}" for number in range(CONCURRENT_FOLDS)]
        folds = [Fold(publisher, store, sources, settings.policy, holder=holder) for holder in holders]
        async with background(publisher.run(), raw.run()), background(*(fold.run(raw) for fold in folds)):
            await stop.wait()


if __name__ == "__main__":
    sys.exit(run_process("bench", serve))
