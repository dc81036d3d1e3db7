"""Private RabbitMQ and Redis for one machine: child processes on loopback, with data in one directory.

`callfold up`, `callfold demo` and the tests use it. A server keeps its port across restarts. A new stack in the same directory
finds the data of the last one. On Linux the servers die with the process that started them, even if that was killed.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self

from console.local import stack_lock
from console.local.child_process import ChildProcess
from console.local.ports import free_port
from console.local.rabbitmq_node import DEPLOY, node_environment
from shared.errors import ConfigError

_START_TIMEOUT_S = 60
_STOP_TIMEOUT_S = 20
_STOP_BOOTING_S = 1
_ANSWER_TIMEOUT_S = 1
_ALL = frozenset({"rabbitmq", "redis"})
# On Debian, `rabbitmq-server` on the PATH switches to another user. The script it wraps does not.
_SERVER_DIRECTORIES = ("/usr/lib/rabbitmq/bin", "/opt/homebrew/sbin", "/usr/local/sbin", "/usr/sbin")

Probe = tuple[bytes, bytes]
"""What to send to a port, and the first bytes of the answer of a ready server. Both empty: it only has to accept a connection."""


class Server(ChildProcess):
    """A private server on a port of the loopback address. It keeps port and data across restarts."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        port: int,
        log: Path,
        probe: Probe = (b"", b""),
    ) -> None:
        super().__init__(name, command, environment, log=log)
        self.port = port
        self._probe = probe

    async def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            ProcessFailedError: it exited or did not answer in time; with the end of its log.
        """
        await self.start_until(self._answers, within_s=_START_TIMEOUT_S)

    async def _answers(self) -> bool:
        request, answer = self._probe
        try:
            async with asyncio.timeout(_ANSWER_TIMEOUT_S):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                try:
                    writer.write(request)
                    return not answer or await reader.read(len(answer)) == answer
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            return False

    async def stop(self) -> None:
        """Stop it with SIGTERM, or with SIGKILL if that takes too long.

        RabbitMQ ignores SIGTERM while it boots, and has nothing to lose then.
        """
        await self.end(signal.SIGTERM, within_s=_STOP_TIMEOUT_S if self.was_ready else _STOP_BOOTING_S)

    async def kill(self) -> None:
        """End it as a crash would."""
        await self.end(signal.SIGKILL, within_s=_STOP_TIMEOUT_S)


REDIS_PROBE: Probe = (b"PING\r\n", b"+PONG")
# RabbitMQ answers a protocol header with a method frame (type 1) on channel 0: Connection.Start.
RABBITMQ_PROBE: Probe = (b"AMQP\x00\x00\x09\x01", b"\x01\x00\x00")


class LocalStack:
    """`async with LocalStack(directory) as stack` runs both servers, or those named in `only`, until the block ends."""

    def __init__(self, directory: Path, *, only: frozenset[str] = _ALL) -> None:
        self._directory = directory
        self._only = only
        self._servers: dict[str, Server] = {}
        self._closing = AsyncExitStack()

    @property
    def rabbitmq(self) -> Server:
        return self._servers["rabbitmq"]

    @property
    def redis(self) -> Server:
        return self._servers["redis"]

    @property
    def servers(self) -> Collection[Server]:
        return self._servers.values()

    @property
    def amqp_url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.rabbitmq.port}/"

    @property
    def redis_url(self) -> str:
        return f"redis://127.0.0.1:{self.redis.port}/0"

    async def __aenter__(self) -> Self:
        """Start the servers in parallel.

        Raises:
            ConfigError: a program is not installed, or another stack runs in the directory.
            ProcessFailedError: a server did not start.
        """
        _require(self._only)
        self._directory.mkdir(parents=True, exist_ok=True)
        async with AsyncExitStack() as closing:
            closing.callback(os.close, stack_lock.take(self._directory))
            builders: Mapping[str, Callable[[Path], list[Server]]] = {"redis": _redis, "rabbitmq": _rabbitmq}
            async with asyncio.TaskGroup() as group:
                for name in sorted(self._only):
                    group.create_task(self._start(closing, builders[name](self._directory)))
            self._closing = closing.pop_all()
        return self

    async def _start(self, closing: AsyncExitStack, servers: Sequence[Server]) -> None:
        for server in servers:
            self._servers[server.name] = server
            closing.push_async_callback(server.stop)
            await server.start()

    async def __aexit__(self, *_: object) -> None:
        await self._closing.aclose()


def _redis(directory: Path) -> list[Server]:
    port, data = free_port(), directory / "redis"
    data.mkdir(exist_ok=True)
    command = ["redis-server", str(DEPLOY / "redis.conf"), "--bind", "127.0.0.1", "--port", str(port), "--dir", str(data)]
    environment = os.environ | {"LC_ALL": "C"}
    return [Server("redis", command, environment, port=port, log=directory / "redis.log", probe=REDIS_PROBE)]


def _rabbitmq(directory: Path) -> list[Server]:
    """Return RabbitMQ and its Erlang port mapper, which RabbitMQ would otherwise start as a daemon and leave running."""
    mapper, port = free_port(), free_port()
    environment = node_environment(directory / "rabbitmq", name="callfold@localhost", port=port, mapper=mapper)
    epmd = ["epmd", "-port", str(mapper), "-address", "127.0.0.1"]
    rabbitmq = [find_program("rabbitmq-server") or ""]
    return [
        Server("epmd", epmd, environment, port=mapper, log=directory / "epmd.log"),
        Server("rabbitmq", rabbitmq, environment, port=port, log=directory / "rabbitmq.log", probe=RABBITMQ_PROBE),
    ]


def _require(servers: frozenset[str]) -> None:
    programs = {"redis": ("redis-server",), "rabbitmq": ("rabbitmq-server", "epmd")}
    missing = [program for server in sorted(servers) for program in programs[server] if find_program(program) is None]
    if missing:
        raise ConfigError(
            f"Not installed: {', '.join(missing)}. Run `sudo apt-get install rabbitmq-server redis-server` (Debian), "
            "`sudo dnf install rabbitmq-server redis` (Fedora) or `brew install rabbitmq redis` (macOS)."
        )


def find_program(program: str) -> str | None:
    """Return the path of a server program, or None if it is not installed."""
    preferred = os.pathsep.join(_SERVER_DIRECTORIES) if program == "rabbitmq-server" else ""
    return (shutil.which(program, path=preferred) if preferred else None) or shutil.which(program)
