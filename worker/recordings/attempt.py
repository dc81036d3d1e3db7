"""One try of a recording job, and how it travels: the job in the body, what is known of earlier tries in the headers."""

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
from worker.download.failures import FetchError, Reason

# The queue's own limit is the longest wait; jobs that failed together do not come back together.
_JITTER = 0.2
# What comes in as a header goes out as one: it must fit in a frame.
_MAX_CHARACTERS, _MAX_COUNT = 64, 1 << 40
_MAX_REDELIVERED = DELIVERY_LIMIT // 2


@dataclass(frozen=True, slots=True)
class Attempt:
    """A job as it was delivered.

    Attributes:
        number: which try it is, from 1.
        first_seen: when the job was first delivered.
        round: how often the job was begun anew, after it had failed: from 1.
        seen_bytes: how large a whole answer was at the last try, where it was not yet believed.
        is_again: fetch even what is stored already, to compare.
        handed_over: names the work that this job is the copy of, see `worker/handover.py`.
        may_have_stored: an earlier try of this job may have stored something and not told of it.
        reasons: of the tries before, in their order.
        redelivered: how often this very message was given out before, and came back without an ack.
    """

    job: RecordingJob
    body: bytes
    number: int
    first_seen: str
    round: int = 1
    seen_bytes: int | None = None
    is_again: bool = False
    handed_over: str | None = None
    redelivered: int = 0
    may_have_stored: bool = False
    reasons: tuple[str, ...] = ()

    @classmethod
    def of(cls, body: bytes, headers: Mapping[str, object]) -> Attempt:
        """Read a delivery.

        Raises:
            ValueError: the body is no recording job.
        """
        seen = headers.get("seen_bytes")
        redelivered = _count(headers, "x-delivery-count", 0)
        return cls(
            job=RecordingJob.decode(body),
            body=body,
            number=_count(headers, "attempts", 0) + 1,
            first_seen=str(headers.get(FIRST_SEEN) or utc_now())[:_MAX_CHARACTERS],
            round=_count(headers, "round", 1),
            seen_bytes=None if seen is None else _count(headers, "seen_bytes", 0),
            is_again=bool(headers.get("again")),
            handed_over=str(headers["handed_over"])[:_MAX_CHARACTERS] if "handed_over" in headers else None,
            redelivered=redelivered,
            may_have_stored=bool(redelivered or headers.get("may_have_stored")),
            reasons=tuple(reason for reason in str(headers.get("reasons", "")).split() if reason in set(Reason)),
        )

    @property
    def asked(self) -> tuple[int, int]:
        """Order the askings for one recording: by the revision of the call that asked, then by round."""
        return self.job.revision, self.round

    def check_redelivered(self) -> None:
        """End a message that comes back without end, before the broker does, which tells nobody.

        Raises:
            FetchError: its worker died, or was cut off, each time; it waits, and counts as a try.
        """
        if self.redelivered >= _MAX_REDELIVERED:
            raise FetchError(Reason.INTERNAL_ERROR, f"given out {self.redelivered} times, and not once seen through")

    def retry(
        self, wait_s: float, *, tried: bool, seen_bytes: int | None = None, reason: str = "", may_have_stored: bool = False
    ) -> Message:
        """Write the message that waits in the broker for the next try; one that was not `tried` does not count."""
        headers: dict[str, HeaderValue] = {
            "attempts": self.number if tried else self.number - 1,
            FIRST_SEEN: self.first_seen,
            "round": self.round,
            "reasons": " ".join((*self.reasons, reason)).strip(),
            **({"again": 1} if self.is_again else {}),
            **({"may_have_stored": 1} if may_have_stored or self.may_have_stored else {}),
            **({"handed_over": self.handed_over} if self.handed_over and not tried else {}),
        }
        seen_bytes = self.seen_bytes if seen_bytes is None else seen_bytes
        if seen_bytes is not None:
            headers["seen_bytes"] = seen_bytes
        wait_ms = round(wait_s * 1000 * random.uniform(1 - _JITTER, 1))  # noqa: S311 - spreads load, no secret
        return Message("", retry_queue(wait_s), self.body, uuid.uuid4().hex, headers=headers, expires_ms=wait_ms)

    def dead_letter(self, reason: str, detail: str) -> Message:
        return dead_letter(self.body, reason, detail, first_seen=self.first_seen, rounds=self.round)


def _count(headers: Mapping[str, object], name: str, default: int) -> int:
    told = headers.get(name, default)
    if not isinstance(told, int) or not 0 <= told <= _MAX_COUNT:
        raise ValueError(f"header {name} is no count")
    return told


def suffix_of(asked: tuple[int, int]) -> str:
    """Tell the event of an asking (revision, round) from that of the first."""
    revision, round_ = asked
    return "" if asked == (1, 1) else f"/{revision}.{round_}"


def dead_letter(body: bytes, reason: str, detail: str, *, first_seen: str, rounds: int = 1) -> Message:
    """Write a job that ended without a recording, or what is no job, for `recordings.dead`."""
    headers: dict[str, HeaderValue] = {**dead_letter_headers(reason, detail, first_seen), "round": rounds}
    return Message("", RECORDINGS_DEAD, body, uuid.uuid4().hex, headers=headers)
