"""How a try travels: its wait, what is known of it, and when it is ended."""

from __future__ import annotations

from unittest.mock import Mock

import pytest

from shared.amqp.delivery import Delivery
from shared.amqp.topology import DELIVERY_LIMIT
from shared.domain.recording_reasons import Reason
from tests.helpers.recordings import job
from worker.download.failures import FetchError
from worker.recordings.attempt import Attempt
from worker.recordings.early_ack import HeldDelivery

ATTEMPT = Attempt(
    job(),
    job().encode(),
    number=2,
    first_seen="2026-11-23T07:44:00.000000Z",
    round=3,
    seen_bytes=7,
    is_again=True,
    may_have_stored=True,
)


def test_jobs_that_failed_together_do_not_come_back_together() -> None:
    waits_ms = [ATTEMPT.retry(600, counts=True).expires_ms or 0 for _ in range(200)]
    assert all(480_000 <= wait_ms <= 600_000 for wait_ms in waits_ms), "at most a fifth less, never more"
    assert max(waits_ms) - min(waits_ms) > 60_000, "spread over most of that"
    assert {ATTEMPT.retry(600, counts=True).routing_key} == {"recordings.retry.600s"}


def test_a_try_waits_as_long_as_the_pbx_asked() -> None:
    waits_ms = [ATTEMPT.retry(600, counts=False, at_least_s=60).expires_ms or 0 for _ in range(200)]
    assert all(60_000 <= wait_ms <= 72_000 for wait_ms in waits_ms), "at most a fifth longer"
    assert max(waits_ms) - min(waits_ms) > 6_000
    assert {ATTEMPT.retry(600, counts=True, at_least_s=9000).expires_ms} == {600_000}, "the queue has no longer wait"


def test_a_try_is_read_back_as_it_was_sent() -> None:
    copy = Attempt(**{name: getattr(ATTEMPT, name) for name in ATTEMPT.__slots__} | {"handed_over": "x"})
    assert Attempt.of(ATTEMPT.body, copy.retry(5, counts=False).headers) == copy
    tried = Attempt.of(ATTEMPT.body, copy.retry(5, counts=True, seen_bytes=9).headers)
    assert (tried.number, tried.seen_bytes, tried.handed_over) == (3, 9, None)
    twice = Attempt.of(tried.body, tried.retry(5, counts=True, reason="truncated").headers)
    assert Attempt.of(twice.body, twice.retry(5, counts=True, reason="not_found").headers).reasons == ("truncated", "not_found")


def test_a_copy_that_is_handed_over_again_has_the_same_id_so_that_one_note_ends_both() -> None:
    """A copy can be slow too, while Redis does not answer whether the recording is locked."""
    first = HeldDelivery(Mock(spec=Delivery))
    first.attempt = ATTEMPT
    copy = first.hand_over(5)
    assert copy is not None
    second = HeldDelivery(Mock(spec=Delivery))
    second.attempt = Attempt.of(copy.body, copy.headers)
    copy_of_copy = second.hand_over(5)
    assert copy_of_copy is not None
    assert copy.headers["handed_over"] == copy_of_copy.headers["handed_over"]


def test_whoever_gets_a_job_knows_whether_something_may_be_stored_that_was_not_told() -> None:
    fresh = Attempt.of(ATTEMPT.body, {"again": 1, "round": 2})

    def next_of(attempt: Attempt, *, may_have_stored: bool = False) -> Attempt:
        return Attempt.of(ATTEMPT.body, attempt.retry(5, counts=False, may_have_stored=may_have_stored).headers)

    assert not next_of(fresh).may_have_stored, "it had no turn"
    assert next_of(fresh, may_have_stored=True).may_have_stored
    assert next_of(next_of(fresh, may_have_stored=True)).may_have_stored, "it is told on"
    assert Attempt.of(ATTEMPT.body, {"x-delivery-count": 1}).may_have_stored, "its worker died"


@pytest.mark.parametrize("headers", [{"attempts": "x"}, {"round": -1}, {"seen_bytes": 1 << 70}, {"x-delivery-count": []}])
def test_a_count_that_is_none_is_a_dead_letter(headers: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="not a count"):
        Attempt.of(ATTEMPT.body, headers)


@pytest.mark.parametrize(
    "wrong",
    [
        {"state": "stored"},
        {"state": "bogus"},
        {"recording_url": 5},
        {"fetch": 1},
        {"record": {"revision": "x"}},
        {"record": {"revision": True}},
        {"call": "\u0661"},
        {"started_at": "2026-99-99T00:00:00Z"},
    ],
)
def test_a_job_of_the_wrong_kind_is_none(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"not a recording job|month|isoformat"):
        Attempt.of(job(**wrong).encode(), {})


def test_a_job_given_out_too_often_is_ended_by_us() -> None:
    Attempt.of(ATTEMPT.body, {"x-delivery-count": DELIVERY_LIMIT // 2 - 1}).check_redelivered()
    with pytest.raises(FetchError) as ended:
        Attempt.of(ATTEMPT.body, {"x-delivery-count": DELIVERY_LIMIT // 2}).check_redelivered()
    assert ended.value.reason is Reason.INTERNAL_ERROR
