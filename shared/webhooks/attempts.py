"""The record of one attempt at delivering an event to an endpoint, as the stream `forward.journal` keeps it."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Final

import orjson

from shared.masking import MASK, mask_credentials

ANSWER_BYTES: Final = 512
_MAX_ERROR: Final = 300
# Also those that begin a sequence of a terminal in one character, and those that turn the direction of text.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_MIN_PREFIX: Final = 6


class Result(StrEnum):
    """The consequence of an attempt."""

    DELIVERED = "delivered"
    RETRY = "retry"
    DEAD = "dead"
    DISABLED = "disabled"


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """One attempt.

    Attributes:
        endpoint: name of the endpoint.
        event_id: CloudEvents `id` of the event.
        type: CloudEvents `type` of the event.
        attempt: number of the attempt, from 1.
        at: when it began, RFC 3339 UTC.
        status: status of the answer; None if there was none.
        error: why it failed, as a few words; None if it was delivered.
        seconds: time until the answer was read, or until it failed.
        answer: first bytes of the answer as text, with credentials masked.
        next_at: when the next attempt is due, or None.
        result: what follows.
    """

    endpoint: str
    event_id: str
    type: str
    attempt: int
    at: str
    status: int | None
    error: str | None
    seconds: float
    answer: str
    next_at: str | None
    result: Result

    def encode(self) -> bytes:
        return orjson.dumps(asdict(self))

    @classmethod
    def decode(cls, body: bytes) -> AttemptRecord:
        """Read a record.

        Raises:
            ValueError: it is no record of an attempt.
        """
        record = orjson.loads(body)
        match record:
            case {
                "endpoint": str(endpoint),
                "event_id": str(event_id),
                "type": str(kind),
                "attempt": int(attempt),
                "at": str(at),
                "status": int() | None as status,
                "error": str() | None as error,
                "seconds": float() | int() as seconds,
                "answer": str(answer),
                "next_at": str() | None as next_at,
                "result": str(result),
            }:
                return cls(endpoint, event_id, kind, attempt, at, status, error, float(seconds), answer, next_at, Result(result))
        raise ValueError("the message is no record of an attempt")


def shown_answer(body: bytes, credentials: Collection[str] = ()) -> str:
    """Return the first bytes of an answer as text for viewers: printable, with credentials masked.

    An answer may repeat the request, so `credentials` are those of the endpoint. They are masked wherever they are.
    """
    text = body[:ANSWER_BYTES].decode("utf-8", "replace")
    for credential in sorted(credentials, key=len, reverse=True):
        text = _without(credential, text)
    return mask_credentials(_CONTROLS.sub(" ", text))


def _without(credential: str, text: str) -> str:
    """Mask a credential in a text, also one that is cut off at its end."""
    text = text.replace(credential, MASK)
    for length in range(min(len(credential) - 1, len(text)), _MIN_PREFIX - 1, -1):
        if text.endswith(credential[:length]):
            return text[:-length] + MASK
    return text


def shown_error(text: str) -> str:
    """Shorten the reason of a failure, and mask credentials in it."""
    return mask_credentials(_CONTROLS.sub(" ", text))[:_MAX_ERROR]
