"""The barrier: until when is everything that RabbitMQ has confirmed folded? A pure function of what workers reported.

Rounds of markers pass through `callbacks.fold`. A worker opens a round, counts the consumers of the queue, and then publishes
markers, about one for each consumer. Each consumer reports the latest round whose marker it received, once it has settled
everything it received before that marker.

A round is complete when two things hold:

- As many consumers as were counted have passed it, each of them at work before the round was opened. These are then exactly the
  consumers that the queue had at the count. Every other consumer of that time is gone, and its messages are back at the front
  of the queue, ahead of the markers.
- Every consumer that came later has passed it too: it may have received messages that waited ahead of the markers.

What was confirmed before a complete round was opened is folded. No step rests on how quickly a process runs: a worker that
stands still holds the round until it goes on, or until RabbitMQ closes its connection. The argument is in ADR 7.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# RabbitMQ closes a connection that is silent for 18 s; this is well above that. A consumer that registered so long before a
# round was opened, and was not counted in it, lost its connection before it could consume.
NEVER_CONSUMED_MS = 60_000
# An ingress that says nothing of its spool for so long has lost it: every call must end.
SPOOL_FORGOTTEN_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class Round:
    """Markers with one number.

    Attributes:
        number: larger than that of every earlier round.
        opened_ms: when it was opened, by the clock of Redis (ms since 1970); its markers were published later.
        consumers: of the queue, counted after it was opened and before its markers were published; None while unknown.
    """

    number: int
    opened_ms: int
    consumers: int | None


@dataclass(frozen=True, slots=True)
class Member:
    """One consumer of `callbacks.fold`: a channel, registered before it consumes.

    Attributes:
        name: of this channel alone.
        registered_ms: when it registered, by the clock of Redis (ms since 1970).
        at_work_since: the latest round when it reported for the first time; None until then.
        passed: the latest round it has passed; 0 until then.
    """

    name: str
    registered_ms: int
    at_work_since: int | None = None
    passed: int = 0


@dataclass(frozen=True, slots=True)
class Spool:
    """What an ingress said of its spool: when its oldest callback was received, or None; when that was noted (ms since 1970)."""

    name: str
    oldest_ms: int | None
    noted_ms: int


@dataclass(frozen=True, slots=True)
class Reports:
    """Everything that workers and ingress reported, read in one step. `now_ms` is the clock of Redis at that step."""

    rounds: Sequence[Round]
    members: Sequence[Member]
    spools: Sequence[Spool]
    now_ms: int


def complete_round(rounds: Iterable[Round], members: Sequence[Member]) -> Round | None:
    """Return the latest complete round, or None."""
    complete = (wanted for wanted in rounds if _is_complete(wanted, members))
    return max(complete, key=lambda wanted: wanted.number, default=None)


def _is_complete(wanted: Round, members: Sequence[Member]) -> bool:
    # RabbitMQ answers 0 as well when the queue does not answer it in time.
    if not wanted.consumers:
        return False
    present = [member for member in members if _was_at_work(member, wanted)]
    later = [member for member in members if not _was_at_work(member, wanted) and not _never_consumed(member, wanted)]
    passed = sum(member.passed >= wanted.number for member in present)
    return passed == wanted.consumers and all(member.passed >= wanted.number for member in later)


def _was_at_work(member: Member, wanted: Round) -> bool:
    return member.at_work_since is not None and member.at_work_since < wanted.number


def _never_consumed(member: Member, wanted: Round) -> bool:
    return member.at_work_since is None and wanted.opened_ms - member.registered_ms > NEVER_CONSUMED_MS


def gone(complete: Round, members: Iterable[Member]) -> list[str]:
    """Return the names of members that, by a complete round, are no consumers of the queue any more."""
    return [
        member.name
        for member in members
        if member.passed < complete.number and (_was_at_work(member, complete) or _never_consumed(member, complete))
    ]


def folded_until_ms(reports: Reports, *, opened_from_ms: int = 0) -> int | None:
    """Return the time (ms since 1970) until which all that was confirmed or spooled is folded; None while unknown.

    `opened_from_ms`: a round that was opened before does not count.
    """
    complete = complete_round(reports.rounds, reports.members)
    if complete is None or complete.opened_ms < opened_from_ms:
        return None
    oldest = [
        spool.oldest_ms for spool in reports.spools if spool.oldest_ms is not None and not is_forgotten(spool, reports.now_ms)
    ]
    return min([complete.opened_ms, *oldest])


def is_forgotten(spool: Spool, now_ms: int) -> bool:
    """Return whether nothing has been heard of a spool for an hour."""
    return now_ms - spool.noted_ms > SPOOL_FORGOTTEN_MS
