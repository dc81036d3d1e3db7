"""Follows the counts of refused requests in the quarantine, for the live page."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NoReturn

from console.refusals import REMEMBERED, RefusalTotals
from shared.amqp.batch_publish import HeaderValue
from shared.amqp.consumer import Consumer
from shared.amqp.topology import CALLBACKS_QUARANTINE
from shared.config.settings import Settings
from shared.domain.quarantined import RefusalCounts, decode_quarantined, may_be_counts
from shared.runtime.broker import broker_address

_PREFETCH = 50


class RefusalFeed:
    """Run `consumer.run()` and `run()` as tasks; `totals` are then those of the last day."""

    def __init__(self, settings: Settings) -> None:
        self.totals = RefusalTotals()
        address = broker_address(settings, "refusals")
        self.consumer = Consumer(address, CALLBACKS_QUARANTINE, prefetch=_PREFETCH, arguments=self._restart)

    def _restart(self) -> Mapping[str, HeaderValue]:
        """Restart the counts on each connection, since the stream is small."""
        self.totals.clear()
        return {"x-stream-offset": datetime.now(UTC) - REMEMBERED}

    async def run(self) -> NoReturn:
        """Count until cancelled."""
        while True:
            delivery = await self.consumer.get()
            counts = decode_quarantined(delivery.body) if may_be_counts(delivery.body) else None
            if isinstance(counts, RefusalCounts):
                self.totals.add(counts)
            await delivery.ack()
