"""The private port of every process: /healthz (alive), /readyz (ready for work), /metrics (Prometheus)."""

from __future__ import annotations

import errno
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import orjson
from aiohttp import web

from shared.errors import ConfigError
from shared.log import get_logger
from shared.metrics import Export
from shared.runtime.connections import Connections, HttpLimits
from shared.runtime.descriptors import backlog, descriptor_limit
from shared.runtime.http_server import Runner

log = get_logger(__name__)

_SHUTDOWN_S = 60  # every response takes far less
# Prometheus, a load balancer and a few people; the others are refused.
_MAX_CONNECTIONS = 32

Problems = Callable[[], Awaitable[list[str]]]
"""Returns what keeps the process from working. It is ready if there is nothing, or nothing but handicaps."""


class Handicap(str):
    """A problem with which the process is ready nevertheless, because its most important work goes on."""

    __slots__ = ()


@asynccontextmanager
async def private_port(host: str, port: int, problems: Problems, export: Export) -> AsyncIterator[int]:
    """Serve the private port; yields its number (`port` 0 means any free port)."""

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="alive\n")

    async def readyz(_: web.Request) -> web.Response:
        current = await problems()
        is_ready = all(isinstance(problem, Handicap) for problem in current)
        body = orjson.dumps({"ready": is_ready, "problems": [str(problem) for problem in current]})
        return web.Response(body=body, status=200 if is_ready else 503, content_type="application/json")

    async def metrics(request: web.Request) -> web.Response:
        body, content_type = await export.render(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def without_version(_: web.Request, response: web.StreamResponse) -> None:
        response.headers.pop("Server", None)

    app = web.Application()
    app.on_response_prepare.append(without_version)
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)])
    connections = Connections("private", _MAX_CONNECTIONS, HttpLimits())
    runner = Runner(app, _refuse, connections, shutdown_timeout_s=_SHUTDOWN_S)
    await runner.setup()
    try:
        bound_port = await listen(runner, (host, port), "CALLFOLD_METRICS_PORT")
        log.info("private_port_opened", host=host, port=bound_port)
        yield bound_port
    finally:
        await runner.cleanup()


def _refuse(status: int, sentence: str) -> web.Response:
    return web.Response(status=status, text=f"{sentence}\n", headers={"Server": "callfold"})


async def listen(runner: web.BaseRunner, address: tuple[str, int], setting: str) -> int:
    """Open a port for a runner and return its number; `setting` names the setting that chose it.

    Raises:
        ConfigError: the port is in use, or the address is not one of this machine.
    """
    site = web.TCPSite(runner, *address, backlog=backlog(descriptor_limit()))
    try:
        await site.start()
    except OSError as error:
        raise _listen_error(address, setting, error) from error
    return int(runner.addresses[-1][1])


def check_port_free(address: tuple[str, int], setting: str) -> None:
    """Check that `listen` could open a port.

    Raises:
        ConfigError: as `listen` does.
    """
    try:
        for family, kind, protocol, _, target in socket.getaddrinfo(*address, type=socket.SOCK_STREAM):
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind(target)
                probe.listen(1)
    except OSError as error:
        raise _listen_error(address, setting, error) from error


def _listen_error(address: tuple[str, int], setting: str, error: OSError) -> ConfigError:
    host, port = address
    reason = "the port is in use" if error.errno == errno.EADDRINUSE else error.strerror or str(error)
    return ConfigError(f"Cannot listen on {host}:{port}: {reason}. Set {setting} to another port.")
