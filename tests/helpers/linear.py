"""CPU time that grows with the input, and no faster: compared as a ratio, so that it holds on machines of any speed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

_Input = TypeVar("_Input")

_GROWTH = 8
# Of eight times the input: 8 is linear, 22 is the power of 1.5, 64 is quadratic.
_ALLOWED = 16
_ATTEMPTS = 4
# Less is measured too coarsely to be compared.
_SHORTEST_S = 0.002


def assert_linear(work: Callable[[_Input], object], make: Callable[[int], _Input], *, largest: int = 1 << 16) -> None:
    """Fail if the work takes more than proportional CPU time. The sizes grow, so that what is not linear fails early.

    What takes too long is measured again, and the shortest time counts: other processes disturb the caches.
    """
    sizes = [largest]
    while sizes[-1] > _GROWTH * 64:
        sizes.append(sizes[-1] // _GROWTH)
    before_s = 0.0
    for size in reversed(sizes):
        allowed_s = _ALLOWED * max(before_s, _SHORTEST_S)
        took_s = _cpu_s(work, make(size), allowed_s)
        assert took_s <= allowed_s, f"size {size}: {took_s:.3f} s of CPU; an eighth of it took {before_s:.4f} s"
        before_s = took_s


def _cpu_s(work: Callable[[_Input], object], value: _Input, allowed_s: float) -> float:
    shortest = float("inf")
    for _ in range(_ATTEMPTS):
        began = time.thread_time()
        work(value)
        shortest = min(shortest, time.thread_time() - began)
        if shortest <= allowed_s:
            break
    return shortest
