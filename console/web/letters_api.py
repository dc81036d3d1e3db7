"""Dead letters over HTTP: look at them, put them back, or drop them."""

from __future__ import annotations

from typing import Annotated, Literal

import orjson
from aiohttp import web
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from console.dead_letters.queue import Filter, Which
from console.dead_letters.settle import Order, Settled, find, known_since, settle
from console.durations import ago
from console.web.access import WHO
from console.web.problems import invalid, not_json, read_parameters
from shared.config.settings import Settings
from shared.errors import ConfigError
from shared.runtime.audit import Action

Text = Annotated[str, Field(min_length=1, max_length=256)]


def _duration(text: str) -> str:
    try:
        ago(text)
    except (ConfigError, OverflowError) as error:
        raise ValueError("is not a duration like 90s, 15m, 2h or 7d") from error
    return text


class LettersQuery(BaseModel):
    """What `GET /dead-letters` can be asked."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    queue: Which = Field(default=Which.CALLBACKS, description="Whose dead letters.")
    reason: Text | None = Field(default=None, description="Only those with this reason.")
    source: Text | None = Field(default=None, description="Only those of this source.")
    since: Annotated[Text, AfterValidator(_duration)] | None = Field(
        default=None, description="Only those first seen so long ago or later: 90s, 15m, 2h, 7d."
    )
    limit: int = Field(default=100, ge=1, le=500, description="Letters in the answer at most.")

    def filter(self) -> Filter:
        return Filter((), self.reason, self.source, self.since)


class LettersAction(BaseModel):
    """What is to be done with which letters."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    action: Literal["redrive", "drop"] = Field(description="Put back, or remove for good.")
    queue: Which = Field(default=Which.CALLBACKS, description="Whose dead letters.")
    ids: Annotated[list[Annotated[str, Field(min_length=4, max_length=64)]], Field(min_length=1, max_length=500)] = Field(
        description="The ids, or how they begin."
    )
    dry_run: bool = Field(default=False, description="Only count.")


class LettersApi:
    """Answers for the two queues of dead letters."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def list(self, request: web.Request) -> web.Response:
        """Answer the letters that match, credentials masked, and how many there are."""
        try:
            query = read_parameters(request, LettersQuery)
        except ValidationError as error:
            return invalid(error, LettersQuery)
        letters, found = await find(self._settings, query.queue, query.filter(), query.limit)
        return web.json_response(body=orjson.dumps({"queue": query.queue, "found": found, "letters": letters}))

    async def act(self, request: web.Request) -> web.Response:
        """Put letters back or drop them; each is removed only once the broker has confirmed it elsewhere."""
        refusal = not_json(request)
        if refusal is not None:
            return refusal
        try:
            wanted = LettersAction.model_validate_json(await request.read())
        except ValidationError as error:
            return invalid(error, LettersAction)
        done = await self.settle(wanted, request[WHO].who)
        told = {"action": wanted.action, "dry_run": wanted.dry_run, "letters": done.letters, "spared": done.spared}
        return web.json_response(body=orjson.dumps(told))

    async def settle(self, wanted: LettersAction, who: str) -> Settled:
        """Do what is wanted, and say who wanted it."""
        order = Order(Action(wanted.action), who, wanted.dry_run, known_since(self._settings, wanted.queue))
        return await settle(self._settings, wanted.queue, Filter(tuple(wanted.ids)), order)
