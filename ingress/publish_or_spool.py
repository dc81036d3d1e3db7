"""Makes messages durable: confirmed by RabbitMQ, or fsynced in the spool until RabbitMQ accepts them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from ingress.fold_depth import FoldDepth
from ingress.outgoing_message import OutgoingMessage
from ingress.probes import Probe, Probes
from ingress.spool import Spool
from ingress.traced_publish import publishing
from shared import metrics
from shared.amqp.publisher import Publisher
from shared.amqp.topology import CALLBACKS
from shared.crash_points import crash_point
from shared.errors import BrokerUnavailableError, SpoolUnavailableError
from shared.log import get_logger
from shared.outage import Outage
from shared.runtime.health import Handicap
from shared.tracing.spans import trace_id

log = get_logger(__name__)
_CONFIRMS = Outage(log, "publish_failed", "publish_confirmed")

# Pause after a failed publish: a broker that hangs would cost each batch the whole publish timeout.
_HOLD_OFF_S = 1.0
# A new process is not ready for this time, unless it connects sooner: the spool is for outages.
_FIRST_CONNECT_S = 5.0


class DurableWriter:
    """Publishes each message, or spools it if RabbitMQ is unavailable."""

    def __init__(self, publisher: Publisher, spool: Spool, depth: FoldDepth, probes: Probes) -> None:
        self._publisher = publisher
        self._depth = depth
        self._probes = probes
        self._spool = spool
        self._hold_off_until = 0.0
        self._is_refused = False  # the last publish failed although RabbitMQ was connected: full, blocked or silent
        self._first_connect_until = time.monotonic() + _FIRST_CONNECT_S

    async def write(self, events: Sequence[bytes]) -> None:
        """Make a batch of encoded events durable.

        Raises:
            SpoolUnavailableError: neither RabbitMQ nor the spool accepted it.
        """
        metrics.BATCH_EVENTS.observe(len(events))
        await self.send(OutgoingMessage.of_callbacks(events))

    async def send(self, message: OutgoingMessage) -> None:
        """Make one message durable; raises SpoolUnavailableError as `write` does."""
        publisher = self._publisher
        if publisher.is_up and not publisher.is_blocked and time.monotonic() >= self._hold_off_until:
            try:
                await self._publish(message)
            except BrokerUnavailableError as error:
                self._hold_off_until = time.monotonic() + _HOLD_OFF_S
                self._is_refused = True
                _CONFIRMS.failed(str(error))
            else:
                _CONFIRMS.succeeded()
                return
        await self._spool.add([message])
        metrics.SPOOLED.inc()

    async def _publish(self, message: OutgoingMessage) -> None:
        started = time.perf_counter()
        with publishing(message):
            if message.exchange == CALLBACKS and (probe := self._probes.next()):
                await self._publish_probe(message, probe)
            else:
                await self._publisher.publish(message.with_fresh_id())
            metrics.observe(metrics.PUBLISH_SECONDS, time.perf_counter() - started, trace_id())
        self._is_refused = False
        if message.exchange == CALLBACKS:
            self._depth.published(len(message.body))
        crash_point("ingress.confirmed")

    async def _publish_probe(self, message: OutgoingMessage, probe: Probe) -> None:
        try:
            await self._publisher.publish(replace(message, headers={**message.headers, **probe.headers}).with_fresh_id())
        except BaseException:
            self._probes.give_up(probe)
            raise

    def drain_confirmed(self, message: OutgoingMessage) -> None:
        """Record that RabbitMQ confirmed a drained message, so it accepts messages again."""
        self._is_refused = False
        if message.exchange == CALLBACKS:
            self._depth.published(len(message.body), is_drained=True)

    def drain_finished(self) -> None:
        """End the pause after a failed publish."""
        self._hold_off_until = 0.0

    async def problems(self) -> list[str]:
        """Return why ingress cannot accept callbacks; only handicaps if either RabbitMQ or the spool can."""
        is_up = self._publisher.is_up
        obstacles = self._publisher.obstacles() if is_up else []
        if is_up and not self._is_refused and not obstacles:
            return [Handicap(self._spool.problem)] if self._spool.problem else []
        if not is_up and time.monotonic() < self._first_connect_until:
            return ["connecting to RabbitMQ"]
        try:
            await self._spool.check()
        except SpoolUnavailableError as error:
            return ["RabbitMQ accepts no messages" if is_up else "RabbitMQ is not connected", *obstacles, str(error)]
        cause = "RabbitMQ did not confirm the last message" if is_up else "RabbitMQ is not connected"
        return [Handicap(problem) for problem in obstacles or [f"{cause}, so callbacks are spooled"]]
