"""The console's HTTP server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from console.web.app import HEADERS
from console.web.problems import problem
from shared.config.settings import Settings
from shared.log import get_logger
from shared.runtime.connections import Connections, HttpLimits
from shared.runtime.descriptors import connection_limit, descriptor_limit
from shared.runtime.health import listen
from shared.runtime.http_server import Runner

log = get_logger(__name__)

# Without a Server header aiohttp would add one with its version.
_HEADERS = {**HEADERS, "Cache-Control": "no-store", "Server": "callfold"}

# Idle browsers keep a connection for two minutes. A reader of a stream may pause for five, as a reader in a terminal does.
_LIMITS = HttpLimits(idle_s=120, send_s=300)


def _refuse(status: int, title: str) -> web.Response:
    return problem(status, title, _HEADERS)


@asynccontextmanager
async def serving(app: web.Application, settings: Settings) -> AsyncIterator[None]:
    """Serve the console. On exit, stop accepting connections and finish the requests in flight."""
    connections = Connections("public", connection_limit(settings.max_connections, descriptor_limit()), _LIMITS)
    runner = Runner(app, _refuse, connections, shutdown_timeout_s=settings.shutdown_timeout_seconds)
    await runner.setup()
    try:
        port = await listen(runner, (settings.console_host, settings.console_port), "CALLFOLD_CONSOLE_PORT")
        log.info("console_listening", host=settings.console_host, port=port)
        yield
    finally:
        await runner.cleanup()
