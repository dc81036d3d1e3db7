"""The events of accepted dials on their way to the journal: stored in Redis, or in memory, until RabbitMQ confirms them."""

from __future__ import annotations

import os
import uuid

from shared.amqp.publisher import Message, Publisher
from shared.amqp.topology import CALLBACKS, SENT_AT, SENT_BY
from shared.clock import utc_now
from shared.crash_points import crash_point
from shared.domain.raw_event import join
from shared.errors import BrokerUnavailableError, StoreUnavailableError
from shared.log import get_logger
from shared.outage import Outage
from shared.state.dials import DialStore

log = get_logger(__name__)
_PENDING = Outage(log, "pending_dials_unreadable", "pending_dials_readable")
_DELAYS = Outage(log, "dial_publish_delayed", "delayed_dials_published")


class DialJournal:
    """Publishes dial events, now if possible and later if not."""

    def __init__(self, store: DialStore, publisher: Publisher) -> None:
        self._store = store
        self._publisher = publisher
        self._in_memory: dict[str, bytes] = {}  # events that Redis could not store
        self._in_flight: set[str] = set()  # dials whose request is publishing the event

    async def record(self, dial_id: str, event: bytes) -> None:
        """Store the event of a dial and publish it if RabbitMQ is up. A phone is ringing, so no error here may fail the dial."""
        self._in_flight.add(dial_id)
        try:
            await self._keep(dial_id, event)
            crash_point("dial.kept")
            await self._publish(dial_id, event)
        finally:
            self._in_flight.discard(dial_id)

    async def publish_pending(self) -> None:
        """Publish the events that the journal may lack, also those of a process that died."""
        if not self._publisher.is_up:
            return
        pending, in_flight = dict(self._in_memory), set(self._in_flight)
        try:
            pending |= await self._store.unjournaled()
            _PENDING.succeeded()
        except StoreUnavailableError as error:
            _PENDING.failed(str(error))
        in_flight |= self._in_flight  # a second event of one dial would appear as a second dial
        published = [await self._publish(dial_id, event) for dial_id, event in pending.items() if dial_id not in in_flight]
        if all(published):
            _DELAYS.succeeded()

    async def _keep(self, dial_id: str, event: bytes) -> None:
        try:
            await self._store.keep(dial_id, event)
        except StoreUnavailableError as error:
            log.warning("dial_kept_in_memory", dial=dial_id, detail=str(error))
            self._in_memory[dial_id] = event

    async def _publish(self, dial_id: str, event: bytes) -> bool:
        try:
            sent = {SENT_AT: utc_now(), SENT_BY: os.uname().nodename}
            await self._publisher.publish(Message(CALLBACKS, "", join([event]), uuid.uuid4().hex, headers=sent))
            self._in_memory.pop(dial_id, None)
            await self._store.journaled(dial_id)
        except (BrokerUnavailableError, StoreUnavailableError) as error:
            _DELAYS.failed(str(error), dial=dial_id)
            return False
        return True
