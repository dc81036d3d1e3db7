"""A site whose worker stores recordings, with the commands that look after them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

from console.history.store import History
from console.local.ports import free_port
from tests.helpers.recordings import Pbx, job, submit
from tests.helpers.servers import (
    Servers,
    callfold,
    eventually,
    next_events,
)

OLD = "2024-02-29T23:59:59.000000Z"


async def audited(servers: Servers, count: int, *, since: str = "", **wanted: str) -> list[Any]:
    """Have a history process read the audit lines; returns those that agree, the first first, once there are so many."""
    url = f"sqlite:///{servers.directory / 'audit.sqlite'}"
    async with servers.fleet(CALLFOLD_HISTORY_URL=url) as fleet, aclosing(History(url)) as history:
        await fleet.add("history", "console.history", {}).start()

        async def found() -> list[Any]:
            lines = await history.audit(since or None, limit=10_000)
            found = [line for line in lines if all(getattr(line, name) == value for name, value in wanted.items())]
            return sorted(found, key=lambda line: line.at) if len(found) >= count else []

        return list(await eventually(found))


class Site:
    """One source with a worker that serves it, and the command line beside it."""

    def __init__(self, servers: Servers, pbx: Pbx, name: str, more: str = "") -> None:
        self.servers = servers
        self.name = name
        path = servers.directory / "sources.toml"
        path.write_text(
            f'[sources.{name}]\nsecret = "x"\nrecording_url = "{pbx.url}/rec?nId={{call_id}}"\n{more}\n', encoding="utf-8"
        )
        self.settings = servers.environment(CALLFOLD_SOURCES=str(path))

    @asynccontextmanager
    async def working(self, *roles: str) -> AsyncIterator[int]:
        port = free_port()
        async with self.servers.fleet(**self.settings, CALLFOLD_INGRESS_PORT=str(port)) as fleet:
            for role in ("worker", *roles):
                await fleet.add(role, role, {}).start()
            yield port

    async def stored(self, *jobs: bytes) -> None:
        """Have jobs worked off, to whatever end."""
        async with self.servers.subscribed("recording.#") as queue, self.working():
            await submit(self.servers, *jobs)
            await next_events(queue, len(jobs))

    async def callfold(self, *arguments: str, **settings: str) -> tuple[int | None, str, str]:
        return await callfold(*arguments, **self.settings | settings)

    def job(self, call_id: str = "7", **changed: Any) -> bytes:  # noqa: ANN401
        return job(call_id, **{"source": self.name, "recording_url": None} | changed).encode()

    def files(self) -> list[str]:
        root = self.servers.directory / "archive" / self.name / "monitor"
        return sorted(path.name for path in root.rglob("*") if path.is_file())

    def file(self, name: str) -> Path:
        (found,) = (self.servers.directory / "archive" / self.name).rglob(name)
        return found
