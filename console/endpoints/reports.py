"""Endpoints with their state: what waits for them, whether a forwarder is there, and their last attempts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from console.endpoints.editor import EndpointEditor
from console.endpoints.errors import NoHistoryError
from console.endpoints.models import AttemptList, EndpointList, EndpointView
from console.endpoints.views import view
from console.history.attempts import Attempt
from console.history.store import History
from shared.amqp.queue_reader import QueueDepths, Waiting
from shared.amqp.topology import forward_queue, forward_retry_queue
from shared.errors import BrokerUnavailableError, HistoryUnavailableError
from shared.webhooks.live_endpoints import EndpointState

_NO_HISTORY = "Attempts are in the history, and there is none. Set CALLFOLD_HISTORY_URL, and run `callfold history`."


class EndpointReports:
    """Describes endpoints. What cannot be found out is unknown, and fails nothing else."""

    def __init__(
        self, editor: EndpointEditor, depths: QueueDepths, history: History | None, retry_seconds: Sequence[float]
    ) -> None:
        self._editor = editor
        self._depths = depths
        self._history = history
        self._delays = sorted(set(retry_seconds))

    async def all(self, *, shows_urls: bool) -> EndpointList:
        """Describe all endpoints by name.

        Raises:
            BrokerUnavailableError: the endpoints of the API are not known.
        """
        await self._editor.wait_until_complete()
        live = self._editor.live
        states = [live.current[name] for name in sorted(live.current)]
        return EndpointList(endpoints=await self.describe(states, shows_urls=shows_urls), problem=live.problem or None)

    async def describe(self, states: Sequence[EndpointState], *, shows_urls: bool) -> list[EndpointView]:
        """Describe endpoints."""
        names = [state.endpoint.name for state in states]
        waiting, last = await self._waiting(names), await self._last_attempts(names)
        return [
            view(
                state,
                file=self._editor.file,
                shows_url=shows_urls,
                waiting=waiting.get(state.endpoint.name),
                last_attempt=last.get(state.endpoint.name),
            )
            for state in states
        ]

    async def attempts(self, name: str, *, limit: int, before: str | None = None, failed: bool = False) -> AttemptList:
        """List attempts at an endpoint, newest first.

        Raises:
            UnknownEndpointError: there is none of this name, and there never was an attempt.
            HistoryUnavailableError: the history does not answer.
            NoHistoryError: there is no history.
        """
        if self._history is None:
            raise NoHistoryError(_NO_HISTORY)
        listed = await self._history.attempts(name, limit=limit, before=before, failed=failed)
        if not listed:
            await self._editor.read(name)
        return AttemptList(attempts=listed, next=listed[-1].at if len(listed) == limit else None)

    async def _waiting(self, names: Sequence[str]) -> Mapping[str, Waiting | None]:
        groups = {
            name: [forward_queue(name), *(forward_retry_queue(name, delay_s) for delay_s in self._delays)] for name in names
        }
        try:
            return await self._depths.count_groups(groups)
        except BrokerUnavailableError:
            return {}

    async def _last_attempts(self, names: Sequence[str]) -> Mapping[str, Attempt]:
        if self._history is None:
            return {}
        try:
            return await self._history.last_attempts(names)
        except HistoryUnavailableError:
            return {}
