"""`GET` and `POST /dead-letters`: list, redrive and drop dead letters."""

from __future__ import annotations

from typing import Annotated, Literal

import orjson
from aiohttp import web
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from console.dead_letters.listing import LookRequest, find
from console.dead_letters.prospects import Prospects, foresee
from console.dead_letters.queue import DeadLetterQueue, Filter
from console.dead_letters.redrive_or_drop import Settled, SettleRequest, oldest_redrivable, settle
from console.dead_letters.waiting_redrive import Returned, redrive_and_wait
from console.durations import ago
from console.web.keys import IDENTITY
from console.web.parameters import read_parameters
from console.web.problems import invalid, reject_unless_json
from shared.config.live_sources import LiveSources
from shared.config.settings import Settings
from shared.errors import ConfigError
from shared.runtime.audit import Action
from shared.webhooks.live_endpoints import LiveEndpoints

Text = Annotated[str, Field(min_length=1, max_length=256)]


def _duration(text: str) -> str:
    try:
        ago(text)
    except (ConfigError, OverflowError) as error:
        raise ValueError("is not a duration like 90s, 15m, 2h or 7d") from error
    return text


class DeadLettersQuery(BaseModel):
    """The parameters of `GET /dead-letters`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    queue: DeadLetterQueue = Field(default=DeadLetterQueue.CALLBACKS, description="The queue of dead letters.")
    reason: Text | None = Field(default=None, description="Only dead letters with this reason.")
    source: Text | None = Field(default=None, description="Only dead letters of this source.")
    since: Annotated[Text, AfterValidator(_duration)] | None = Field(
        default=None, description="Only dead letters first seen within this duration: 90s, 15m, 2h, 7d."
    )
    endpoint: Text | None = Field(default=None, description="Only dead letters of this webhook, in the queue `forward`.")
    limit: int = Field(default=100, ge=1, le=500, description="Maximum number of dead letters in the answer.")

    def filter(self) -> Filter:
        return Filter((), self.reason, self.source, self.since, self.endpoint)


class DeadLettersAction(BaseModel):
    """The body of `POST /dead-letters`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    action: Literal["redrive", "drop"] = Field(description="`redrive` publishes the dead letters again, `drop` deletes them.")
    queue: DeadLetterQueue = Field(default=DeadLetterQueue.CALLBACKS, description="The queue of dead letters.")
    ids: Annotated[list[Annotated[str, Field(min_length=4, max_length=64)]], Field(min_length=1, max_length=500)] = Field(
        description="Ids or id prefixes."
    )
    dry_run: bool = Field(default=False, description="Count only; change nothing.")


class DeadLettersApi:
    """Serves the queues of dead letters."""

    def __init__(self, settings: Settings, sources: LiveSources, endpoints: LiveEndpoints) -> None:
        self._settings = settings
        self._sources = sources
        self._endpoints = endpoints

    async def list(self, request: web.Request) -> web.Response:
        """Return the matching dead letters, credentials masked, and their number."""
        try:
            query = read_parameters(request, DeadLettersQuery)
        except ValidationError as error:
            return invalid(error, DeadLettersQuery)
        listing = await find(self._settings, query.queue, LookRequest(query.filter(), query.limit))
        body = {
            "queue": query.queue,
            "found": listing.count,
            "more": not listing.is_complete,
            "scanned": listing.scanned,
            "letters": listing.dead_letters,
        }
        return web.json_response(body=orjson.dumps(body))

    async def act(self, request: web.Request) -> web.Response:
        """Redrive or drop dead letters. Each is removed only after RabbitMQ has confirmed its copy elsewhere."""
        refusal = reject_unless_json(request)
        if refusal is not None:
            return refusal
        try:
            action = DeadLettersAction.model_validate_json(await request.read())
        except ValidationError as error:
            return invalid(error, DeadLettersAction)
        done = await self.settle(action, request[IDENTITY].name)
        body = {"action": action.action, "dry_run": action.dry_run, "letters": done.done, "spared": done.skipped}
        if not done.is_complete:
            body["at_least"] = True
        return web.json_response(body=orjson.dumps(body))

    async def settle(self, action: DeadLettersAction, who: str) -> Settled:
        """Carry out an action; the audit trail names `who` requested it."""
        return await settle(self._settings, action.queue, Filter(tuple(action.ids)), self._request(action, who))

    async def redrive_and_wait(self, action: DeadLettersAction, who: str) -> tuple[Settled, Returned]:
        """Redrive callbacks, and wait until workers have folded them; returns also which came back."""
        return await redrive_and_wait(self._settings, Filter(tuple(action.ids)), self._request(action, who))

    async def foresee(self, action: DeadLettersAction, who: str) -> Prospects:
        """Predict which dead letters would come back from a redrive."""
        query, sources = Filter(tuple(action.ids)), self._sources.current
        return await foresee(self._settings, action.queue, query, self._request(action, who), sources)

    def _request(self, action: DeadLettersAction, who: str) -> SettleRequest:
        oldest = oldest_redrivable(self._settings, action.queue)
        endpoints = frozenset[str](self._endpoints.current) if action.queue is DeadLetterQueue.FORWARD else None
        return SettleRequest(Action(action.action), who, action.dry_run, oldest, endpoints)
