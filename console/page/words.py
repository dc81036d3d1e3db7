"""What the states of calls, legs and recordings are called on the page, and the rules that close a call as sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from console.page.text import NOT_KNOWN
from shared.domain.call import CloseReason, Outcome
from shared.domain.leg import Leg

OUTCOMES: Mapping[str, str] = {
    Outcome.ANSWERED: "Answered",
    Outcome.DIALED_MISSED: "Not picked up",
    Outcome.AGENT_MISSED: "Agent missed it",
    Outcome.AGENT_HUNG_UP: "Agent hung up first",
    Outcome.MISSED: "Missed",
    Outcome.UNKNOWN: "Unknown",
}
STATUSES: Mapping[str, str] = {
    "open": "Open",
    "ringing": "Ringing",
    "talking": "Talking",
    "ending": "Ending",
    "complete": "Complete",
}
MARKS: Mapping[str, str] = {
    "ringing": "◔",
    "talking": "●",
    "ending": "◑",
    Outcome.ANSWERED: "✓",
    Outcome.DIALED_MISSED: "✕",
    Outcome.AGENT_MISSED: "✕",
    Outcome.MISSED: "✕",
    Outcome.AGENT_HUNG_UP: "↩",
    Outcome.UNKNOWN: "?",
}
"""A sign beside each state's word, so that colour is never the only one."""

RECORDINGS: Mapping[str, str] = {
    "waiting": "Waiting to be fetched",
    "not_recorded": "Not recorded",
    "not_wanted": "Not fetched: the source does not ask for this leg",
    "storing": "Being stored",
    "stored": "Stored",
    "absent": "FocalScope has none",
    "failed": "Could not be fetched",
    "expiring": "Being deleted: its time is over",
    "expired": "Deleted: its time was over",
}

_RULES: Mapping[tuple[str, str], str] = {
    (Outcome.ANSWERED, CloseReason.HANGUP): "the call was picked up, and every leg has ended",
    (Outcome.DIALED_MISSED, CloseReason.MISSED): "no dialed leg was picked up, and the agent's leg has ended",
    (Outcome.DIALED_MISSED, CloseReason.SETTLED): (
        "the dialed leg hung up and nothing told of a pickup; after the settle time it counts as missed"
    ),
    (Outcome.AGENT_MISSED, CloseReason.MISSED): "the agent's leg was missed, and no number was dialed",
    (Outcome.AGENT_MISSED, CloseReason.SETTLED): (
        "the agent's leg hung up and nothing told of a pickup; after the settle time it counts as missed"
    ),
    (Outcome.AGENT_HUNG_UP, CloseReason.SETTLED): (
        "the agent picked up and hung up, and within the settle time no dialed leg appeared"
    ),
    (Outcome.MISSED, CloseReason.MISSED): "the leg was missed",
    (
        Outcome.MISSED,
        CloseReason.SETTLED,
    ): "the leg hung up and nothing told of a pickup; after the settle time it counts as missed",
}
_TIMEOUT = "no callback came for the leg grace time or the longest call time, so a timer closed the call with what was known"


def rule(outcome: str, close_reason: str, legs: Sequence[Leg]) -> str:
    """Say by which rule a call was closed (the table of `shared.call`)."""
    told = _TIMEOUT if close_reason == CloseReason.TIMEOUT else _RULES.get((outcome, close_reason), f"closed by {close_reason}")
    if any(leg.inferred for leg in legs) and close_reason != CloseReason.SETTLED:
        told += "; a callback is lost, and what it would have told follows from the others"
    return told


def outcome(value: str | None) -> str:
    return OUTCOMES.get(value or "", value or NOT_KNOWN)


def status(value: str) -> str:
    return STATUSES.get(value, value)


def recording(value: str) -> str:
    return RECORDINGS.get(value, value)


def mark(value: str | None) -> str:
    return MARKS.get(value or "", "·")
