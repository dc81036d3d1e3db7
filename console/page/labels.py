"""Labels for the states of calls, legs and recordings, and a sentence for each rule that closes a call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from console.endpoints.models import EndpointView
from console.ignored_values import why_ignored
from console.page.text import NOT_KNOWN
from shared.domain.closing import CloseReason, Outcome
from shared.domain.leg import Leg
from shared.domain.recording_flags import Flag

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
SYMBOLS: Mapping[str, str] = {
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
"""A symbol shown before each label, so that color is never the only signal."""

RECORDINGS: Mapping[str, str] = {
    "waiting": "Waiting for download",
    "not_recorded": "Not recorded",
    "not_wanted": "Not archived: the source excludes this leg",
    "storing": "Being stored",
    "stored": "Stored",
    "absent": "Not available in FocalScope",
    "failed": "Could not be archived",
    "expiring": "Being deleted: retention period over",
    "expired": "Deleted: retention period over",
}

RECORDING_FLAGS: Mapping[str, str] = {
    Flag.ACCEPTED: "accepted by hand",
    Flag.CHUNK_SIZES: "wrong sizes in the file",
    Flag.HEADER_CHANGED: "its header changed",
    Flag.LEADING_BYTES: "bytes before its header",
    Flag.MORE_AUDIO: "more audio than its header says",
    Flag.RIFF_SIZE: "wrong size in its header",
    Flag.SHORTER_THAN_CALL: "shorter than the call",
    Flag.SIZE_UNKNOWN: "no size in its header",
    Flag.SIZES_OUTDATED: "more audio than its header counts",
    Flag.TRAILING_BYTES: "bytes after the audio",
}
# Label, symbol and color of the result of an attempt to deliver an event to a webhook.
DELIVERIES: Mapping[str, tuple[str, str, str]] = {
    "delivered": ("Delivered", "✓", "answered"),
    "retry": ("Waits for the next attempt", "◷", "unknown"),
    "dead": ("Dead letter", "▲", "missed"),
    "disabled": ("Endpoint disabled by 410", "▲", "missed"),
}
_DEAD_LETTERS: Mapping[str, tuple[str, str, str]] = {
    "callbacks": ("Callbacks", "callbacks", "Callbacks that could not be folded"),
    "recordings": ("Recordings", "recordings", "Recordings that could not be archived"),
    "forward": ("Webhooks", "events", "Events that could not be delivered to their webhook"),
}
CALL_TYPES: Mapping[str, str] = {
    "API": "Dialed call",
    "Incoming": "Incoming call",
    "Outgoing": "Outgoing call",
    "Internal": "Internal call",
    "Login": "Login",
    "Conference": "Conference",
}
_ENDED_BY: Mapping[str, str] = {"agent": "the agent", "dialed": "the dialed party", "unknown": "not known"}

_RULES: Mapping[tuple[str, str], str] = {
    (Outcome.ANSWERED, CloseReason.HANGUP): "the call was picked up, and every leg has ended",
    (Outcome.DIALED_MISSED, CloseReason.MISSED): "no dialed leg was picked up, and the agent's leg has ended",
    (Outcome.DIALED_MISSED, CloseReason.SETTLED): (
        "the dialed leg hung up and no callback reported a pickup, so it counts as missed after the settle time"
    ),
    (Outcome.AGENT_MISSED, CloseReason.MISSED): "the agent's leg was missed, and no number was dialed",
    (Outcome.AGENT_MISSED, CloseReason.SETTLED): (
        "the agent's leg hung up and no callback reported a pickup, so it counts as missed after the settle time"
    ),
    (Outcome.AGENT_HUNG_UP, CloseReason.SETTLED): (
        "the agent picked up and hung up, and no dialed leg appeared within the settle time"
    ),
    (Outcome.MISSED, CloseReason.MISSED): "the leg was missed",
    (Outcome.MISSED, CloseReason.SETTLED): (
        "the leg hung up and no callback reported a pickup, so it counts as missed after the settle time"
    ),
}
_TIMEOUT = "no callback arrived within the leg grace time or the maximum call time, so a timer closed the call"


def closing_rule(outcome: str, close_reason: str, legs: Sequence[Leg]) -> str:
    """Explain by which rule a call was closed (the table of `shared.domain.call`)."""
    rule = _TIMEOUT if close_reason == CloseReason.TIMEOUT else _RULES.get((outcome, close_reason), f"closed by {close_reason}")
    if any(leg.inferred for leg in legs) and close_reason != CloseReason.SETTLED:
        rule += "; a callback is missing, and its content was inferred from the others"
    return rule


def outcome(value: str | None) -> str:
    return OUTCOMES.get(value or "", value or NOT_KNOWN)


def status(value: str) -> str:
    return STATUSES.get(value, value)


def recording(value: str) -> str:
    return RECORDINGS.get(value, value)


def symbol(value: str | None) -> str:
    return SYMBOLS.get(value or "", "·")


def spaced(name: str) -> str:
    """Write a name like `not_replaced` as words."""
    return name.replace("_", " ")


def ignored(reason: str) -> str:
    """Return why a value was not used; a reason of a newer version as words."""
    why = why_ignored(reason)
    return spaced(why) if why == reason else why


def recording_flag(flag: str) -> str:
    return RECORDING_FLAGS.get(flag, spaced(flag))


def dead_letter_queue(which: str) -> str:
    """Return the label of a queue of dead letters."""
    return _DEAD_LETTERS[which][0]


def dead_letters(which: str, count: int = 0) -> str:
    """Return what the dead letters of a queue are: `callbacks`, and for one `callback`."""
    name = _DEAD_LETTERS[which][1]
    return name.removesuffix("s") if count == 1 else name


def dead_letter_caption(which: str) -> str:
    """Return what happened to the dead letters of a queue."""
    return _DEAD_LETTERS[which][2]


def webhook(endpoint: EndpointView) -> tuple[str, str, str]:
    """Return label, symbol and color of the state of a webhook."""
    if endpoint.disabled is not None:
        return "Disabled by answer 410", "▲", "missed"
    if not endpoint.settings.enabled:
        return "Disabled", "◷", "other"
    if endpoint.has_forwarder is False:
        return "No forwarder", "▲", "missed"
    last = endpoint.last_attempt
    if last is not None and last.result != "delivered":
        return "Failing", "▲", "missed"
    return "Enabled", "✓", "answered"


def delivery(result: str) -> tuple[str, str, str]:
    """Return label, symbol and color of an attempt; a result of a newer version as words."""
    return DELIVERIES.get(result, (spaced(result), "·", "other"))


def call_type(value: str | None) -> str:
    return CALL_TYPES.get(value or "", "Call")


def ended_by(value: str) -> str:
    return _ENDED_BY.get(value, value)
