"""`callfold up`: the whole system on one machine, for as long as the command runs."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from console.local import stack_lock
from console.local.child_process import ProcessFailedError, first_of, while_all_run
from console.local.env_file import write_env_file
from console.local.ports import free_port
from console.local.processes import Fleet, ServiceProcess
from console.local.stack import LocalStack
from shared.config.environment import is_set
from shared.config.settings import Settings
from shared.runtime.health import check_port_free

SERVERS: Mapping[str, str] = {"rabbitmq": "CALLFOLD_AMQP_URL", "redis": "CALLFOLD_REDIS_URL"}
_NAMES: Mapping[str, str] = {"rabbitmq": "RabbitMQ", "redis": "Redis"}


async def up(settings: Settings, directory: Path, ingresses: int, workers: int) -> int:
    """Run until Ctrl-C or SIGTERM (returns 0), or until a child process exits.

    Raises:
        ConfigError: the directory or a port is in use, a server is not installed, or a process cannot work as configured.
        ProcessFailedError: a child process exited or was not ready in time; with the end of its log.
    """
    directory = directory.absolute()  # noqa: ASYNC240 - reads the working directory of the process, not the disk
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    stack_lock.check(directory)
    check_port_free((settings.ingress_host, settings.ingress_port), "CALLFOLD_INGRESS_PORT")
    check_port_free((settings.console_host, settings.console_port), "CALLFOLD_CONSOLE_PORT")
    private = frozenset(name for name, variable in SERVERS.items() if not is_set(variable))
    started = time.monotonic()
    console.print(f"Starting {' and '.join(_NAMES[name] for name in sorted(private)) or 'with the configured servers'} ...")
    async with LocalStack(directory, only=private) as stack:
        shared = _server_settings(stack, private) | default_directories(directory) | _history(directory)
        async with Fleet(directory / "logs", shared) as fleet:
            # The first ingress gets the configured port, the others get free ones.
            ports = [settings.ingress_port or free_port(), *(free_port() for _ in range(ingresses - 1))]
            addresses = _add_processes(fleet, settings, ports, workers)
            console.print(f"Starting {', '.join(process.name for process in fleet.processes)} ...")
            try:
                await while_all_run(first_of(fleet.start_all(), stop.wait()), stack.servers)
                if not stop.is_set():
                    await asyncio.to_thread(write_env_file, directory / "env", shared | addresses)
                    _print_addresses(console, fleet.processes, addresses, ports)
                    console.print(f"For other commands in another terminal:  . {shlex.quote(str(directory / 'env'))}")
                    console.print(f"Everything is ready after {time.monotonic() - started:.0f} s. Ctrl-C stops everything.")
                    await while_all_run(stop.wait(), [*fleet.processes, *stack.servers])
            except ProcessFailedError as error:
                console.print(str(error).partition("\n")[0])  # the whole message follows when everything has stopped
                raise
            finally:
                console.print("Stopping ...")
    console.print("Stopped. Nothing is left running.")
    return 0


def _add_processes(fleet: Fleet, settings: Settings, ports: Sequence[int], workers: int) -> dict[str, str]:
    """Add an ingress for each port and the other processes; returns the settings by which commands reach ingress and console."""
    console_port = settings.console_port or free_port()
    fleet.add_ingresses_and_workers(ports, workers)
    fleet.add("console", "console", {"CALLFOLD_CONSOLE_PORT": str(console_port)})
    fleet.add("history", "console.history", {})
    fleet.add("forward", "worker.forwarding", {})
    return {
        "CALLFOLD_INGRESS_HOST": settings.ingress_host,
        "CALLFOLD_INGRESS_PORT": str(ports[0]),
        "CALLFOLD_CONSOLE_HOST": settings.console_host,
        "CALLFOLD_CONSOLE_PORT": str(console_port),
    }


def _server_settings(stack: LocalStack, private: frozenset[str]) -> dict[str, str]:
    urls = {"rabbitmq": lambda: stack.amqp_url, "redis": lambda: stack.redis_url}
    return {SERVERS[name]: urls[name]() for name in private}


def default_directories(directory: Path) -> dict[str, str]:
    """Return settings that keep spool, downloads and archive in `directory`, without those the environment sets."""
    defaults = {
        "CALLFOLD_SPOOL_DIR": str(directory / "spool"),
        "CALLFOLD_RECORDING_DIR": str(directory / "downloads"),
        "CALLFOLD_ARCHIVE_URL": (directory / "archive").as_uri(),
    }
    return {name: value for name, value in defaults.items() if not os.environ.get(name)}


def _history(directory: Path) -> dict[str, str]:
    """Return the setting that keeps the history in `directory`, or nothing if the environment sets it."""
    url = f"sqlite:///{directory / 'history.sqlite'}"
    return {} if is_set("CALLFOLD_HISTORY_URL") else {"CALLFOLD_HISTORY_URL": url}


def _print_addresses(
    console: Console, processes: Sequence[ServiceProcess], addresses: Mapping[str, str], ports: Sequence[int]
) -> None:
    for port in ports:
        console.print(f"ingress   http://{_in_url(addresses['CALLFOLD_INGRESS_HOST'])}:{port}/callbacks/<source>")
    console.print(f"console   http://{_in_url(addresses['CALLFOLD_CONSOLE_HOST'])}:{addresses['CALLFOLD_CONSOLE_PORT']}/")
    for process in processes:
        console.print(f"{process.name:<10}pid {process.pid}  metrics {process.metrics_url}  log {process.log_path}")


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
