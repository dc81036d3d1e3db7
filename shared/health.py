"""The private port of every process: /healthz (alive), /readyz (can do its work), /metrics (Prometheus)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import orjson
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from shared.errors import ConfigError
from shared.log import get_logger

log = get_logger(__name__)

Problems = Callable[[], Awaitable[list[str]]]
"""Asks what keeps the process from its work; an empty list means ready."""


@asynccontextmanager
async def private_port(host: str, port: int, problems: Problems) -> AsyncIterator[int]:
    """Serve the private port; yields the port it got (port 0 asks for any)."""

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="alive\n")

    async def readyz(_: web.Request) -> web.Response:
        found = await problems()
        body = orjson.dumps({"ready": not found, "problems": found})
        return web.Response(body=body, status=503 if found else 200, content_type="application/json")

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        got = await listen(runner, host, port)
        log.info("private_port", host=host, port=got)
        yield got
    finally:
        await runner.cleanup()


async def listen(runner: web.BaseRunner, host: str, port: int) -> int:
    """Open a port for a runner and return its number.

    Raises:
        ConfigError: the port is taken, or the address is not this machine's.
    """
    site = web.TCPSite(runner, host, port, backlog=1024)
    try:
        await site.start()
    except OSError as error:
        raise ConfigError(
            f"Cannot listen on {host}:{port}: {error.strerror or error}. Ports are settings: see CALLFOLD_*_PORT."
        ) from error
    return int(runner.addresses[-1][1])
