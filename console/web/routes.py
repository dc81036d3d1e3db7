"""Routes of the console as data: handler, access, and the operation that `openapi.json` describes."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from aiohttp import web
from pydantic import BaseModel

from console.web.keys import IDENTITY
from console.web.problems import problem
from console.web.slots import Slots

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Answer:
    """One kind of response.

    Attributes:
        model: the type of its JSON.
        media: its media types.
        headers: headers that are always present, with their descriptions.
        optional_headers: headers that are sometimes present.
        others: media types of other content, which the document does not describe.
    """

    description: str
    model: type[BaseModel] | None = None
    media: Sequence[str] = ("application/json",)
    headers: Mapping[str, str] = field(default_factory=dict)
    optional_headers: Mapping[str, str] = field(default_factory=dict)
    others: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Header:
    """An optional header of a request."""

    description: str
    pattern: str | None = None


@dataclass(frozen=True, slots=True)
class Operation:
    """The OpenAPI description of a route. Its models and the patterns of `path` also validate the requests."""

    summary: str
    answers: Mapping[int, Answer]
    query: type[BaseModel] | None = None
    body: type[BaseModel] | None = None
    headers: Mapping[str, Header] = field(default_factory=dict)
    path: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Route:
    """One method and path.

    Attributes:
        operation: None for a page.
        is_public: needs no key.
        is_read_only: changes nothing although its method is POST.
        is_endless: its response never ends, so it has no HEAD.
        slots: bound how many of its requests run at once.
    """

    method: str
    path: str
    handler: Handler
    operation: Operation | None = None
    is_public: bool = False
    is_read_only: bool = False
    is_endless: bool = False
    slots: Slots | None = None

    def bounded_handler(self) -> Handler:
        """Return the handler behind a check of the path against the patterns of the operation, and behind its slots."""
        patterns = {name: re.compile(pattern) for name, pattern in self.operation.path.items()} if self.operation else {}

        async def validate(request: web.Request) -> web.StreamResponse:
            invalid = next((name for name, pattern in patterns.items() if not pattern.fullmatch(request.match_info[name])), None)
            if invalid is not None:
                return problem(404, f"The {invalid} in the path is malformed, so nothing has this name.", None, parameter=invalid)
            if self.slots is None:
                return await self.handler(request)
            async with self.slots.one(request[IDENTITY].name):
                return await self.handler(request)

        return validate if patterns or self.slots else self.handler
