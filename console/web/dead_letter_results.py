"""The result of a redrive or drop, in the URL of the page that shows it. Anyone can write a URL, so it has numbers and names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Self, get_args

from multidict import MultiMapping

from console.counts import either
from console.dead_letters.redrive_or_drop import Settled
from console.dead_letters.waiting_redrive import Returned
from console.page.models import Notice
from shared.amqp.dead_letters import DeadLetterReason

ActionName = Literal["redrive", "drop"]

_MAX_COUNT_DIGITS = 6
_COUNTS = ("done", "skipped", "not_folded", "unknown", "is_minimum")
_DONE: Mapping[ActionName, str] = {"redrive": "redriven", "drop": "deleted"}
_SKIPPED = (
    "{} not redriven. Redis may no longer have {}, which would then be published a second time. "
    "On the command line, --force redrives those that are only old. An unreadable_body cannot be understood as it is."
)
_GONE = "They are no longer dead letters: they were redriven or dropped in the meantime."


@dataclass(frozen=True, slots=True)
class Result:
    """Counts of an action on the selected dead letters.

    Attributes:
        skipped: how many a redrive left in the queue.
        came_back: how many are dead letters again, by reason.
        not_folded: how many no worker had reported as folded when the console stopped waiting.
        unknown: how many may have been folded without a report.
        is_minimum: more may have come back, in a part of the queue that was not read.
    """

    action: ActionName
    done: int
    skipped: int = 0
    came_back: Mapping[str, int] = field(default_factory=dict)
    not_folded: int = 0
    unknown: int = 0
    is_minimum: bool = False

    @classmethod
    def of_redrive(cls, settled: Settled, returned: Returned) -> Self:
        """Sum up a redrive that waited."""
        came_back: Counter[str] = Counter()
        for why, count in returned.reasons.items():
            came_back[why.partition(":")[0]] += count
        not_folded, unknown = (returned.not_folded, returned.unknown) if returned.has_worker else (settled.done, 0)
        return cls("redrive", settled.done, settled.skipped, dict(came_back), not_folded, unknown, not returned.is_complete)

    def to_query(self) -> list[tuple[str, str]]:
        """Return the parameters of the URL."""
        counts = dict(zip(_COUNTS, (self.done, self.skipped, self.not_folded, self.unknown, int(self.is_minimum)), strict=True))
        back = [("came_back", f"{reason}.{count}") for reason, count in self.came_back.items()]
        return [("action", self.action), *((name, str(count)) for name, count in counts.items()), *back]

    @classmethod
    def of_query(cls, query: MultiMapping[str]) -> Self | None:
        """Read the parameters of the URL; None if it has no result."""
        action = next((name for name in get_args(ActionName) if name == query.get("action")), None)
        if action is None:
            return None
        pairs = [text.partition(".") for text in query.getall("came_back", [])]
        came_back = {reason: _count(count) for reason, _, count in pairs if reason in set(DeadLetterReason) and _count(count)}
        done, skipped, not_folded, unknown, is_minimum = (_count(query.get(name)) for name in _COUNTS)
        return cls(action, done, skipped, came_back, not_folded, unknown, bool(is_minimum))

    @property
    def notice(self) -> Notice:
        """Write the result in sentences."""
        details = []
        if self.came_back:
            details.append(f"{'At least ' if self.is_minimum else ''}{_came_back(self.came_back)}. The list below says why.")
        if self.not_folded:
            details.append(f"{self.not_folded} not folded yet. Check that a worker runs.")
        if self.unknown:
            were = either(self.unknown, "was", "were")
            details.append(f"Whether {self.unknown} {were} folded is unknown: the connection for the reports was lost.")
        if self.skipped:
            calls = either(self.skipped, "its call", "their calls")
            details.append(_SKIPPED.format(self.skipped, calls))
        if not self.done and not self.skipped:
            details.append(_GONE)
        return Notice(f"{self.done} {_DONE[self.action]}.", details, is_good=not details)


def _came_back(counts: Mapping[str, int]) -> str:
    total = sum(counts.values())
    if total == 1:
        return f"1 is a dead letter again: {next(reason for reason, count in counts.items() if count)}"
    return f"{total} are dead letters again: " + ", ".join(f"{count} {reason}" for reason, count in counts.items())


def _count(text: str | None) -> int:
    return int(text) if text and text.isdecimal() and len(text) <= _MAX_COUNT_DIGITS else 0
