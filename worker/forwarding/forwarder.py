"""Runs a runner for each endpoint in force, and another one when an endpoint changes."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import Final, NoReturn

from shared import metrics
from shared.amqp.server_check import check_server
from shared.amqp.topology import endpoint_topology, forward_queue, forward_retry_queue
from shared.config.endpoints import Endpoint, EndpointName
from shared.errors import BrokerUnavailableError, CallfoldError, leaf_errors
from shared.log import get_logger
from shared.runtime.process import wait_at_most
from shared.webhooks.attempts import Result
from shared.webhooks.live_endpoints import EndpointState, LiveEndpoints
from worker.forwarding.breaker import Breaker
from worker.forwarding.endpoint_runner import Common, EndpointRunner
from worker.forwarding.removal import remove

log = get_logger(__name__)

_POLL_S: Final = 5.0
_RETRY_S: Final = 5.0
_MARKED_S: Final = 60.0
_MEASURE_S: Final = 15.0


class _Place:
    """The task of one endpoint name, with what it is to serve now."""

    def __init__(self) -> None:
        self.state: EndpointState | None = None
        self.runner: EndpointRunner | None = None
        self.removed: frozenset[str] = frozenset()
        self.changed = asyncio.Event()


class Forwarder:
    """Serves every endpoint that is in force. An endpoint that fails never stops another one."""

    def __init__(self, endpoints: LiveEndpoints, common: Common) -> None:
        self._endpoints, self._common = endpoints, common
        self._places: dict[EndpointName, _Place] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self._catching_up = asyncio.Lock()

    async def run(self) -> NoReturn:
        """Follow the endpoints until cancelled. Run it as a task."""
        async with asyncio.TaskGroup() as group:
            while True:
                # A mark of a disabled endpoint may be in the stream, so nothing is sent before that is read.
                if self._endpoints.is_complete:
                    self._follow(group)
                await self._endpoints.wait_for_change(timeout_s=_POLL_S)

    def _follow(self, group: asyncio.TaskGroup) -> None:
        current, removed = self._endpoints.current, self._endpoints.removed
        for name in {*current, *removed, *self._places}:
            state, patterns = current.get(name), removed.get(name, frozenset())
            place = self._places.get(name)
            if place is None:
                place = self._places[name] = _Place()
                if state is not None:
                    _begin_series(name)
                place.state, place.removed = state, patterns
                task = group.create_task(self._serve(name, place))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            if (state, patterns) == (place.state, place.removed):
                continue
            place.state, place.removed = state, patterns
            place.changed.set()
            if place.runner is not None:
                place.runner.stop()

    async def finish(self) -> None:
        """Begin no more attempts, and wait for those in flight."""
        self._stopping.set()
        for place in self._places.values():
            place.changed.set()
            if place.runner is not None:
                place.runner.stop()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _serve(self, name: EndpointName, place: _Place) -> None:
        """Run one runner after the other."""
        while not self._stopping.is_set():
            place.changed.clear()
            state = place.state
            metrics.FORWARD_DISABLED.set(None if state is None else state.disabled is not None, name)
            try:
                if state is None:
                    await self._remove(name, place)
                    continue
                if state.is_active:
                    await self._run(state.endpoint, place)
                else:
                    await self._declare(state.endpoint)
                    await place.changed.wait()
            except BrokerUnavailableError:  # the connections log it
                await wait_at_most(place.changed, _RETRY_S)
            except Exception as error:  # noqa: BLE001 - logged; the other endpoints go on
                self._log_fault(name, error)
                await wait_at_most(place.changed, _RETRY_S)

    async def _remove(self, name: EndpointName, place: _Place) -> None:
        """Remove the queues of an endpoint that the API has removed. Those of one that is missing in the file stay."""
        metrics.FORWARD_BREAKER_OPEN.set(None, name)
        if place.removed:
            await remove(name, place.removed, self._common, place.changed, partial(self._is_removed, name))
        await place.changed.wait()

    async def _is_removed(self, name: EndpointName) -> bool:
        """Return whether an endpoint is removed by the last change of any console."""
        async with self._catching_up:
            await self._endpoints.follower.catch_up()
        return name in self._endpoints.removed

    @staticmethod
    def _log_fault(name: EndpointName, error: Exception) -> None:
        """Log why an endpoint gets nothing now. Anything but a known error is a bug, and its traceback is logged."""
        faults = leaf_errors(error) if isinstance(error, ExceptionGroup) else [error]
        if all(isinstance(fault, CallfoldError) for fault in faults):
            log.error("endpoint_not_served", endpoint=name, detail=str(faults[0]))
        else:
            log.error("endpoint_not_served", endpoint=name, detail=type(faults[0]).__name__, exc_info=error)

    async def _run(self, endpoint: Endpoint, place: _Place) -> None:
        place.runner = runner = EndpointRunner(endpoint, self._common, Breaker())
        try:
            if not place.changed.is_set():
                await runner.run()
        finally:
            place.runner = None
        if runner.is_disabled:
            # A change by API at the same moment can replace the mark. Then the endpoint is asked again.
            await wait_at_most(place.changed, _MARKED_S)

    async def _declare(self, endpoint: Endpoint) -> None:
        """Declare the queue of an endpoint that gets nothing now, so that its events wait."""
        declared = endpoint_topology(endpoint.name, endpoint.filters, self._common.schedule_s)
        await check_server(replace(self._common.address, topology=declared))

    async def measure(self) -> NoReturn:
        """Export how many events wait for each endpoint, until cancelled."""
        while True:
            await asyncio.sleep(_MEASURE_S)
            for name, place in list(self._places.items()):
                metrics.FORWARD_WAITING.set(None if place.state is None else await self._waiting(name), name)

    async def _waiting(self, name: EndpointName) -> float | None:
        queues = [forward_queue(name), *(forward_retry_queue(name, delay_s) for delay_s in sorted(set(self._common.schedule_s)))]
        try:
            return float(sum([await self._common.publisher.count_messages(queue) for queue in queues]))
        except BrokerUnavailableError:
            return None


def _begin_series(name: EndpointName) -> None:
    for result in Result:
        metrics.FORWARD_ATTEMPTS.labels(name, result)
    metrics.FORWARD_SECONDS.labels(name)
