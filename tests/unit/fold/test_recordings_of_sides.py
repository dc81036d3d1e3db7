"""A leg can come to represent a side with a late fact. No recording is lost by it, none is requested twice, and no file moves."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from shared.domain.call import Call
from shared.domain.raw_event import CallbackEvent, TimerEvent
from shared.domain.recording import RecordingJob
from shared.domain.recording_plan import recording_jobs
from shared.domain.revision_summary import is_wanted
from tests.helpers.folding import Published, callback, timer

LEGS = (("API", "1"), ("API", "2"), ("Outgoing", "3"), ("Outgoing", "4"), ("Conference", "5"))


def _history(rng: random.Random) -> list[CallbackEvent | TimerEvent]:
    """Recorded legs whose events come late or not at all, with timers between them."""
    events: list[CallbackEvent | TimerEvent] = []
    for call_type, call_id in rng.sample(LEGS, rng.randrange(2, len(LEGS) + 1)):
        for event in ("start", "pickup", "hangup", "missed"):
            if rng.random() < 0.6:
                more = f"&RequestID=513&IsCallRecorded={rng.choice('011')}"
                if rng.random() < 0.5:
                    more += f"&Guid=0000000{rng.choice('12') if rng.random() < 0.2 else call_id}-ab8a-34c8-f243-c2aad8c446ff"
                events.append(callback(rng.randrange(60), f"CallType={call_type}&CallID={call_id}&Event={event}{more}"))
    events += [timer(seconds) for seconds in (200, 400, 600)]
    rng.shuffle(events)
    return [*events, timer(90_000)]


def _requested(job: RecordingJob) -> tuple[str, str | None]:
    return job.call_id, job.guid


@given(st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_each_recording_is_requested_once_wherever_its_leg_stands(rng: random.Random) -> None:
    record_legs = rng.choice([("agent", "dialed"), ("agent",), ("dialed",), ()])
    history = Published(record_legs=record_legs)
    fetched: list[RecordingJob] = []
    names: dict[str, str] = {}
    last: tuple[Call, list[RecordingJob]] | None = None
    for event in _history(rng):
        before = history.summary
        call = history.fold([event])
        if call is None:
            continue
        jobs = recording_jobs(call, {}, record_legs, before)
        fetched += [job for job in jobs if job.fetch]
        for job in jobs:  # the name of a leg is settled when its GUID is known
            assert names.setdefault(f"{job.call_id} {job.guid}", job.name) == job.name
        last = (call, jobs)
    if last is None:
        return
    assert len({_requested(job) for job in fetched}) == len(fetched), "requested twice"
    call, jobs = last
    for job in jobs:
        is_recorded = next(leg.recorded for leg in call.legs if leg.call_id == job.call_id)
        had = _requested(job) in {_requested(each) for each in fetched}
        assert had or not (is_recorded and is_wanted(job.leg, record_legs)), "lost"
        assert job.state == ("waiting" if had else "not_wanted" if is_recorded else "not_recorded")


def test_a_leg_that_was_no_side_stays_requested_as_one_that_is_not_wanted_and_back() -> None:
    history = Published(record_legs=("agent",))
    seen: list[list[tuple[str, str, bool, str]]] = []
    for events in (
        [
            "API&CallID=1&Event=pickup",
            "API&CallID=1&Event=hangup",
            "Outgoing&CallID=3&Event=missed",
            "Outgoing&CallID=4&Event=hangup&IsCallRecorded=1",
            "Outgoing&CallID=4&Event=missed",
        ],
        ["Outgoing&CallID=4&Event=pickup"],  # it answered after all
        ["Outgoing&CallID=3&Event=pickup"],  # and so did the first
    ):
        before = history.summary
        call = history.fold([callback(0, f"CallType={event}&RequestID=513") for event in events])
        assert call is not None
        jobs = recording_jobs(call, {}, ("agent",), before)
        seen.append([(job.call_id, job.leg, job.fetch, job.state) for job in jobs if job.call_id == "4"])
    assert seen == [
        [("4", "other", True, "waiting")],
        [("4", "dialed", False, "waiting")],
        [("4", "other", False, "waiting")],
    ]
