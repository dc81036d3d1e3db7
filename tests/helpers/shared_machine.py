"""Time limits for every process under test, since many share one machine: a slow start is no failure.

Processes that start warm have it; a command that starts cold is given it by its command line (`servers.CALLFOLD`).
"""

from __future__ import annotations

import os
import sys
from importlib import import_module

from callfold_client import stream_end
from console.local import demo, processes, stack
from shared.domain import barrier
from simulator import focalscope
from tests.helpers.pace import LIMIT_S, PACE

NEVER_CONSUMED = "TESTS_NEVER_CONSUMED_S"
"""Sets in a process how long timers wait for a worker that died before its first report, where many die so."""

AWAY = {"TESTS_LEAST_WAIT_S": "1"}
"""Settings of a command or process whose server is away: it need not be patient, since no answer will come."""

# How long Callfold waits for its servers: they take longer to answer on a slow machine, and on any machine while its disk is busy.
_LEAST_S = 10
_own_waits: dict[tuple[str, str], float] = {}
_WAITS = {
    "console.commands.audit_trail": ("_CONNECT_S",),
    "console.commands.show": ("_DEAD_LETTERS_S",),
    "console.dead_letters.waiting_redrive": ("WAIT_S",),
    "console.dialing.dial_keys": ("_READ_BACK_S",),
    "console.live.feed": ("_ANSWER_S",),
    "console.local.simulate": ("_TIMEOUT_S",),
    "console.lookup.timeline_reader": ("_CONNECT_S", "_READ_FOR_S", "_WAIT_FOR_S"),
    "console.web.playback": ("_DRAW_S",),
    "shared.amqp.connection": ("CONNECT_TIMEOUT_S",),
    "shared.amqp.consumer": ("_ANSWER_TIMEOUT_S",),
    "shared.amqp.plain_connection": ("CONNECT_TIMEOUT_S",),
    "shared.amqp.queue_reader": ("_GET_TIMEOUT_S", "_SILENCE_S"),
    "shared.amqp.server_check": ("CONNECT_TIMEOUT_S",),
    "shared.amqp.session": ("CONNECT_TIMEOUT_S",),
    "shared.amqp.stream_end": ("_COMPARED_WITHIN_S",),
    "shared.state.locating": ("_ANSWER_S",),
    "shared.state.redis_client": ("_SOCKET_TIMEOUT_S",),
    "shared.state.redis_cluster": ("STEP_S",),
    "shared.state.script": ("STEP_S",),
    "shared.streams.connections": ("CONNECT_S",),
}


def keep_to(*, imports_all: bool = False, least_s: float = _LEAST_S) -> None:
    """Widen the limits in this process; without `imports_all` those of the modules it has imported, so that a command stays quick."""
    processes._READY_TIMEOUT_S = processes._STOP_TIMEOUT_S = demo._FINISH_TIMEOUT_S = round(LIMIT_S)
    stack._START_TIMEOUT_S = stack._STOP_TIMEOUT_S = round(LIMIT_S)
    focalscope._CALLBACK_TIMEOUT_S = round(LIMIT_S)
    stream_end.EMPTY_AFTER_S = max(1.0, PACE)
    if doctor := sys.modules.get("console.commands.doctor"):  # a reading outlasts its connecting by a second at least
        doctor._CONNECT_S, doctor._READING_S = least_s / 2 * PACE, max(least_s, least_s / 2 + 1) * PACE  # type: ignore[attr-defined]
    for name, constants in _WAITS.items():
        module = import_module(name) if imports_all else sys.modules.get(name)
        for constant in constants if module else ():
            own_s = _own_waits.setdefault((name, constant), getattr(module, constant))
            setattr(module, constant, max(least_s, own_s * PACE))


def keep_to_environment() -> None:
    """Set in this process what its environment asks for."""
    if NEVER_CONSUMED in os.environ:
        barrier.NEVER_CONSUMED_MS = round(float(os.environ[NEVER_CONSUMED]) * 1000)
    for name in AWAY.keys() & os.environ.keys():
        keep_to(least_s=float(os.environ[name]))
