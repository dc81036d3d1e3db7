"""Figures of a run: how much was answered, the longest silence, and how fast the system came back."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from typing import Any

from tests.chaos.audit.evidence import Evidence, Fault, Sent

GIVEN_UP_S = 10.0
"""How long a callback waits that never got an answer."""
_SHORTEST_S = 0.5
# One node of a cluster is away, and the others are not.
_ONE_NODE = ("kill:rabbitmq", "pause:rabbitmq", "restart:rabbitmq", "drain:rabbitmq", "rolling:rabbitmq", "partition:rabbitmq")


def figures(evidence: Evidence) -> dict[str, Any]:
    """Return the figures of a report."""
    faults = evidence.faults
    windows = Windows(faults)
    outside = [one for one in evidence.sent if not windows.cover(one.sent)]
    accepted = [one for one in evidence.sent if one.is_accepted]
    silences = _silences(evidence.sent)
    by_fault = _silence_by_fault(silences, faults)
    recovery = sorted(fault.recovered - fault.end for fault in faults if fault.recovered is not None)
    answers = sorted(one.answered - one.sent for one in accepted if one.answered is not None)
    return {
        "callbacks": len(evidence.sent),
        "accepted": len(accepted),
        "callbacks_outside_faults": len(outside),
        "accepted_outside_faults": sum(one.is_accepted for one in outside) / len(outside) if outside else 0.0,
        "answers": dict(Counter(str(one.status) for one in evidence.sent)),
        "answer_p50_s": quantile(answers, 0.5),
        "answer_p99_s": quantile(answers, 0.99),
        "slowest_answer_s": max(answers, default=0.0),
        "longest_silence_s": max((length for _, length in silences), default=0.0),
        "longest_silence_one_node_down_s": max((by_fault.get(kind, 0.0) for kind in _ONE_NODE), default=0.0),
        "longest_silence_by_fault_s": by_fault,
        "faults": len(faults),
        "faults_by_kind": dict(Counter(fault.kind for fault in faults)),
        "recovery_p50_s": quantile(recovery, 0.5),
        "recovery_p99_s": quantile(recovery, 0.99),
        "recovery_max_s": max(recovery, default=0.0),
        "not_recovered": [f"{fault.kind} {fault.target}" for fault in faults if fault.recovered is None],
        "recordings": len(evidence.archived),
        "events": len(evidence.published),
        "distinct_events": len({one.event["id"] for one in evidence.published}),
    }


class Windows:
    """The times in which a fault was at work, or the system had not recovered from it."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self._begins: list[float] = []
        self._ends: list[float] = []
        for fault in sorted(faults, key=lambda fault: fault.begin):
            if self._ends and fault.begin <= self._ends[-1]:
                self._ends[-1] = max(self._ends[-1], fault.until)
            else:
                self._begins.append(fault.begin)
                self._ends.append(fault.until)

    def cover(self, at: float) -> bool:
        index = bisect_right(self._begins, at) - 1
        return index >= 0 and at <= self._ends[index]


def quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


def _silences(sent: Sequence[Sent]) -> list[tuple[float, float]]:
    """Return start and length of each time in which callbacks were sent and none was answered 200. A refusal is no answer."""
    moments: list[tuple[float, int, bool]] = []
    for one in sent:
        moments.append((one.sent, 1, False))
        moments.append((one.answered if one.answered is not None else one.sent + GIVEN_UP_S, -1, one.is_accepted))
    silences: list[tuple[float, float]] = []
    waiting, since = 0, None
    for at, change, is_accepted in sorted(moments):
        waiting += change
        if is_accepted:
            if since is not None:
                silences.append((since, at - since))
            since = at if waiting else None
        elif since is None:
            since = at
    return silences


def _silence_by_fault(silences: Sequence[tuple[float, float]], faults: Sequence[Fault]) -> dict[str, float]:
    """Return the longest silence during faults of each kind; of two kinds at once, none is to blame."""
    longest: dict[str, float] = {}
    for since, length in silences:
        if length >= _SHORTEST_S:
            kinds = {fault.kind for fault in faults if since <= fault.until and since + length >= fault.begin}
            for kind in kinds if len(kinds) == 1 else ():
                longest[kind] = max(round(length, 3), longest.get(kind, 0.0))
    return dict(sorted(longest.items()))
