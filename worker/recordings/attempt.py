"""One attempt at a recording job, and its message: the job in the body, facts of earlier attempts in the headers."""

from __future__ import annotations

import random
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from shared.amqp.batch_publish import HeaderValue
from shared.amqp.dead_letters import FIRST_SEEN, dead_letter_headers
from shared.amqp.publisher import Message
from shared.amqp.topology import DELIVERY_LIMIT, RECORDINGS_DEAD, retry_queue
from shared.clock import utc_now
from shared.domain.recording import RecordingJob
from shared.domain.recording_reasons import Reason
from shared.tracing.contexts import TRACEPARENT, parse_context
from worker.download.failures import FetchError

# The retry queue has the longest wait. Each message expires a little earlier, so jobs that failed together are spread.
JITTER = 0.2
# Headers are copied to the next message, and must fit in a frame.
_MAX_CHARACTERS, _MAX_COUNT = 64, 1 << 40
_MAX_REDELIVERED = DELIVERY_LIMIT // 2


@dataclass(frozen=True, slots=True)
class Attempt:
    """A job as it was delivered.

    Attributes:
        number: number of this attempt, from 1.
        first_seen: time of the job's first delivery.
        round: number of times the job was started, from 1: a redrive or backfill of an ended job starts it again.
        seen_bytes: size of the whole answer of the last attempt, if it was not believed yet.
        seen_audio_bytes: size of its audio according to its header, if that said so.
        is_again: fetch a recording even if it is stored, to compare.
        handed_over: id of this copy of a job whose delivery was acked early; see `early_ack.py`.
        redelivered: how often this message was delivered before and came back without an ack.
        may_have_stored: an earlier attempt may have stored something without publishing it, or kept a refused file.
        reasons: why the earlier attempts failed, in order.
    """

    job: RecordingJob
    body: bytes
    number: int
    first_seen: str
    round: int = 1
    seen_bytes: int | None = None
    seen_audio_bytes: int | None = None
    is_again: bool = False
    handed_over: str | None = None
    redelivered: int = 0
    may_have_stored: bool = False
    reasons: tuple[str, ...] = ()
    traceparent: str = ""

    @classmethod
    def of(cls, body: bytes, headers: Mapping[str, object]) -> Attempt:
        """Read a delivery.

        Raises:
            ValueError: the body is no recording job, or a header has no valid count.
        """
        redelivered = _count(headers, "x-delivery-count", 0)
        return cls(
            job=RecordingJob.decode(body),
            body=body,
            number=_count(headers, "attempts", 0) + 1,
            first_seen=str(headers.get(FIRST_SEEN) or utc_now())[:_MAX_CHARACTERS],
            round=_count(headers, "round", 1),
            seen_bytes=_count_or_none(headers, "seen_bytes"),
            seen_audio_bytes=_count_or_none(headers, "seen_audio_bytes"),
            is_again=bool(headers.get("again")),
            handed_over=str(headers["handed_over"])[:_MAX_CHARACTERS] if "handed_over" in headers else None,
            redelivered=redelivered,
            may_have_stored=bool(redelivered or headers.get("may_have_stored")),
            traceparent=str(parse_context(headers.get(TRACEPARENT)) or ""),
            reasons=tuple(reason for reason in str(headers.get("reasons", "")).split() if reason in set(Reason)),
        )

    @property
    def asked(self) -> tuple[int, int]:
        """Return the order of this request for the recording: revision of the call, then round."""
        return self.job.revision, self.round

    def check_redelivered(self) -> None:
        """Fail a message that is redelivered again and again, before RabbitMQ dead-letters it without an event.

        Raises:
            FetchError: its worker died or lost its connection each time. The job waits, and the attempt counts.
        """
        if self.redelivered >= _MAX_REDELIVERED:
            raise FetchError(Reason.INTERNAL_ERROR, f"redelivered {self.redelivered} times without completing")

    def retry(
        self,
        wait_s: float,
        *,
        counts: bool,
        at_least_s: float = 0.0,
        seen_bytes: int | None = None,
        seen_audio_bytes: int | None = None,
        reason: str = "",
        may_have_stored: bool = False,
    ) -> Message:
        """Return the message that waits in a retry queue for the next attempt; without `counts`, this one does not count.

        `wait_s` is the delay of the queue. `at_least_s` is what the PBX asked for; the wait is then that and a little more. Only
        the head of a queue expires, so earlier jobs with a longer wait can extend it, up to `wait_s`.
        """
        headers: dict[str, HeaderValue] = {
            "attempts": self.number if counts else self.number - 1,
            FIRST_SEEN: self.first_seen,
            "round": self.round,
            "reasons": " ".join((*self.reasons, reason)).strip(),
            **({"again": 1} if self.is_again else {}),
            **({"may_have_stored": 1} if may_have_stored or self.may_have_stored else {}),
            **({TRACEPARENT: self.traceparent} if self.traceparent else {}),
            **({"handed_over": self.handed_over} if self.handed_over and not counts else {}),
        }
        seen = (self.seen_bytes, self.seen_audio_bytes) if seen_bytes is None else (seen_bytes, seen_audio_bytes)
        names = ("seen_bytes", "seen_audio_bytes")
        headers |= {name: value for name, value in zip(names, seen, strict=True) if value is not None}
        spread = random.uniform(1 - JITTER, 1)  # noqa: S311 - spreads load, no secret
        wait_ms = round(1000 * (min(wait_s, at_least_s * (2 - spread)) if at_least_s else wait_s * spread))
        return Message("", retry_queue(wait_s), self.body, uuid.uuid4().hex, headers=headers, expires_ms=wait_ms)

    def dead_letter(self, reason: str, detail: str) -> Message:
        return dead_letter(self.body, reason, detail, first_seen=self.first_seen, rounds=self.round)


def _count(headers: Mapping[str, object], name: str, default: int) -> int:
    value = headers.get(name, default)
    if not isinstance(value, int) or not 0 <= value <= _MAX_COUNT:
        raise ValueError(f"header {name} is not a count")
    return value


def _count_or_none(headers: Mapping[str, object], name: str) -> int | None:
    return None if headers.get(name) is None else _count(headers, name, 0)


def suffix_of(asked: tuple[int, int]) -> str:
    """Return the end of the event id of a request (revision, round), empty for the first request."""
    revision, round_ = asked
    return "" if asked == (1, 1) else f"/{revision}.{round_}"


def dead_letter(body: bytes, reason: str, detail: str, *, first_seen: str, rounds: int = 1) -> Message:
    """Return the message for `recordings.dead`: a job that ended without a recording, or a body that is no job."""
    headers: dict[str, HeaderValue] = {**dead_letter_headers(reason, detail, first_seen), "round": rounds}
    return Message("", RECORDINGS_DEAD, body, uuid.uuid4().hex, headers=headers)
