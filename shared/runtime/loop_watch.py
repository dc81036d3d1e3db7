"""Measures how much CPU time the event loop spends on one step, because a long one delays everything else in the process.

A timer that comes late shows that a step was running when it was due. The step counts for as long as the timer is late. If the
thread has used less CPU time since the timer was set, that counts instead, because other processes had the CPU. A step therefore
counts for too little, by at most the time between two timers.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shared import metrics
from shared.log import get_logger

log = get_logger(__name__)

# Rarely while the process is idle, so that watching costs next to nothing.
_IDLE_EVERY_S, _BUSY_EVERY_S = 0.1, 0.025
_BUSY_CPU_S = 0.002
_LOGGED_BEYOND_S = 0.25
_LOGGED_EVERY_S = 60
_LOOK_S = 0.2
_FRAMES = 12
# The maximum covers one to two of these, so that every scrape sees each long step.
_WINDOW_S = 60


@contextmanager
def watching_loop() -> Iterator[None]:
    """Watch the running loop. Call it in the loop's thread."""
    watch = _LoopWatch(asyncio.get_running_loop())
    sampler = threading.Thread(target=watch.sample_stacks, name="loop-watch", daemon=True)
    sampler.start()
    try:
        yield
    finally:
        watch.stop()
        sampler.join()


class _LoopWatch:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._thread = threading.get_ident()
        self._stopped = threading.Event()
        self._stack: list[str] = []
        self._logged_at = -float(_LOGGED_EVERY_S)
        self._maximum = _Maximum()
        metrics.LOOP_STEP_MAX.set_function(lambda: self._maximum.current(time.monotonic()))
        self._arm(_IDLE_EVERY_S)

    def _arm(self, after_s: float) -> None:
        self._cpu_s = time.thread_time()
        self._due_at = time.monotonic() + after_s
        self._timer = self._loop.call_later(after_s, self._tick)

    def _tick(self) -> None:
        now, used_s = time.monotonic(), time.thread_time() - self._cpu_s
        lag_s = max(0.0, now - self._due_at)
        step_s = max(0.0, min(used_s, lag_s))
        metrics.LOOP_LAG.observe(lag_s)
        metrics.LOOP_STEP.observe(step_s)
        self._maximum.add(step_s, now)
        if step_s > _LOGGED_BEYOND_S and now >= self._logged_at + _LOGGED_EVERY_S:
            self._logged_at = now
            log.warning("event_loop_blocked", cpu_s=round(step_s, 3), wall_s=round(now - self._due_at, 3), stack=self._stack)
        self._stack = []
        self._arm(_BUSY_EVERY_S if used_s > _BUSY_CPU_S else _IDLE_EVERY_S)

    def sample_stacks(self) -> None:
        """Record where the loop is, each time it has been in one step for long. This runs in another thread."""
        while not self._stopped.wait(_LOOK_S):
            if not self._stack and time.monotonic() > self._due_at + _LOGGED_BEYOND_S:
                frame = sys._current_frames().get(self._thread)  # noqa: SLF001 - documented, and made for this
                self._stack = _described(traceback.extract_stack(frame)) if frame else []

    def stop(self) -> None:
        self._stopped.set()
        self._timer.cancel()


class _Maximum:
    """The largest value of the current and the previous window."""

    def __init__(self) -> None:
        self._ends_at = 0.0
        self._before = self._largest = 0.0

    def add(self, value: float, now: float) -> None:
        self.current(now)
        self._largest = max(self._largest, value)

    def current(self, now: float) -> float:
        if now >= self._ends_at:
            self._before = self._largest if now < self._ends_at + _WINDOW_S else 0.0
            self._largest, self._ends_at = 0.0, now + _WINDOW_S
        return max(self._before, self._largest)


def _described(stack: traceback.StackSummary) -> list[str]:
    return [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in stack[-_FRAMES:]]
