"""Reports of a spool to the workers: since when its oldest callback waits. Timers of calls wait for that callback.

Each drained message reports what remains after it. While the fold accepts no callbacks, a message without any reports what waits.
The last report must be that nothing waits, or timers would wait an hour for a spool that is empty. If rows were lost after the
last drained message, a message without callbacks reports that too.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from ingress.outgoing_message import OutgoingMessage
from ingress.spool import Spool
from shared.amqp.publisher import Publisher
from shared.amqp.topology import CALLBACKS_FOLD, MARKER, MARKER_BODY, SPOOL, SPOOL_OF_SOURCE, SPOOL_OLDEST, SPOOL_SEEN
from shared.clock import utc_now
from shared.domain.ids import SourceName
from shared.errors import BrokerUnavailableError

# Well below the time after which workers forget a spool without reports.
_ANNOUNCE_S = 60.0

Report = Mapping[str, str | int]
"""Headers of a message."""


class SpoolReports:
    """The reports of one spool. Only the process with its drain lock reports."""

    def __init__(self, spool: Spool, source: SourceName | None = None) -> None:
        """Take the spool, and the source of its callbacks if it has those of one source only."""
        self._spool = spool
        self._suffix = "" if source is None else f"{SPOOL_OF_SOURCE}{source}"
        self._oldest = ""
        self._may_be_known = False  # a message without a confirm can have arrived
        self._generation = 1
        self._announce_again_at = 0.0

    @property
    def is_waiting(self) -> bool:
        """True if the workers know of callbacks that wait."""
        return bool(self._oldest)

    async def after(self, last_id: int) -> Report:
        """Build the headers that report the rows after `last_id`."""
        return self._report(await self._spool.oldest_receipt(after=last_id))

    def confirmed(self, report: Report) -> None:
        """Record that RabbitMQ has confirmed a message with this report."""
        self._oldest, self._generation = str(report[SPOOL_OLDEST]), self._spool.generation
        self._may_be_known = bool(self._oldest)

    async def check_gate(self, publisher: Publisher) -> None:
        """Check that the fold accepts callbacks. If not, report that they wait: its queue is a FIFO, and may accept that.

        Raises:
            BrokerUnavailableError: it does not accept them.
            SpoolUnavailableError: the spool cannot be read.
        """
        if await publisher.reopen_gate():
            return
        if not self.is_waiting or time.monotonic() >= self._announce_again_at:
            oldest = await self._spool.oldest_receipt()
            if oldest:
                await self._publish(publisher, oldest)
                self._announce_again_at = time.monotonic() + _ANNOUNCE_S
        raise BrokerUnavailableError(publisher.gate.problem)

    async def end(self, publisher: Publisher) -> None:
        """Report that the spool is empty, unless the workers know it. If its file was replaced, they may know otherwise.

        Raises:
            BrokerUnavailableError: not confirmed.
        """
        if self._may_be_known or self._generation < self._spool.generation:
            await self._publish(publisher, "")

    async def _publish(self, publisher: Publisher, oldest: str) -> None:
        report = self._report(oldest)
        # A marker of round 0, which workers pass without any other effect.
        await publisher.publish(OutgoingMessage("", CALLBACKS_FOLD, {MARKER: "0", **report}, MARKER_BODY).with_fresh_id())
        self.confirmed(report)

    def _report(self, oldest: str) -> Report:
        self._may_be_known = self._may_be_known or bool(oldest)
        return {SPOOL: f"{self._spool.name}{self._suffix}", SPOOL_OLDEST: oldest, SPOOL_SEEN: utc_now()}
