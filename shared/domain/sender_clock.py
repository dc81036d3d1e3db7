"""The clock of the process that sent raw events: what it claims if it is ahead, and the events moved back to the true time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta

from shared.domain.raw_event import AnnotationEvent, CallbackEvent, DialEvent, RawEvent, TimerEvent, Undecodable
from shared.domain.times import rfc3339

EQUAL_CLOCKS = timedelta(seconds=1)
"""Clocks that differ by no more than this count as equal."""
_MAX_AHEAD = timedelta(days=3653)
_Received = CallbackEvent | DialEvent | AnnotationEvent


def is_future_timer(event: RawEvent | Undecodable, now: str) -> bool:
    """Return whether an event is a timer with a time after `now`."""
    return isinstance(event, TimerEvent) and event.received_at > now


def latest_time(events: Iterable[RawEvent | Undecodable], sent_at: str) -> str:
    """Return the latest time that one message claims for its receipt, or ''. `sent_at` is when it was sent, or '' if unknown."""
    latest = ""
    for event in events:
        if isinstance(event, _Received) and event.received_at > latest:
            latest = event.received_at
    return max(latest, sent_at) if latest else ""


def moved_back(events: Iterable[RawEvent | Undecodable], latest: str, now: datetime) -> list[RawEvent | Undecodable]:
    """Move the events of one message back, so that none of them was received after `now`, and the times between them stay.

    `latest` is the latest time of the message: the clock of its sender was ahead by the difference. Timers stay as they are.
    """
    ahead = datetime.fromisoformat(latest) - now
    return [_moved_back(event, ahead, now) if isinstance(event, _Received) else event for event in events]


def _moved_back(event: _Received, ahead: timedelta, now: datetime) -> RawEvent:
    received = datetime.fromisoformat(event.received_at)
    if ahead > _MAX_AHEAD:  # no clock is wrong by that much, so the other events of the message say nothing about this one
        return replace(event, received_at=rfc3339(min(received, now)))
    return replace(event, received_at=rfc3339(received - max(ahead, timedelta())))
