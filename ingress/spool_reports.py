"""Reports of a spool to the workers: since when its oldest callback waits. Timers of calls wait for that callback.

Each drained message reports what remains after it. The last report must be that nothing waits, or timers would wait an hour for a
spool that is empty. If rows were lost after the last drained message, a message without callbacks reports it.
"""

from __future__ import annotations

from collections.abc import Mapping

from ingress.outgoing_message import OutgoingMessage
from ingress.spool import Spool
from shared.amqp.publisher import Publisher
from shared.amqp.topology import CALLBACKS_FOLD, MARKER, MARKER_BODY, SPOOL, SPOOL_OF_SOURCE, SPOOL_OLDEST, SPOOL_SEEN
from shared.clock import utc_now
from shared.domain.ids import SourceName

Report = Mapping[str, str | int]
"""Headers of a message."""


class SpoolReports:
    """The reports of one spool. Only the process with its drain lock reports."""

    def __init__(self, spool: Spool, source: SourceName | None = None) -> None:
        """Take the spool, and the source of its callbacks if it has those of one source only."""
        self._spool = spool
        self._suffix = "" if source is None else f"{SPOOL_OF_SOURCE}{source}"
        self._oldest = ""
        self._generation = 1

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

    async def end(self, publisher: Publisher) -> None:
        """Report that the spool is empty, unless the workers know it. If its file was replaced, they may know otherwise.

        Raises:
            BrokerUnavailableError: not confirmed.
        """
        if not self._oldest and self._generation >= self._spool.generation:
            return
        report = self._report("")
        # A marker of round 0, which workers pass without any other effect.
        await publisher.publish(OutgoingMessage("", CALLBACKS_FOLD, {MARKER: "0", **report}, MARKER_BODY).with_fresh_id())
        self.confirmed(report)

    def _report(self, oldest: str) -> Report:
        return {SPOOL: f"{self._spool.name}{self._suffix}", SPOOL_OLDEST: oldest, SPOOL_SEEN: utc_now()}
