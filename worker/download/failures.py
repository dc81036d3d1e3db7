"""Why an attempt failed, how often each reason is retried, and how the job ends then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from shared.domain.recording import RecordingState
from shared.domain.recording_reasons import Reason
from shared.errors import CallfoldError


class Result(StrEnum):
    """The end of a recording job."""

    STORED = RecordingState.STORED
    ABSENT = RecordingState.ABSENT
    FAILED = RecordingState.FAILED


@dataclass(frozen=True, slots=True)
class Rule:
    """The consequence of a reason: attempts (None is the whole schedule, which no rule exceeds) and result."""

    attempts: int | None
    result: Result = Result.FAILED


_WHOLE_SCHEDULE = Rule(None)
_GONE = Rule(None, Result.ABSENT)
# A wrong token stays wrong, and a PBX may block a client after too many attempts.
_NOT_ALLOWED = Rule(4)
# A file that is still being written is complete within minutes.
_BROKEN = Rule(5)
_REFUSED = Rule(1)
# It is requested once more, and then stored as it is.
_TWICE = Rule(2, Result.STORED)

# No answer, or none that is HTTP. A restart or a new certificate ends that.
_CONNECTION = (
    Reason.UNREACHABLE,
    Reason.HOST_NOT_FOUND,
    Reason.CERTIFICATE_EXPIRED,
    Reason.CERTIFICATE_WRONG_HOST,
    Reason.CERTIFICATE_UNTRUSTED,
    Reason.CERTIFICATE_INVALID,
    Reason.TLS_FAILED,
    Reason.HEADER_TOO_LONG,
    Reason.INVALID_RESPONSE,
)

RULES: Mapping[Reason, Rule] = {
    Reason.NOT_FOUND: _GONE,
    Reason.EMPTY: _GONE,
    Reason.NOT_READY: _WHOLE_SCHEDULE,
    Reason.GROWING: _WHOLE_SCHEDULE,
    **dict.fromkeys(_CONNECTION, _WHOLE_SCHEDULE),
    Reason.REDIRECTED: _WHOLE_SCHEDULE,
    Reason.STALLED: _WHOLE_SCHEDULE,
    Reason.INTERRUPTED: _WHOLE_SCHEDULE,
    Reason.UNEXPECTED_STATUS: _WHOLE_SCHEDULE,
    Reason.NOT_ALLOWED: _NOT_ALLOWED,
    Reason.LOGIN_PAGE: _NOT_ALLOWED,
    Reason.NOT_A_RECORDING: _BROKEN,
    Reason.TRUNCATED: _BROKEN,
    Reason.LENGTH_MISMATCH: _BROKEN,
    Reason.NO_AUDIO: _BROKEN,
    Reason.SHORTER_THAN_CALL: _TWICE,
    Reason.COMPRESSED: _BROKEN,
    Reason.TOO_LARGE: _REFUSED,
    Reason.ORIGIN_NOT_ALLOWED: _REFUSED,
    Reason.PATH_NOT_ALLOWED: _REFUSED,
    Reason.ADDRESS_NOT_ALLOWED: _REFUSED,
    Reason.TOO_MANY_REDIRECTS: _REFUSED,
    Reason.NO_RECORDING_LINK: _REFUSED,
    Reason.UNKNOWN_SOURCE: _REFUSED,
    Reason.ARCHIVE_UNAVAILABLE: _WHOLE_SCHEDULE,
    Reason.NO_SPACE: _WHOLE_SCHEDULE,
    Reason.INTERNAL_ERROR: _WHOLE_SCHEDULE,
}

BY_STATUS: Mapping[int, Reason] = {
    202: Reason.NOT_READY,
    204: Reason.EMPTY,
    401: Reason.NOT_ALLOWED,
    403: Reason.NOT_ALLOWED,
    404: Reason.NOT_FOUND,
    410: Reason.NOT_FOUND,
    425: Reason.NOT_READY,
    429: Reason.NOT_READY,
    503: Reason.NOT_READY,
}


# The PBX does not know the link, or answers it with something else than a recording. Another link of the recording may work.
_WRONG_LINK = frozenset(
    {
        Reason.NOT_FOUND,
        Reason.EMPTY,
        Reason.REDIRECTED,
        Reason.NOT_ALLOWED,
        Reason.LOGIN_PAGE,
        Reason.NOT_A_RECORDING,
        Reason.UNEXPECTED_STATUS,
        Reason.ORIGIN_NOT_ALLOWED,
        Reason.PATH_NOT_ALLOWED,
        Reason.TOO_MANY_REDIRECTS,
    }
)


class FetchError(CallfoldError):
    """An attempt that failed. `detail` never contains the path or query of a URL.

    Attributes:
        size: size of a complete response. The next attempt compares it, to see whether the recording still grows.
        audio_bytes: size of its audio according to its header, compared too.
        retry_after_s: how long the PBX asked to wait before the next request.
        is_about_recording: the link named this recording for certain. Otherwise "not found" is no statement about it.
        may_have_kept: a link brought a file, which may be kept as a refused file.
    """

    def __init__(
        self,
        reason: Reason,
        detail: str,
        *,
        size: int | None = None,
        audio_bytes: int | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        self.reason = reason
        self.detail = detail
        self.size = size
        self.audio_bytes = audio_bytes
        self.retry_after_s = retry_after_s
        self.is_about_recording = True
        self.may_have_kept = False
        super().__init__(f"{reason}: {detail}")

    @property
    def is_wrong_link(self) -> bool:
        """Return whether another link of the same recording may work."""
        return self.reason in _WRONG_LINK


def next_wait_s(reason: Reason, attempts: int, schedule_s: Sequence[float], *, same_reason: int | None = None) -> float | None:
    """Return the wait after `attempts`, of which `same_reason` failed for this reason. None: no more attempts."""
    allowed = RULES[reason].attempts
    if allowed is not None and (attempts if same_reason is None else same_reason) >= allowed:
        return None
    return schedule_s[attempts - 1] if attempts <= len(schedule_s) else None


def result_of(reasons: Sequence[str]) -> Result:
    """Return the result of a job from the reasons of its attempts. It is `absent` only if the PBX said so each time."""
    results = {RULES[Reason(reason)].result for reason in reasons}
    return Result.ABSENT if results == {Result.ABSENT} else Result.FAILED
