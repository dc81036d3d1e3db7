"""Starting and ending what runs, and the supervisor that starts again what ended by itself, as systemd or Kubernetes would."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterable
from dataclasses import dataclass, field

from console.local.child_process import ChildProcess
from console.local.stack import Server

_CHECK_S = 0.5
_STOP_S = 25


async def _at_once() -> bool:
    return True


async def launch(process: ChildProcess) -> None:
    """Start a server and wait until it answers. Any other process is only started: what it needs may be broken."""
    if isinstance(process, Server):
        await process.start()
    else:
        await process.start_until(_at_once, within_s=_STOP_S)


async def kill(process: ChildProcess) -> None:
    await process.end(signal.SIGKILL, within_s=_STOP_S)


async def stop(process: ChildProcess) -> None:
    """End it in order. RabbitMQ and Callfold get the time that their supervisors give them."""
    await process.end(signal.SIGTERM, within_s=_STOP_S)


@dataclass(slots=True)
class Supervisor:
    """Starts processes of Callfold and subscribers that ended by themselves; `exits` says which, and with what last words."""

    watched: set[ChildProcess] = field(default_factory=set)
    exits: list[str] = field(default_factory=list)

    def watch(self, processes: Iterable[ChildProcess]) -> None:
        self.watched |= set(processes)

    def leave(self, process: ChildProcess) -> None:
        """Forget a process, which the nemesis is about to end."""
        self.watched -= {process}

    async def run(self) -> None:
        while True:
            await asyncio.sleep(_CHECK_S)
            for process in tuple(self.watched):
                if not process.is_running and process in self.watched:
                    self.exits.append(f"{process.name} exited with {process.returncode}: {process.log_tail()[-600:]}")
                    await launch(process)
