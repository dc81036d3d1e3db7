"""Reasons and headers of dead letters.

Operators and external programs read the names and values, so they never change. See `docs/dead-letters.md`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from shared.domain.raw_types import DeadLetterHeaders

REASON: Final = "reason"
DETAIL: Final = "detail"
FIRST_SEEN: Final = "first_seen"
# A header must fit in one frame (128 KiB) or the broker closes the connection, and a quoted value can have any length.
_DETAIL_CHARACTERS = 500


class DeadLetterReason(StrEnum):
    """Why a message was dead-lettered. `worker/download/failures.py` has the reasons of failed downloads."""

    INVALID_CALLBACK = "invalid_callback"
    # The body of a POST. Refused again if it is redriven, so it stays.
    UNREADABLE_BODY = "unreadable_body"
    UNKNOWN_SOURCE = "unknown_source"
    UNDECODABLE = "undecodable"
    DAMAGED_IN_SPOOL = "damaged_in_spool"
    FOLD_FAILED = "fold_failed"
    # If it is redriven after Redis has also dropped the publication, it creates a new call under a used id.
    EXPIRED_CALL = "expired_call"
    # Refused again if it is redriven: the call keeps its legs.
    TOO_MANY_LEGS = "too_many_legs"
    # The same of an annotation.
    TOO_MANY_ANNOTATIONS = "too_many_annotations"
    JOB_FAILED = "job_failed"
    # The last attempt at delivering an event to an endpoint has failed.
    FORWARD_FAILED = "forward_failed"
    # The event was in the queue of an endpoint that was removed.
    ENDPOINT_REMOVED = "endpoint_removed"
    # Set by RabbitMQ itself, in the header `x-death`.
    DELIVERY_LIMIT = "delivery_limit"
    MAXLEN = "maxlen"


def dead_letter_headers(reason: str, detail: str, first_seen: str) -> dict[str, str]:
    """Build the headers of a dead letter; `first_seen` is RFC 3339 UTC, or empty if unknown."""
    headers: DeadLetterHeaders = {REASON: str(reason), DETAIL: detail[:_DETAIL_CHARACTERS], FIRST_SEEN: first_seen}
    return {name: str(value) for name, value in headers.items()}
