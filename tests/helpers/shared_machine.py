"""Time limits for every process under test, since many share one machine: a slow start is no failure.

Processes that start warm have it; a command that starts cold is given it by its command line (`servers.CALLFOLD`).
"""

from __future__ import annotations

import sys

from console.local import demo, processes, stack
from tests.helpers.pace import LIMIT_S, PACE

# How long Callfold waits for its servers: on a slow machine they take longer to answer.
_PACED = {
    "console.lookup.timeline": "_CONNECT_S",
    "console.live.feed": "_CONNECT_S",
    "console.local.simulate": "_TIMEOUT_S",
    "shared.amqp.queue_reader": "_GET_TIMEOUT_S",
    "shared.state.store": "_SOCKET_TIMEOUT_S",
}


def keep_to() -> None:
    processes._READY_TIMEOUT_S = processes._STOP_TIMEOUT_S = demo._FINISH_TIMEOUT_S = round(LIMIT_S)
    stack._START_TIMEOUT_S = stack._STOP_TIMEOUT_S = round(LIMIT_S)
    for name, constant in _PACED.items():
        if module := sys.modules.get(name):  # a command that starts cold imports few, and late
            setattr(module, constant, getattr(module, constant) * PACE)
