"""`callfold up`: the whole system on one machine, for as long as the command runs."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import time
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path

from rich.console import Console

from console.local import stack_lock
from console.local.env_file import write_exports
from console.local.processes import Fleet, RoleDiedError, free_port
from console.local.stack import LocalStack, ServerFailedError
from shared.config.settings import Settings
from shared.runtime.health import check_free

SERVERS: Mapping[str, str] = {"rabbitmq": "CALLFOLD_AMQP_URL", "redis": "CALLFOLD_REDIS_URL"}
_NAMES: Mapping[str, str] = {"rabbitmq": "RabbitMQ", "redis": "Redis"}


async def up(settings: Settings, directory: Path, ingress: int, worker: int) -> int:
    """Run until Ctrl-C or SIGTERM (0), or until a process or a private server ends by itself (error).

    Raises:
        ConfigError: one runs in the directory already, a port is taken, a server's program is missing, or a process cannot
            work as configured.
        RoleDiedError: a process ended by itself, or did not become ready; with the end of its log.
        ServerFailedError: a private server did.
    """
    directory = directory.absolute()  # noqa: ASYNC240 - asks the process for its directory, not the disk
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    stack_lock.check(directory)
    check_free((settings.ingress_host, settings.ingress_port), "CALLFOLD_INGRESS_PORT")
    check_free((settings.console_host, settings.console_port), "CALLFOLD_CONSOLE_PORT")
    private = frozenset(name for name, variable in SERVERS.items() if not os.environ.get(variable))
    started = time.monotonic()
    console.print(f"Starting {' and '.join(_NAMES[name] for name in sorted(private)) or 'with the servers of the settings'} ...")
    async with LocalStack(directory, only=private) as stack:
        shared = _server_settings(stack, private) | default_directories(directory) | _history(directory)
        async with Fleet(directory / "logs", shared) as fleet:
            # The first ingress gets the port asked for, the others free ones.
            ports = [settings.ingress_port or free_port(), *(free_port() for _ in range(ingress - 1))]
            console_port = settings.console_port or free_port()
            describe(fleet, ports, workers=worker)
            fleet.add("console", "console", {"CALLFOLD_CONSOLE_PORT": str(console_port)})
            fleet.add("history", "console.history", {})
            console.print(f"Starting {', '.join(role.name for role in fleet.roles)} ...")
            try:
                await _first_of(fleet.start_all(), stop.wait(), stack.first_death())
                if not stop.is_set():
                    chosen = shared | _addresses(settings, ports[0], console_port)
                    await asyncio.to_thread(write_exports, directory / "env", chosen)
                    _tell(console, fleet, chosen, ports)
                    console.print(f"For other commands in another terminal:  . {shlex.quote(str(directory / 'env'))}")
                    console.print(f"Everything is ready after {time.monotonic() - started:.0f} s. Ctrl-C stops everything.")
                    await _first_of(stop.wait(), fleet.first_death(), stack.first_death())
            except (RoleDiedError, ServerFailedError) as error:
                console.print(str(error).partition("\n")[0])  # all of it follows when all is stopped
                raise
            finally:
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
        "CALLFOLD_RECORDING_DIR": str(directory / "downloads"),
        "CALLFOLD_ARCHIVE_URL": (directory / "archive").as_uri(),
    }
    return {name: value for name, value in wanted.items() if not os.environ.get(name)}


def _history(directory: Path) -> dict[str, str]:
    """Keep the history beside the rest, where the environment names no other."""
    url = f"sqlite:///{directory / 'history.sqlite'}"
    return {} if os.environ.get("CALLFOLD_HISTORY_URL") else {"CALLFOLD_HISTORY_URL": url}


def describe(fleet: Fleet, ports: Sequence[int], *, workers: int) -> None:
    """Add an ingress process for every port, and so many workers, to a fleet."""
    for number, port in enumerate(ports, start=1):
        fleet.add(f"ingress-{number}", "ingress", {"CALLFOLD_INGRESS_PORT": str(port)})
    for number in range(1, workers + 1):
        fleet.add(f"worker-{number}", "worker", {})


def _addresses(settings: Settings, ingress_port: int, console_port: int) -> dict[str, str]:
    return {
        "CALLFOLD_INGRESS_HOST": settings.ingress_host,
        "CALLFOLD_INGRESS_PORT": str(ingress_port),
        "CALLFOLD_CONSOLE_HOST": settings.console_host,
        "CALLFOLD_CONSOLE_PORT": str(console_port),
    }


async def _first_of(*work: Coroutine[object, object, object]) -> None:
    """Wait until one is done, and give the others up."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        await task


def _tell(console: Console, fleet: Fleet, chosen: Mapping[str, str], ports: Sequence[int]) -> None:
    for port in ports:
        console.print(f"ingress   http://{_in_url(chosen['CALLFOLD_INGRESS_HOST'])}:{port}/callbacks/<source>")
    console.print(f"console   http://{_in_url(chosen['CALLFOLD_CONSOLE_HOST'])}:{chosen['CALLFOLD_CONSOLE_PORT']}/")
    for role in fleet.roles:
        console.print(f"{role.name:<10}pid {role.pid}  metrics {role.metrics_url}  log {role.log_path}")


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
