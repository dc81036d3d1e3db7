"""The barrier: the time until which every callback that RabbitMQ has confirmed is folded. A pure function of workers' reports.

Rounds of markers pass through `callbacks.fold`. A worker opens a round, counts the consumers of the queue, and then publishes
markers, about one for each consumer. Each consumer reports the latest round whose marker it received, once it has settled
everything it received before that marker.

A round is complete when two things hold:

- As many consumers as were counted have passed it, each of them at work before the round was opened. These are then exactly the
  consumers that the queue had at the count. Every other consumer of that time is gone, and its messages are back at the front
  of the queue, ahead of the markers.
- Every consumer that came later has passed it too: it may have received messages that waited ahead of the markers.

A callback that was confirmed before a complete round was opened is folded. No step depends on how quickly a process runs. A
suspended worker delays the round until it resumes, or until RabbitMQ closes its connection. ADR 7 has the proof.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

# A consumer that registered at least this long before a round, and was not counted, lost its connection before it could consume.
# A silent connection is closed within 18 s, which is far less.
NEVER_CONSUMED_MS = 60_000
# If an ingress does not report its spool for this time, the spool counts as lost, so that every call ends.
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
    """Report of an ingress on its spool: when its oldest callback was received, or None. Times are ms since 1970.

    The name of a spool with callbacks of a single source ends with `/<source>`.
    """

    name: str
    oldest_ms: int | None
    noted_ms: int

    @property
    def source(self) -> str:
        """The only source in the spool, or '' if it may have callbacks of every source."""
        return self.name.partition("/")[2]


@dataclass(frozen=True, slots=True)
class Reports:
    """All reports of workers and ingress, read in one step. `now_ms` is the clock of Redis at that step."""

    rounds: Sequence[Round]
    members: Sequence[Member]
    spools: Sequence[Spool]
    now_ms: int


def complete_round(rounds: Iterable[Round], members: Sequence[Member]) -> Round | None:
    """Return the latest complete round, or None."""
    complete = (each for each in rounds if _is_complete(each, members))
    return max(complete, key=lambda each: each.number, default=None)


def _is_complete(marked: Round, members: Sequence[Member]) -> bool:
    # RabbitMQ also reports 0 consumers if the queue does not answer in time.
    if not marked.consumers:
        return False
    present = [member for member in members if _was_at_work(member, marked)]
    later = [member for member in members if not _was_at_work(member, marked) and not _never_consumed(member, marked)]
    passed = sum(member.passed >= marked.number for member in present)
    return passed == marked.consumers and all(member.passed >= marked.number for member in later)


def _was_at_work(member: Member, marked: Round) -> bool:
    return member.at_work_since is not None and member.at_work_since < marked.number


def _never_consumed(member: Member, marked: Round) -> bool:
    return member.at_work_since is None and marked.opened_ms - member.registered_ms > NEVER_CONSUMED_MS


def gone(complete: Round, members: Iterable[Member]) -> list[str]:
    """Return the names of members that a complete round proves to be no longer consumers of the queue."""
    return [
        member.name
        for member in members
        if member.passed < complete.number and (_was_at_work(member, complete) or _never_consumed(member, complete))
    ]


@dataclass(frozen=True, slots=True)
class FoldedUntil:
    """Times (ms since 1970) until which every confirmed or spooled callback is folded.

    Attributes:
        ms: of most sources.
        by_source: of the sources that are behind the others, because a spool has callbacks of them alone.
    """

    ms: int
    by_source: Mapping[str, int] = field(default_factory=dict)

    def of(self, source: str) -> int:
        return self.by_source.get(source, self.ms)

    def before(self, margin_ms: int) -> FoldedUntil:
        """Return the same times, earlier by a margin."""
        return FoldedUntil(self.ms - margin_ms, {source: ms - margin_ms for source, ms in self.by_source.items()})


def folded_until(reports: Reports, *, opened_from_ms: int = 0) -> FoldedUntil | None:
    """Return the times until which every confirmed or spooled callback is folded, or None if unknown.

    Rounds that were opened before `opened_from_ms` do not count.
    """
    complete = complete_round(reports.rounds, reports.members)
    if complete is None or complete.opened_ms < opened_from_ms:
        return None
    oldest: dict[str, int] = {}
    for spool in reports.spools:
        if spool.oldest_ms is not None and not is_forgotten(spool, reports.now_ms):
            oldest[spool.source] = min(oldest.get(spool.source, spool.oldest_ms), spool.oldest_ms)
    until_ms = min(complete.opened_ms, oldest.pop("", complete.opened_ms))
    return FoldedUntil(until_ms, {source: ms for source, ms in oldest.items() if ms < until_ms})


def is_forgotten(spool: Spool, now_ms: int) -> bool:
    """Return whether a spool has had no report for an hour."""
    return now_ms - spool.noted_ms > SPOOL_FORGOTTEN_MS
