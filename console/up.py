"""`callfold up`: the whole system on one machine, for as long as the command runs."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from console.fleet import Fleet, Role, free_port
from console.stack import LocalStack
from shared.settings import Settings

SERVERS: Mapping[str, str] = {"rabbitmq": "CALLFOLD_AMQP_URL", "redis": "CALLFOLD_REDIS_URL"}


async def up(settings: Settings, directory: Path, ingress: int, worker: int) -> int:
    """Run until Ctrl-C or SIGTERM (0), or until a process ends by itself (error)."""
    directory = directory.absolute()  # noqa: ASYNC240 - asks the process for its directory, not the disk
    console = Console(stderr=True)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    private = frozenset(name for name, variable in SERVERS.items() if not os.environ.get(variable))
    async with LocalStack(directory, only=private) as stack:
        shared = _server_settings(stack, private) | default_directories(directory)
        async with Fleet(directory / "logs", shared) as fleet:
            # The first ingress gets the port asked for, the others free ones.
            ports = [settings.ingress_port or free_port(), *(free_port() for _ in range(ingress - 1))]
            describe(fleet, ports, workers=worker)
            fleet.add("console", "console", {})
            await fleet.start_all()
            _tell(console, settings, ports, fleet.roles)
            script = await asyncio.to_thread(_write_environment, directory, shared)
            console.print(f"For other commands in another terminal:  . {script}", highlight=False)
            console.print("Ctrl-C stops everything.")
            await _until(stop, fleet)
            console.print("stopping ...")
    console.print("stopped; nothing is left running")
    return 0


def _server_settings(stack: LocalStack, private: frozenset[str]) -> dict[str, str]:
    urls = {"rabbitmq": lambda: stack.amqp_url, "redis": lambda: stack.redis_url}
    return {SERVERS[name]: urls[name]() for name in private}


def default_directories(directory: Path) -> dict[str, str]:
    """Keep spool and archive beside the servers' data, where the environment does not say otherwise."""
    wanted = {
        "CALLFOLD_SPOOL_DIR": str(directory / "spool"),
        "CALLFOLD_ARCHIVE_URL": (directory / "archive").as_uri(),
    }
    return {name: value for name, value in wanted.items() if not os.environ.get(name)}


def describe(fleet: Fleet, ports: Sequence[int], *, workers: int) -> None:
    """Add an ingress process for every port, and so many workers, to a fleet."""
    for number, port in enumerate(ports, start=1):
        fleet.add(f"ingress-{number}", "ingress", {"CALLFOLD_INGRESS_PORT": str(port)})
    for number in range(1, workers + 1):
        fleet.add(f"worker-{number}", "worker", {})


async def _until(stop: asyncio.Event, fleet: Fleet) -> None:
    death, stopped = asyncio.ensure_future(fleet.first_death()), asyncio.ensure_future(stop.wait())
    try:
        done, _ = await asyncio.wait((death, stopped), return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            await task
    finally:
        death.cancel()
        stopped.cancel()


def _write_environment(directory: Path, shared: Mapping[str, str]) -> Path:
    """Write the settings of this system as a shell script, so that `doctor`, `tail` and `simulate` find it."""
    path = directory / "env"
    if sources := os.environ.get("CALLFOLD_SOURCES"):
        shared = {**shared, "CALLFOLD_SOURCES": str(Path(sources).resolve())}
    path.touch(mode=0o600)
    path.write_text("".join(f"export {name}={shlex.quote(value)}\n" for name, value in shared.items()), "utf-8")
    return path


def _tell(console: Console, settings: Settings, ports: list[int], roles: list[Role]) -> None:
    for port in ports:
        console.print(f"ingress   http://{settings.ingress_host}:{port}/callbacks/<source>")
    console.print(f"console   http://{settings.console_host}:{settings.console_port}/")
    for role in roles:
        console.print(f"{role.name:<10}pid {role.pid}  log {role.log_path}", highlight=False)
