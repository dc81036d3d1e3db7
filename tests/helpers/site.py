"""An ingress without RabbitMQ: every callback is durable at once, and dead letters are collected."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ingress.callbacks import CallbackHandler
from ingress.group_commit import GroupCommit
from ingress.outgoing_message import OutgoingMessage
from ingress.server import serving
from shared.config.sources import load_sources
from shared.runtime.connections import HttpLimits
from shared.runtime.process import background
from tests.helpers.intake import counted, published_at_once

# Nothing ends within this time in a test that passes.
PATIENT = HttpLimits(head_s=600, body_s=600, idle_s=600, send_s=600)
CONNECTIONS = 16


@dataclass(slots=True)
class Site:
    """Where it listens, and what it has kept."""

    port: int = 0
    accepted: list[bytes] = field(default_factory=list)
    dead_letters: list[OutgoingMessage] = field(default_factory=list)


Start = Callable[..., AbstractAsyncContextManager[Site]]


def site_of(directory: Path, sources: str) -> Start:
    """Return what serves with these sources and, if they are given, these limits of connections."""
    path = directory / "sources.toml"
    path.write_text(sources)

    @asynccontextmanager
    async def serve(limits: HttpLimits = PATIENT) -> AsyncIterator[Site]:
        site = Site()

        async def write(events: Sequence[bytes]) -> None:
            site.accepted.extend(events)

        async def send(message: OutgoingMessage) -> None:
            site.dead_letters.append(message)

        commit, loaded = GroupCommit(write), load_sources(path)
        handler = CallbackHandler(loaded, published_at_once(loaded, commit), send, counted())
        serves = serving(handler, "127.0.0.1", 0, shutdown_timeout_s=10, max_connections=CONNECTIONS, limits=limits)
        async with background(commit.run()), serves as site.port:
            yield site

    return serve
