"""What each failure of an attempt leads to."""

from __future__ import annotations

import pytest

from shared.archive.deadlines import ArchiveUnavailableError
from shared.domain.recording_reasons import Reason
from shared.errors import BusyError, NotBegunError
from tests.helpers.recordings import job
from worker.download.failures import FetchError, Result
from worker.recordings.attempt import Attempt
from worker.recordings.job_outcome import End, JobOutcome, Retry, Wait, is_expected, outcome_of

SCHEDULE_S = (1.0, 5.0)
FAULT = RuntimeError("sectok=3511b272f4fb03ecf900b80b1cc5b8fe")
FAULT_DETAIL = "RuntimeError: see the worker's log"


def _outcome(error: Exception, number: int = 1, reasons: tuple[str, ...] = ()) -> JobOutcome:
    return outcome_of(error, Attempt(job(), job().encode(), number, job().started_at, reasons=reasons), SCHEDULE_S)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (NotBegunError("locked"), Wait(1.0, may_have_stored=False)),
        (NotBegunError("asked", wait_s=0.8), Wait(1.0, may_have_stored=False)),
        (NotBegunError("asked", wait_s=0.9), Wait(1.0, 0.9, may_have_stored=False)),
        (NotBegunError("asked", wait_s=3), Wait(5.0, 3, may_have_stored=False)),
        (NotBegunError("asked", wait_s=60), Wait(5.0, 60, may_have_stored=False)),
        (
            FetchError(Reason.NOT_READY, "503", retry_after_s=3),
            Retry(Reason.NOT_READY, "503", 5.0, None, may_have_stored=False, at_least_s=3),
        ),
        (
            FetchError(Reason.NOT_READY, "503", retry_after_s=0.5),
            Retry(Reason.NOT_READY, "503", 1.0, None, may_have_stored=False),
        ),
        (BusyError("lost"), Wait(1.0, may_have_stored=True)),
        (FetchError(Reason.NOT_FOUND, "404", size=7), Retry(Reason.NOT_FOUND, "404", 1.0, 7, may_have_stored=False)),
        (ArchiveUnavailableError("full"), Retry(Reason.ARCHIVE_UNAVAILABLE, "full", 1.0, None, may_have_stored=True)),
        (FetchError(Reason.TOO_LARGE, "large"), End(Reason.TOO_LARGE, "large", Result.FAILED, may_have_stored=False)),
        (FAULT, Retry(Reason.INTERNAL_ERROR, FAULT_DETAIL, 1.0, None, may_have_stored=True)),
        (ExceptionGroup("", [BusyError("lost")]), Wait(1.0, may_have_stored=True)),
        (
            ExceptionGroup("", [BusyError("lost"), ExceptionGroup("", [FAULT])]),
            Retry(Reason.INTERNAL_ERROR, FAULT_DETAIL, 1.0, None, may_have_stored=True),
        ),
    ],
)
def test_a_failure_has_one_outcome(error: Exception, outcome: JobOutcome) -> None:
    assert _outcome(error) == outcome


def test_a_recording_is_absent_only_if_the_pbx_said_so_each_time() -> None:
    gone = FetchError(Reason.NOT_FOUND, "404")
    assert _outcome(gone, 3, ("not_found",) * 2) == End(Reason.NOT_FOUND, "404", Result.ABSENT, may_have_stored=False)
    assert _outcome(gone, 3, ("not_found", "stalled")) == End(Reason.NOT_FOUND, "404", Result.FAILED, may_have_stored=False)


def test_what_is_not_found_under_a_doubtful_link_is_not_absent() -> None:
    gone = FetchError(Reason.NOT_FOUND, "404")
    gone.is_about_recording = False
    assert isinstance(_outcome(gone), Retry)
    end = _outcome(gone, 3, ("not_found",) * 2)
    assert isinstance(end, End)
    assert (end.reason, end.result) == (Reason.NO_RECORDING_LINK, Result.FAILED)
    gone.is_about_recording = True
    assert _outcome(gone, 3, ("not_found",) * 2) == End(Reason.NOT_FOUND, "404", Result.ABSENT, may_have_stored=False)


@pytest.mark.parametrize(
    ("reason", "number", "is_routine"),
    [
        (Reason.NOT_FOUND, 1, True),
        (Reason.EMPTY, 2, True),
        (Reason.NOT_READY, 3, True),
        (Reason.GROWING, 4, True),
        (Reason.NOT_FOUND, 5, False),
        (Reason.UNREACHABLE, 1, False),
        (Reason.NOT_ALLOWED, 1, False),
        (Reason.ARCHIVE_UNAVAILABLE, 1, False),
    ],
)
def test_only_a_recording_that_may_not_be_finished_yet_is_routine(reason: Reason, number: int, is_routine: bool) -> None:  # noqa: FBT001
    schedule_s = (5.0, 30.0, 120.0, 600.0, 3600.0, 21600.0)
    attempt = Attempt(job(), job().encode(), number, job().started_at)
    outcome = outcome_of(FetchError(reason, "detail"), attempt, schedule_s)
    assert isinstance(outcome, Retry)
    assert is_expected(outcome, number, schedule_s) is is_routine


def test_the_end_of_a_job_is_not_routine_however_short_its_schedule_is() -> None:
    outcome = _outcome(FetchError(Reason.NOT_FOUND, "404"), 3)
    assert isinstance(outcome, End)
    assert not is_expected(outcome, 3, SCHEDULE_S)
