"""Every route of the console as data: what it answers to, who may, and what `openapi.json` says of it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from aiohttp import web
from pydantic import BaseModel

from console.web.problems import problem

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Answer:
    """One kind of answer; `model` types its JSON, `media` names what else it is, `headers` come always, `at_times` do not."""

    description: str
    model: type[BaseModel] | None = None
    media: Sequence[str] = ("application/json",)
    headers: Mapping[str, str] = field(default_factory=dict)
    at_times: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Header:
    """A header of a request, never required."""

    description: str
    pattern: str | None = None


@dataclass(frozen=True, slots=True)
class Operation:
    """What `openapi.json` says of a route; the models, and the patterns of `path`, are those that validate its requests."""

    summary: str
    answers: Mapping[int, Answer]
    query: type[BaseModel] | None = None
    body: type[BaseModel] | None = None
    headers: Mapping[str, Header] = field(default_factory=dict)
    path: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Route:
    """One method and path. Without `operation` it is a page.

    Attributes:
        is_public: needs no key.
        is_harmless: changes nothing, though it is posted.
        is_endless: its answer has no end: there is no HEAD of it.
    """

    method: str
    path: str
    handler: Handler
    operation: Operation | None = None
    is_public: bool = False
    is_harmless: bool = False
    is_endless: bool = False

    def checked(self) -> Handler:
        """Make the handler that lets only those names in the path through that the operation describes."""
        patterns = {name: re.compile(pattern) for name, pattern in self.operation.path.items()} if self.operation else {}

        async def check(request: web.Request) -> web.StreamResponse:
            wrong = next((name for name, pattern in patterns.items() if not pattern.fullmatch(request.match_info[name])), None)
            if wrong is not None:
                return problem(404, f"This is no {wrong}: there is nothing of that name.", None, parameter=wrong)
            return await self.handler(request)

        return check if patterns else self.handler
