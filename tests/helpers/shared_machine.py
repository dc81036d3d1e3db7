"""Settings for every process under test, since many share one machine: no port is used twice, and a slow start is no failure.

Processes that start warm have it; a command that starts cold is given it by its command line (`servers.CALLFOLD`).
"""

from __future__ import annotations

import fcntl
import os
import sys
import tempfile
from pathlib import Path
from typing import cast

from console.local import demo, ports, processes, stack
from tests.helpers.pace import LIMIT_S, PACE

# How long Callfold waits for its servers: on a slow machine they take longer to answer.
_PACED = {
    "console.lookup.timeline": "_CONNECT_S",
    "console.live.feed": "_CONNECT_S",
    "console.local.simulate": "_TIMEOUT_S",
    "shared.amqp.queue_reader": "_GET_TIMEOUT_S",
    "shared.state.store": "_SOCKET_TIMEOUT_S",
}


class _TakenPorts(set[int]):
    """Ports in use by any test process on this machine: each port locks one byte of a file."""

    def __init__(self) -> None:
        super().__init__()
        self._locks = os.open(Path(tempfile.gettempdir(), f"callfold-tests-ports-{os.getuid()}"), os.O_RDWR | os.O_CREAT, 0o600)

    def __contains__(self, port: object) -> bool:
        if super().__contains__(port):
            return True
        try:
            fcntl.lockf(self._locks, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, cast("int", port))
        except OSError:
            return True
        return False


def keep_to() -> None:
    ports._reserved = _TakenPorts()
    processes._READY_TIMEOUT_S = processes._STOP_TIMEOUT_S = demo._FINISH_TIMEOUT_S = round(LIMIT_S)
    stack._START_TIMEOUT_S = stack._STOP_TIMEOUT_S = round(LIMIT_S)
    for name, constant in _PACED.items():
        if module := sys.modules.get(name):  # a command that starts cold imports few, and late
            setattr(module, constant, getattr(module, constant) * PACE)
