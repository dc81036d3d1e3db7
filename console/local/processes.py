"""Callfold's own processes as supervised child processes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp

from console.local.child_process import ChildProcess, ProcessFailedError
from console.local.ports import free_port
from shared.errors import ConfigError
from shared.exit_codes import EXIT_CONFIG, EXIT_OK, EXIT_SPOOL_LEFT

_READY_TIMEOUT_S = 30
_STOP_TIMEOUT_S = 50  # longer than a process gives itself


class ServiceProcess(ChildProcess):
    """One process of Callfold: `python -m <module>` with its own settings."""

    def __init__(self, name: str, module: str, environment: Mapping[str, str], *, metrics_port: int, log: Path) -> None:
        super().__init__(name, [sys.executable, "-m", module], environment, log=log)
        self.module = module
        self.metrics_port = metrics_port

    @property
    def metrics_url(self) -> str:
        return f"http://127.0.0.1:{self.metrics_port}/metrics"

    async def start(self) -> None:
        """Start it and wait until it is ready.

        Raises:
            ConfigError: it cannot work as configured; with its own message.
            ProcessFailedError: it exited or was not ready in time; with the end of its log.
        """
        url = f"http://127.0.0.1:{self.metrics_port}/readyz"
        async with aiohttp.ClientSession() as session:

            async def is_ready() -> bool:
                with suppress(aiohttp.ClientError):
                    async with session.get(url) as response:
                        return response.ok
                return False

            try:
                await self.start_until(is_ready, within_s=_READY_TIMEOUT_S)
            except ProcessFailedError:
                if self.returncode == EXIT_CONFIG:
                    raise ConfigError(self.log_tail().rpartition(f"callfold {self.module}: ")[2]) from None
                raise

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it with a signal and wait for the exit. Kill it if that takes too long.

        Raises:
            ProcessFailedError: it had to be killed, or failed while it stopped.
        """
        if not self.is_running:
            return
        await self.end(number, within_s=_STOP_TIMEOUT_S)
        # A process that does not handle the signal yet dies of it. It has started no work.
        if number != signal.SIGKILL and self.returncode not in {EXIT_OK, EXIT_SPOOL_LEFT, -number}:
            raise self.failure(f"did not stop cleanly (exit code {self.returncode})")


class Fleet:
    """Callfold's processes on one machine. On exit all of them are stopped with SIGTERM."""

    process_type: type[ServiceProcess] = ServiceProcess

    def __init__(self, logs: Path, environment: Mapping[str, str]) -> None:
        """Keep logs in a directory; `environment` holds the settings that all processes share."""
        self._logs = logs
        self._environment = environment
        self.processes: list[ServiceProcess] = []

    async def __aenter__(self) -> Self:
        self._logs.mkdir(parents=True, exist_ok=True)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        failures = await asyncio.gather(*(process.stop() for process in reversed(self.processes)), return_exceptions=True)
        for failure in failures:
            # If the body failed, an error from stopping would only hide the first one.
            if isinstance(failure, BaseException) and error is None:
                raise failure

    def add(self, name: str, module: str, settings: Mapping[str, str]) -> ServiceProcess:
        """Add a process without starting it."""
        port = free_port()
        environment = {
            **os.environ,
            **self._environment,
            **settings,
            "CALLFOLD_METRICS_PORT": str(port),
            "CALLFOLD_METRICS_HOST": "127.0.0.1",
        }
        process = self.process_type(name, module, environment, metrics_port=port, log=self._logs / f"{name}.log")
        self.processes.append(process)
        return process

    def add_ingresses_and_workers(self, ingress_ports: Sequence[int], workers: int) -> None:
        """Add an ingress process for each port, and worker processes."""
        for number, port in enumerate(ingress_ports, start=1):
            self.add(f"ingress-{number}", "ingress", {"CALLFOLD_INGRESS_PORT": str(port)})
        for number in range(1, workers + 1):
            self.add(f"worker-{number}", "worker", {})

    async def start_all(self) -> None:
        """Start all processes at once and wait until each is ready. Raises as `ServiceProcess.start` does."""
        await asyncio.gather(*(process.start() for process in self.processes))
