"""What the answer of an endpoint leads to. It is decided here alone; `endpoint_runner.py` acts on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from worker.forwarding.outgoing_event import JITTER

_SUCCESS: Final = range(200, 300)
_REDIRECTS: Final = range(300, 400)
_OVERLOADED: Final = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of an endpoint, or why there is none.

    Attributes:
        status: None without an answer.
        error: why there is none; '' if there is one.
        seconds: time until the answer was read, or until it failed.
        body: its first bytes.
        retry_after_s: the wait that it asks for, within limits.
    """

    status: int | None
    error: str
    seconds: float
    body: bytes = b""
    retry_after_s: float | None = None

    @property
    def is_success(self) -> bool:
        return self.status in _SUCCESS

    @property
    def asked_wait_s(self) -> float | None:
        """The wait that the endpoint asks for all events, if its status means that."""
        return self.retry_after_s if self.status in _OVERLOADED else None

    @property
    def failure(self) -> str:
        """The failure in a few words; '' for a success."""
        if self.is_success:
            return ""
        if self.status in _REDIRECTS:
            return f"status {self.status}, and redirects are not followed"
        return self.error or f"status {self.status}"


@dataclass(frozen=True, slots=True)
class Delivered:
    """The endpoint has the event."""


@dataclass(frozen=True, slots=True)
class Disable:
    """The endpoint does not want events any more (410). The event stays in the queue."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Another attempt follows after `delay_s` of the schedule; `at_least_s` is what the endpoint asked for, or 0."""

    delay_s: float
    at_least_s: float = 0.0

    @property
    def wait_s(self) -> float:
        return self.at_least_s or self.delay_s


@dataclass(frozen=True, slots=True)
class Dead:
    """The last attempt has failed."""


Consequence = Delivered | Disable | Retry | Dead


def consequence_of(answer: Answer, attempt: int, schedule_s: Sequence[float]) -> Consequence:
    """Decide what the answer to an attempt leads to; `schedule_s` has the delays between attempts."""
    if answer.is_success:
        return Delivered()
    if answer.status == HTTPStatus.GONE:
        return Disable()
    if attempt > len(schedule_s):
        return Dead()
    scheduled_s, asked_s = schedule_s[attempt - 1], answer.asked_wait_s or 0.0
    if asked_s <= scheduled_s * (1 - JITTER):
        return Retry(scheduled_s)
    longer = [delay_s for delay_s in schedule_s if delay_s >= asked_s]
    return Retry(min(longer), asked_s) if longer else Retry(max(schedule_s))
