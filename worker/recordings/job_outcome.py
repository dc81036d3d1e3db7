"""What an attempt at a recording job leads to. It is decided here alone; the consumer acts on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

from shared.archive.deadlines import ArchiveUnavailableError
from shared.domain.recording_reasons import Reason
from shared.errors import BusyError, NotBegunError
from worker.download.failures import FetchError, Result, next_wait_s, result_of
from worker.recordings.attempt import JITTER, Attempt

# An attempt that stores something can fail for these reasons.
_AFTER_STORING = frozenset({Reason.ARCHIVE_UNAVAILABLE, Reason.NO_SPACE, Reason.INTERNAL_ERROR})
# A recording that seems too short is requested again after this wait of the schedule, or a later one.
_LATER = 3

# A PBX finishes a recording some time after the call. Until then these answers say nothing of a fault.
_NOT_FINISHED = frozenset({Reason.NOT_FOUND, Reason.EMPTY, Reason.NOT_READY, Reason.GROWING})
_FINISHED_WITHIN_S = 180.0

_UNCERTAIN = "only links that may be of something else have nothing, so the PBX has not said that there is no recording: "


@dataclass(frozen=True, slots=True)
class Done:
    """Nothing is left to do but the ack."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing could be done: the recording is locked, its host has no free slot, or the PBX asked to wait.

    It may also be that this was so for its second link. The attempt does not count. `wait_s` and `at_least_s` are as in `Retry`.
    """

    wait_s: float
    at_least_s: float = 0.0
    _: KW_ONLY
    may_have_stored: bool


@dataclass(frozen=True, slots=True)
class Retry:
    """The attempt failed, and counts; the next one follows after `wait_s`.

    Attributes:
        wait_s: one of the schedule's waits.
        at_least_s: what the PBX asked for, if that is more than the schedule has; 0 otherwise.
        seen_bytes: size of a whole answer that is not believed yet.
        may_have_stored: the attempt may have stored something without publishing it, or kept a refused file.
        seen_audio_bytes: size of the audio in that answer, according to its header.
    """

    reason: Reason
    detail: str
    wait_s: float
    seen_bytes: int | None
    may_have_stored: bool
    at_least_s: float = 0.0
    seen_audio_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class End:
    """The attempt failed, and was the last: the result is published, and the job dead-lettered."""

    reason: Reason
    detail: str
    result: Result
    may_have_stored: bool


JobOutcome = Done | Wait | Retry | End


def outcome_of(error: Exception, attempt: Attempt, schedule_s: Sequence[float]) -> JobOutcome:
    """Decide what a failure leads to; `schedule_s` has the waits between attempts. An unknown exception is an internal error."""
    match _decisive(error):
        case NotBegunError(wait_s=asked_s, may_have_kept=may_have_kept):
            return Wait(*_waits(schedule_s[0], asked_s, schedule_s), may_have_stored=may_have_kept)
        case BusyError():
            return Wait(schedule_s[0], may_have_stored=True)
        case FetchError() as failure:
            pass
        case ArchiveUnavailableError() as unavailable:
            failure = FetchError(Reason.ARCHIVE_UNAVAILABLE, str(unavailable))
        case fault:
            failure = FetchError(Reason.INTERNAL_ERROR, detail_of(fault))
    reason, detail = failure.reason, failure.detail
    may_have_stored = reason in _AFTER_STORING or failure.may_have_kept
    reasons = [*attempt.reasons, reason]
    wait_s = next_wait_s(reason, attempt.number, schedule_s, same_reason=reasons.count(reason))
    if wait_s is not None:
        if reason is Reason.SHORTER_THAN_CALL:
            wait_s = max(wait_s, schedule_s[min(_LATER, len(schedule_s)) - 1])
        longer_s, at_least_s = _waits(wait_s, failure.retry_after_s or 0.0, schedule_s)
        return Retry(reason, detail, longer_s, failure.size, may_have_stored, at_least_s, failure.audio_bytes)
    result = result_of(reasons)
    if result is Result.ABSENT and not failure.is_about_recording:
        return End(Reason.NO_RECORDING_LINK, f"{_UNCERTAIN}{detail}", Result.FAILED, may_have_stored)
    return End(reason, detail, result, may_have_stored)


def is_expected(outcome: Retry | End, attempt: int, schedule_s: Sequence[float]) -> bool:
    """Return whether a failure is routine: the PBX may not have finished the recording yet, and the schedule allows for that."""
    is_early = sum(schedule_s[: attempt - 1]) < _FINISHED_WITHIN_S
    return isinstance(outcome, Retry) and outcome.reason in _NOT_FINISHED and is_early


def _waits(scheduled_s: float, asked_s: float, schedule_s: Sequence[float]) -> tuple[float, float]:
    """Return the wait of the schedule that is long enough for what the PBX asked for, and what it asked for.

    The second is 0 if the next wait is long enough anyway. A wait longer than every other is cut.
    """
    if asked_s <= scheduled_s * (1 - JITTER):
        return scheduled_s, 0.0
    longer = [wait_s for wait_s in schedule_s if wait_s >= asked_s]
    return (min(longer) if longer else max(schedule_s)), asked_s


def detail_of(fault: Exception) -> str:
    """Describe an internal error without its message, which may quote a credential."""
    return f"{type(fault).__name__}: see the worker's log"


def _decisive(error: Exception) -> Exception:
    """Return the exception of a group that decides: a failure, if there is one besides the lost lock."""
    while isinstance(error, ExceptionGroup):
        _, failures = error.split(BusyError)
        error = (failures or error).exceptions[0]
    return error
