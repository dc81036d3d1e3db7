"""Changes of endpoints: each one is a complete state in the stream `endpoints.journal`, published under a lock.

The lock is an exclusive queue of a connection to RabbitMQ. So two consoles, or a console and a command, never overwrite the
changes of each other. Who reads the stream takes its last state.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

from console.endpoints import changes
from console.endpoints.changes import Change
from console.endpoints.errors import EndpointChangedError, EndpointConflictError, UnknownEndpointError
from console.endpoints.models import GivenEndpoint
from console.endpoints.views import etag
from shared.amqp.publisher import Message, Publisher
from shared.amqp.queue_reader import QueueReader
from shared.amqp.topology import ENDPOINTS_JOURNAL
from shared.config.endpoints import EndpointName
from shared.config.settings import Settings
from shared.errors import BrokerUnavailableError
from shared.runtime.audit import Action, Audit
from shared.runtime.broker import broker_address
from shared.streams.connections import wait_until_connected
from shared.webhooks.endpoint_changes import ManagedEndpoints
from shared.webhooks.live_endpoints import EndpointState, LiveEndpoints, Origin
from shared.webhooks.signing import new_secret

_LOCK: Final = "lock"
_LOCK_RETRY_S: Final = 0.05
_LOCK_TIMEOUT_S: Final = 20.0
_READ_TIMEOUT_S: Final = 15.0


class Edited(NamedTuple):
    """A changed endpoint, and its secret if one was made for it."""

    state: EndpointState
    new_secret: str | None = None


class Request(NamedTuple):
    """A change of an endpoint: its name, the requester, and the entity tag that it must have, if one is given."""

    name: str
    who: str
    if_match: str | None = None


class EndpointEditor:
    """Changes the endpoints that the API manages.

    Every method raises BrokerUnavailableError if RabbitMQ does not take the change.
    """

    def __init__(self, settings: Settings, live: LiveEndpoints, publisher: Publisher) -> None:
        self._settings = settings
        self.live = live
        self._publisher = publisher
        self._audit = Audit(publisher)
        self._changing = asyncio.Lock()
        self._lock = QueueReader(broker_address(settings, "endpoints"), ENDPOINTS_JOURNAL)

    def tasks(self) -> list[Coroutine[object, object, object]]:
        """Return the endless tasks that follow the endpoints, and keep the connection for the lock."""
        return [self.live.run(), self._lock.run()]

    @property
    def file(self) -> str | None:
        """The file that may have endpoints too."""
        return None if self._settings.endpoints_file is None else str(self._settings.endpoints_file)

    async def read(self, name: str) -> EndpointState:
        """Return an endpoint.

        Raises:
            UnknownEndpointError: there is none of this name.
        """
        await self.wait_until_complete()
        return self._state(name)

    async def wait_until_complete(self) -> None:
        """Wait until the endpoints of the API are known."""
        end = time.monotonic() + _READ_TIMEOUT_S
        while not self.live.is_complete:
            if time.monotonic() > end:
                raise BrokerUnavailableError("The endpoints could not be read from RabbitMQ. Try again when it is reachable.")
            await asyncio.sleep(_LOCK_RETRY_S)

    async def add(self, request: Request, given: GivenEndpoint) -> Edited:
        """Add an endpoint.

        Raises:
            EndpointConflictError: the name is taken.
            InvalidEndpointError: a setting is invalid.
        """
        made = None if given.secret else new_secret()
        secret = given.secret or made or ""
        await self._change(Action.ENDPOINT_ADDED, request, lambda managed: changes.added(managed, request.name, given, secret))
        return Edited(self._state(request.name), made)

    async def replace(self, request: Request, given: GivenEndpoint) -> Edited:
        """Replace the settings of an endpoint.

        Raises:
            UnknownEndpointError: there is none of this name.
            EndpointConflictError: it is one of the file.
            EndpointChangedError: it has another entity tag.
            InvalidEndpointError: a setting is invalid.
        """
        await self._change(Action.ENDPOINT_CHANGED, request, lambda managed: changes.changed(managed, request.name, given))
        return Edited(self._state(request.name))

    async def rotate(self, request: Request, secret: str | None) -> Edited:
        """Set a new secret. The present one becomes a previous one. Raises as `replace` does."""
        made = None if secret else new_secret()
        new = secret or made or ""
        await self._change(Action.ENDPOINT_CHANGED, request, lambda managed: changes.rotated(managed, request.name, new))
        return Edited(self._state(request.name), made)

    async def remove_previous_secrets(self, request: Request) -> Edited:
        """End a rotation: only the present secret signs. Raises as `replace` does."""
        await self._change(Action.ENDPOINT_CHANGED, request, lambda managed: changes.without_previous(managed, request.name))
        return Edited(self._state(request.name))

    async def switch(self, request: Request, *, is_on: bool) -> Edited:
        """Enable or disable an endpoint. Raises as `replace` does.

        One of the file can only be enabled again after an answer 410.
        """
        name = request.name
        state = await self.read(name)
        if is_on and state.origin is Origin.FILE and state.disabled is not None:
            await self._change(
                Action.ENDPOINT_CHANGED, request, lambda managed: changes.unmarked(managed, name), of_file_too=True
            )
        else:
            await self._change(Action.ENDPOINT_CHANGED, request, lambda managed: changes.switched(managed, name, is_on=is_on))
        return Edited(self._state(name))

    async def remove(self, request: Request) -> None:
        """Remove an endpoint. Raises as `replace` does."""
        await self._change(Action.ENDPOINT_REMOVED, request, lambda managed: changes.removed(managed, request.name))

    async def record_test(self, request: Request, status: int | None) -> None:
        """Record that a test event was sent, and the status of its answer."""
        await self._audit.record(Action.ENDPOINT_TESTED, request.who, endpoint=request.name, status=status)

    def _state(self, name: str) -> EndpointState:
        state = self.live.current.get(EndpointName(name))
        if state is None:
            raise UnknownEndpointError(f"There is no endpoint {name[:40]}. `callfold endpoints list` lists them.")
        return state

    async def _change(self, action: Action, request: Request, change: Change, *, of_file_too: bool = False) -> None:
        """Publish the next state, after an entry in the audit trail."""
        await self._catch_up()
        self._next(action, request, change, of_file_too=of_file_too)  # most refusals need no lock
        async with self._changing, self._locked():
            await self._catch_up()
            before = self.live.managed
            after = self._next(action, request, change, of_file_too=of_file_too)
            settings = changes.changed_settings(before, after, request.name)
            await self._audit.record_or_raise(action, request.who, endpoint=request.name, changed=settings)
            await self._lock.count()  # it fails if the lock was lost
            await self._publisher.publish(Message("", ENDPOINTS_JOURNAL, after.encode(), uuid.uuid4().hex))
            await self._catch_up()

    def _next(self, action: Action, request: Request, change: Change, *, of_file_too: bool) -> ManagedEndpoints:
        self._check(action, request, of_file_too=of_file_too)
        return change(self.live.managed)

    def _check(self, action: Action, request: Request, *, of_file_too: bool) -> None:
        state = self.live.current.get(EndpointName(request.name))
        if state is not None and state.origin is Origin.FILE and not of_file_too:
            raise EndpointConflictError(f"Endpoint {request.name} is in the file {self.file}. Change it there.")
        if action is not Action.ENDPOINT_ADDED and not of_file_too and request.name not in self.live.managed.tables:
            self._state(request.name)
        if request.if_match not in {None, "*"} and (state is None or request.if_match != etag(state)):
            raise EndpointChangedError(f"Endpoint {request.name} has changed since you read it. Read it again.")

    async def _catch_up(self) -> None:
        await self.wait_until_complete()
        try:
            async with asyncio.timeout(_READ_TIMEOUT_S):
                await self.live.follower.catch_up()
        except TimeoutError:
            raise BrokerUnavailableError(f"{ENDPOINTS_JOURNAL} could not be read to its end in {_READ_TIMEOUT_S:g} s.") from None

    @asynccontextmanager
    async def _locked(self) -> AsyncIterator[None]:
        await wait_until_connected(self._lock, self._publisher)
        self._lock.forget_lost_locks()  # none is held between two changes
        end = time.monotonic() + _LOCK_TIMEOUT_S
        while not await self._lock.try_lock(_LOCK):
            if time.monotonic() > end:
                raise BrokerUnavailableError("Another change of endpoints takes too long. Try again in a minute.")
            await asyncio.sleep(_LOCK_RETRY_S)
        try:
            yield
        finally:
            try:
                await self._lock.release(_LOCK)
            except BrokerUnavailableError:
                self._lock.recycle("its lock could not be released")
