"""Dead letters: why a message is one, and the headers that say so.

Their names and values are read by people and by programs of others: they stay what they are. See `docs/dead-letters.md`.
"""

from __future__ import annotations

from enum import StrEnum

REASON, DETAIL, FIRST_SEEN = "reason", "detail", "first_seen"
# A header must fit in one frame (128 KiB), or the broker closes the connection: a quoted value could be of any length.
_DETAIL_CHARACTERS = 500


class DeadLetterReason(StrEnum):
    """Why a message is a dead letter. Of recording jobs that were tried in vain, `worker/reasons.py` has the reasons."""

    INVALID_CALLBACK = "invalid_callback"
    UNKNOWN_SOURCE = "unknown_source"
    UNDECODABLE = "undecodable"
    FOLD_FAILED = "fold_failed"
    # Put back once Redis has forgotten its publication too, it would make a new call of a used id.
    EXPIRED_CALL = "expired_call"
    JOB_FAILED = "job_failed"
    # The broker's own word, in the header `x-death`.
    DELIVERY_LIMIT = "delivery_limit"


def dead_letter_headers(reason: str, detail: str, first_seen: str) -> dict[str, str]:
    """Write the headers of a letter; `first_seen` is RFC 3339 UTC, or empty where nothing tells it."""
    return {REASON: str(reason), DETAIL: detail[:_DETAIL_CHARACTERS], FIRST_SEEN: first_seen}
