"""Private RabbitMQ and Redis for one machine: child processes on loopback, own ports, own data under one directory.

Used by `callfold up`, `callfold demo` and the tests. Servers keep their ports for as long as the stack lives and their
data for as long as the directory does. They die with the process that started them, however it ends.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self

from console.local import stack_lock
from console.local.processes import free_port, tether
from shared.errors import CallfoldError, ConfigError

_DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
_START_TIMEOUT_S = 60
_STOP_TIMEOUT_S = 20
_POLL_S = 0.05
_ANSWER_TIMEOUT_S = 1
_LOG_TAIL_BYTES = 2000
_ALL = frozenset({"rabbitmq", "redis"})
# Debian's `rabbitmq-server` on the PATH switches user; the script behind it does not.
_SERVER_PLACES = ("/usr/lib/rabbitmq/bin", "/opt/homebrew/sbin", "/usr/local/sbin", "/usr/sbin")

Probe = tuple[bytes, bytes]
"""What to send to a port, and how the answer of a server that is ready begins."""


class ServerFailedError(CallfoldError):
    """A private server ended, or was not ready in time."""


class Server:
    """One child process that can be stopped, killed, paused and started again with the same data."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], *, port: int, log: Path) -> None:
        self.name = name
        self.port = port
        self.log_path = log
        self._command = [*tether(), *command]
        self._environment = environment
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        if self._process is None:
            raise ServerFailedError(f"{self.name} is not running")
        return self._process.pid

    async def start(self, probe: Probe | None = None) -> None:
        """Start it and wait until it answers.

        Raises:
            ServerFailedError: it ended or did not answer in time; with the last lines of its log.
        """
        with self.log_path.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                env=dict(self._environment),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a Ctrl-C in the terminal stops the processes that use it first
            )
        try:
            async with asyncio.timeout(_START_TIMEOUT_S):
                while not await self._answers(probe or PROBES.get(self.name)):
                    if self._process.returncode is not None:
                        raise ServerFailedError(f"{self.name} ended while starting. {self.tail()}")
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            raise ServerFailedError(f"{self.name} was not ready within {_START_TIMEOUT_S} s. {self.tail()}") from None

    async def _answers(self, probe: Probe | None) -> bool:
        try:
            async with asyncio.timeout(_ANSWER_TIMEOUT_S):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                try:
                    if probe is None:
                        return True
                    writer.write(probe[0])
                    return (await reader.read(len(probe[1]))) == probe[1]
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            return False

    async def death(self) -> None:
        """Wait until it ends by itself, and say so.

        Raises:
            ServerFailedError: always, with the last lines of its log.
        """
        if self._process is not None:
            await self._process.wait()
        raise ServerFailedError(f"{self.name} ended by itself.\n{self.tail()}")

    async def stop(self) -> None:
        """Ask it to end, and kill it if it does not."""
        await self._end(signal.SIGTERM)

    async def kill(self) -> None:
        """End it as a crash would."""
        await self._end(signal.SIGKILL)

    async def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        process.send_signal(number)
        try:
            async with asyncio.timeout(_STOP_TIMEOUT_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    def pause(self) -> None:
        """Freeze it: connections stay open and nothing answers. Its last thread has stopped when this returns."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOWAIT)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def tail(self) -> str:
        return f"Log {self.log_path} ends with:\n{self.log_path.read_bytes()[-_LOG_TAIL_BYTES:].decode('utf-8', 'replace')}"


PROBES: Mapping[str, Probe] = {
    "redis": (b"PING\r\n", b"+PONG"),
    # A protocol header is answered by a method frame (type 1) on channel 0: Connection.Start.
    "rabbitmq": (b"AMQP\x00\x00\x09\x01", b"\x01\x00\x00"),
}


class LocalStack:
    """`async with LocalStack(directory) as stack`: both servers, or those named in `only`, running until exit."""

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
    def amqp_url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.rabbitmq.port}/"

    @property
    def redis_url(self) -> str:
        return f"redis://127.0.0.1:{self.redis.port}/0"

    async def __aenter__(self) -> Self:
        """Start the servers side by side.

        Raises:
            ConfigError: a program is missing, or another stack runs in the directory.
            ServerFailedError: a server did not come up.
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

    async def first_death(self) -> None:
        """Wait until a server ends by itself: never, where there is none.

        Raises:
            ServerFailedError: always, with the last lines of its log.
        """
        deaths = [asyncio.ensure_future(server.death()) for server in self._servers.values()]
        try:
            await asyncio.gather(*deaths, asyncio.get_running_loop().create_future())
        finally:
            for death in deaths:
                death.cancel()
            await asyncio.gather(*deaths, return_exceptions=True)

    async def __aexit__(self, *_: object) -> None:
        await self._closing.aclose()


def _redis(directory: Path) -> list[Server]:
    port, data = free_port(), directory / "redis"
    data.mkdir(exist_ok=True)
    command = ["redis-server", str(_DEPLOY / "redis.conf"), "--bind", "127.0.0.1", "--port", str(port), "--dir", str(data)]
    return [Server("redis", command, os.environ | {"LC_ALL": "C"}, port=port, log=directory / "redis.log")]


def _rabbitmq(directory: Path) -> list[Server]:
    """Describe RabbitMQ and the Erlang port mapper it would otherwise leave behind as a daemon."""
    data = directory / "rabbitmq"
    data.mkdir(exist_ok=True)
    (data / "enabled_plugins").write_text("[].\n", "utf-8")
    mapper, port = free_port(), free_port()
    environment = os.environ | {
        "HOME": str(data),  # the Erlang cookie
        "ERL_EPMD_PORT": str(mapper),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        # The node's name is part of its data: it must not change with the port.
        "RABBITMQ_NODENAME": "callfold@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_MNESIA_BASE": str(data / "mnesia"),
        "RABBITMQ_LOG_BASE": str(data / "log"),
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(data / "enabled_plugins"),
        "RABBITMQ_CONFIG_FILE": str(_DEPLOY / "rabbitmq.conf"),
        "ERL_AFLAGS": f'-run file eval "{_DEPLOY / "rabbitmq-preload.erl"}"',  # a start takes half as long
        "ERL_CRASH_DUMP_SECONDS": "0",  # a dump of its memory would lie where the caller stands
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+sbwt none -kernel inet_dist_use_interface {127,0,0,1}",
        "RUNNING_UNDER_SYSTEMD": "true",  # the script replaces itself by the server: signals reach it, nothing outlives it
    }
    epmd = ["epmd", "-port", str(mapper), "-address", "127.0.0.1"]
    return [
        Server("epmd", epmd, environment, port=mapper, log=directory / "epmd.log"),
        Server("rabbitmq", [_find("rabbitmq-server") or ""], environment, port=port, log=directory / "rabbitmq.log"),
    ]


def _require(servers: frozenset[str]) -> None:
    programs = {"redis": ("redis-server",), "rabbitmq": ("rabbitmq-server", "epmd")}
    missing = [program for server in sorted(servers) for program in programs[server] if _find(program) is None]
    if missing:
        raise ConfigError(
            f"Missing: {', '.join(missing)}. Install with `sudo apt-get install rabbitmq-server redis-server` (Debian), "
            "`sudo dnf install rabbitmq-server redis` (Fedora) or `brew install rabbitmq redis` (macOS)."
        )


def _find(program: str) -> str | None:
    places = os.pathsep.join(_SERVER_PLACES) if program == "rabbitmq-server" else None
    return (shutil.which(program, path=places) if places else None) or shutil.which(program)
