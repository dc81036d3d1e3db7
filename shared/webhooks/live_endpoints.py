"""The endpoints in force: those of the file, and those that the API manages. A process takes changes from here."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, NoReturn

from shared.amqp.connection import BrokerAddress
from shared.amqp.delivery import Delivery
from shared.amqp.topology import ENDPOINTS_JOURNAL
from shared.config.endpoints import Endpoint, EndpointName, Endpoints, EndpointsFile, parse_endpoint
from shared.errors import BrokerUnavailableError, ConfigError
from shared.log import get_logger
from shared.outage import Outage
from shared.runtime.process import background
from shared.webhooks.endpoint_changes import DisabledMark, ManagedEndpoints
from shared.webhooks.stream_follower import StreamFollower

log = get_logger(__name__)

_POLL_S: Final = 1.0
_RETRY_S: Final = 0.5


class Origin(StrEnum):
    """The origin of an endpoint. One of the file cannot be changed by the API."""

    FILE = "file"
    API = "api"


@dataclass(frozen=True, slots=True)
class EndpointState:
    """An endpoint in force.

    Attributes:
        disabled: the mark of an endpoint that has answered 410, unless its URL was changed since.
    """

    endpoint: Endpoint
    origin: Origin
    disabled: DisabledMark | None = None

    @property
    def is_active(self) -> bool:
        return self.endpoint.enabled and self.disabled is None


States = Mapping[EndpointName, EndpointState]


class LiveEndpoints:
    """The endpoints in force, which are never changed in place.

    Attributes:
        current: the endpoints, by name.
        managed: what the stream `endpoints.journal` holds.
        problem: what is wrong with the file, as a sentence; '' if nothing is.
        is_complete: the stream was read to its end once, so no endpoint is missing in `current`.
    """

    def __init__(self, path: Path | None, address: BrokerAddress) -> None:
        """Read the file.

        Raises:
            ConfigError: the file has a fault.
        """
        self._file = None if path is None else EndpointsFile(path)
        self._of_file: Endpoints = {} if self._file is None else self._file.read()
        self._parsed: dict[str, tuple[object, Endpoint | None]] = {}
        self.managed = ManagedEndpoints()
        self.problem = ""
        self.is_complete = False
        self.current: States = {}
        self._changed = asyncio.Event()
        self._outage = Outage(log, "endpoints_reload_failed", "endpoints_file_valid", is_error=True)
        self.follower = StreamFollower(address, ENDPOINTS_JOURNAL, self._apply, self._forget)
        self._derive()

    @property
    def removed(self) -> Mapping[EndpointName, frozenset[str]]:
        """The endpoints that the API has removed, with every topic pattern that they had."""
        return {EndpointName(name): each for name, each in self.managed.removed.items() if name not in self.current}

    def problems(self) -> list[str]:
        """Return a sentence about the fault of the file, if it has one."""
        return [f"The endpoints stay as they were. {self.problem}"] if self.problem else []

    async def run(self) -> NoReturn:
        """Follow file and stream until cancelled. Run it as a task."""
        async with background(self.follower.run()), asyncio.TaskGroup() as group:
            group.create_task(self._complete())
            while True:
                await asyncio.sleep(_POLL_S)
                await self.refresh()

    async def wait_for_change(self, *, timeout_s: float) -> None:
        """Wait until `current` may have changed since the last call, but no longer than a time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
        except TimeoutError:
            return
        self._changed.clear()

    async def refresh(self, *, at_once: bool = False) -> None:
        """Take over a change of the file. With a fault, the endpoints of the file stay as they are."""
        if self._file is None:
            return
        try:
            changed = await asyncio.to_thread(self._file.poll, at_once=at_once)
        except ConfigError as error:
            self._refuse(str(error))
            return
        except Exception as error:  # noqa: BLE001 - whatever is in the file, the process goes on
            self._refuse(f"The endpoints file cannot be used ({type(error).__name__}).")
            return
        if changed is not None:
            self._of_file = changed
            self.problem = ""
            self._outage.succeeded()
            self._derive()

    def _refuse(self, problem: str) -> None:
        self.problem = problem
        self._outage.failed(problem)

    async def _complete(self) -> None:
        """Read the stream to its end once."""
        while not self.is_complete:
            await self.follower.consumer.wait_until_up()
            try:
                await self.follower.catch_up()
                self.is_complete = True
            except BrokerUnavailableError:
                await asyncio.sleep(_RETRY_S)
        self._changed.set()

    def _apply(self, delivery: Delivery) -> None:
        try:
            self.managed = self.managed.after(delivery.body)
        except (ValueError, RecursionError):
            log.warning("unexpected_message", offset=delivery.offset, routing_key=delivery.routing_key)
            return
        self._derive()

    def _forget(self) -> None:
        # The endpoints of the API stay until the new stream has a state. A lost stream must not remove them.
        return

    def _derive(self) -> None:
        """Let a state take force. An endpoint of the file takes precedence over one of the API."""
        states: dict[EndpointName, EndpointState] = {}
        for name, table in self.managed.tables.items():
            endpoint = self._parse(name, table)
            if endpoint is not None:
                states[endpoint.name] = EndpointState(endpoint, Origin.API, self._mark(endpoint))
        for endpoint in self._of_file.values():
            states[endpoint.name] = EndpointState(endpoint, Origin.FILE, self._mark(endpoint))
        if states != self.current:
            self.current = states
            log.info("endpoints_changed", endpoints=sorted(states), disabled=sorted(n for n, s in states.items() if s.disabled))
        self._changed.set()

    def _parse(self, name: str, table: Mapping[str, object]) -> Endpoint | None:
        known = self._parsed.get(name)
        if known is None or known[0] != table:
            try:
                known = table, parse_endpoint(name, table)
            except ConfigError as error:  # of another release; the console checks what it publishes
                log.warning("endpoint_refused", endpoint=name[:40], detail=str(error))
                known = table, None
            self._parsed[name] = known
        return known[1]

    def _mark(self, endpoint: Endpoint) -> DisabledMark | None:
        mark = self.managed.disabled.get(endpoint.name)
        return mark if mark is not None and mark.url_digest == endpoint.url_digest else None
