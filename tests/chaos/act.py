"""One fault, ready to be done."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

Step = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Act:
    """One fault. Two acts of the same group never overlap: together they could cost more than is promised."""

    kind: str
    target: str
    group: str
    hold_s: float
    begin: Step
    end: Step


async def nothing() -> None:
    """Do nothing: the fault ends by itself."""
