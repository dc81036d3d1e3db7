"""Time limits for every process under test, since many share one machine: a slow start is no failure.

Processes that start warm have it; a command that starts cold is given it by its command line (`servers.CALLFOLD`).
"""

from __future__ import annotations

import sys

from console.local import demo, processes, stack
from shared.state import store
from simulator import focalscope
from tests.helpers.pace import LIMIT_S, PACE

# How long Callfold waits for its servers: on a slow machine they take longer to answer.
_PACED = {
    "console.lookup.timeline": ("_CONNECT_S", "_READ_FOR_S", "_WAIT_FOR_S"),
    "console.live.feed": ("_CONNECT_S",),
    "console.local.simulate": ("_TIMEOUT_S",),
    "shared.amqp.queue_reader": ("_GET_TIMEOUT_S",),
}
# An answer of Redis waits for fsync, which a busy disk can hold up for seconds on a quick machine too.
_REDIS_S = 10


def keep_to() -> None:
    processes._READY_TIMEOUT_S = processes._STOP_TIMEOUT_S = demo._FINISH_TIMEOUT_S = round(LIMIT_S)
    stack._START_TIMEOUT_S = stack._STOP_TIMEOUT_S = round(LIMIT_S)
    focalscope._CALLBACK_TIMEOUT_S = round(LIMIT_S)
    store._SOCKET_TIMEOUT_S = round(max(_REDIS_S, store._SOCKET_TIMEOUT_S * PACE))
    for name, constants in _PACED.items():
        if module := sys.modules.get(name):  # a command that starts cold imports few, and late
            for constant in constants:
                setattr(module, constant, getattr(module, constant) * PACE)
