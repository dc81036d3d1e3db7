"""Every route of the console as data: what it answers to, who may, and what `openapi.json` says of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from aiohttp import web
from pydantic import BaseModel

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Answer:
    """One kind of answer; `model` types its JSON, `media` names what else it is."""

    description: str
    model: type[BaseModel] | None = None
    media: Sequence[str] = ("application/json",)


@dataclass(frozen=True, slots=True)
class Operation:
    """What `openapi.json` says of a route; the models are those that validate its requests."""

    summary: str
    answers: Mapping[int, Answer]
    query: type[BaseModel] | None = None
    body: type[BaseModel] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
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
