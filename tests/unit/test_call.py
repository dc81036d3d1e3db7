"""The rules of the call, written as histories: `+seconds leg event`, in the order they happened."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import orjson
import pytest

from shared.domain.adapter_link import SAMPLE_LINK, parse_link
from shared.domain.call import Call, Status, derive
from shared.domain.call_event import call_record
from shared.domain.closing import CloseReason, Outcome
from shared.domain.facts import CLOCK, facts_of
from shared.domain.ids import CallKey, CallRef, SourceName
from shared.domain.leg import LegState
from shared.domain.raw_event import CallbackEvent, DialEvent
from shared.domain.recording_plan import recording_jobs
from shared.domain.revision_summary import amends, summary
from shared.domain.times import java_time, rfc3339
from shared.rebuild.published_summary import published_summary
from tests.helpers.servers import POLICY

KEY = CallKey(SourceName("acme"), CallRef("513"))
T0 = datetime(2026, 11, 23, 7, 44, tzinfo=UTC)
LEGS = {"agent": "API:1", "dialed": "Outgoing:2", "second": "Outgoing:3"}


def at(seconds: float) -> str:
    return rfc3339(T0 + timedelta(seconds=seconds))


def fold(*history: str, now: float | None = None, key: CallKey = KEY, legs: dict[str, str] = LEGS) -> Call:
    facts: dict[str, str] = {CLOCK: at(now if now is not None else 0)}
    for line in history:
        offset, leg, event = line.split()
        when = at(float(offset))
        facts[f"leg:{legs[leg]}:{event}"] = when
        facts[CLOCK] = max(facts[CLOCK], when)
    return derive(key, facts, POLICY)


ANSWERED = ("0 agent pickup", "3 dialed pickup", "33 dialed hangup", "34 agent hangup")


def test_both_picked_up_and_hung_up_is_answered() -> None:
    call = fold(*ANSWERED)
    assert call.closing is not None
    assert (call.closing.outcome, call.closing.reason, call.closing.complete) == (Outcome.ANSWERED, CloseReason.HANGUP, True)
    assert (call.status, call.ring_seconds, call.talk_seconds) == (Status.COMPLETE, 3, 30)
    assert (call.started_at, call.answered_at, call.ended_at) == (at(0), at(3), at(34))
    assert call.agent is not None
    assert call.dialed is not None
    assert (call.agent.state, call.dialed.state) == (LegState.ENDED, LegState.ENDED)


@pytest.mark.parametrize(
    ("history", "outcome", "reason"),
    [
        (("0 agent missed",), Outcome.AGENT_MISSED, CloseReason.MISSED),
        (("0 agent hangup", "0 agent missed"), Outcome.AGENT_MISSED, CloseReason.MISSED),
        (("0 agent pickup", "9 dialed hangup", "9 dialed missed", "11 agent hangup"), Outcome.DIALED_MISSED, CloseReason.MISSED),
        (("0 agent pickup", "9 dialed missed", "11 agent hangup"), Outcome.DIALED_MISSED, CloseReason.MISSED),
        (("0 agent pickup", "3 dialed pickup", "20 agent hangup", "21 dialed hangup"), Outcome.ANSWERED, CloseReason.HANGUP),
    ],
)
def test_a_call_whose_events_all_came_is_complete_at_once(
    history: tuple[str, ...], outcome: Outcome, reason: CloseReason
) -> None:
    call = fold(*history)
    assert call.closing is not None
    assert (call.closing.outcome, call.closing.reason, call.closing.complete) == (outcome, reason, True)


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_call_with_an_event_to_come_is_open(length: int) -> None:
    for some in itertools.combinations(ANSWERED, length):
        call = fold(*some)
        assert call.closing is None, some
        assert call.status is not Status.COMPLETE


def test_a_hangup_alone_waits_for_its_missed_and_counts_as_missed_after_the_settle_time() -> None:
    assert fold("0 agent hangup", now=9.9).closing is None
    call = fold("0 agent hangup", now=10)
    assert call.closing is not None
    assert (call.closing.outcome, call.closing.reason) == (Outcome.AGENT_MISSED, CloseReason.SETTLED)
    assert call.agent is not None
    assert call.agent.inferred


def test_an_agent_who_hung_up_before_anything_was_dialed_is_settled() -> None:
    history = ("0 agent pickup", "2 agent hangup")
    assert fold(*history, now=11.9).closing is None
    call = fold(*history, now=12)
    assert call.closing is not None
    assert (call.closing.outcome, call.closing.reason) == (Outcome.AGENT_HUNG_UP, CloseReason.SETTLED)


def test_a_dialed_leg_proves_that_the_agent_had_picked_up() -> None:
    history = ("3 dialed pickup", "33 dialed hangup", "34 agent hangup")
    assert fold(*history, now=43.9).closing is None
    call = fold(*history, now=44)
    assert call.closing is not None
    assert call.closing.outcome is Outcome.ANSWERED
    assert call.agent is not None
    assert (call.agent.state, call.agent.inferred, call.agent.picked_up_at) == (LegState.ENDED, True, None)


def test_a_lost_hangup_is_closed_after_the_grace_time_as_not_complete() -> None:
    history = ("0 agent pickup", "3 dialed pickup", "33 dialed hangup")
    assert fold(*history, now=152).closing is None
    call = fold(*history, now=153)
    assert call.closing is not None
    assert (call.closing.outcome, call.closing.reason, call.closing.complete) == (Outcome.ANSWERED, CloseReason.TIMEOUT, False)


def test_silence_closes_a_call_after_the_maximum_time() -> None:
    assert fold("0 agent pickup", now=14399).closing is None
    call = fold("0 agent pickup", now=14400)
    assert call.closing is not None
    assert (call.closing.outcome, call.closing.complete) == (Outcome.UNKNOWN, False)


def test_a_second_call_id_on_one_side_is_a_leg_of_its_own() -> None:
    call = fold(*ANSWERED, "20 second pickup")
    assert call.closing is None
    call = fold(*ANSWERED, "20 second pickup", "40 second hangup")
    assert call.closing is not None
    assert call.dialed is not None
    assert call.dialed.call_id == "2", "of several that were answered, the first"
    assert [leg.call_id for leg in call.other_legs] == ["3"]


@pytest.mark.parametrize(
    ("history", "status"),
    [
        (("0 agent start",), Status.RINGING),
        (("0 agent pickup",), Status.TALKING),
        (("0 agent pickup", "5 agent hangup"), Status.ENDING),
    ],
)
def test_an_open_call_has_a_status(history: tuple[str, ...], status: Status) -> None:
    assert fold(*history).status is status


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1795419839313", "2026-11-23T07:43:59.313000Z"),
        ("1795419840000", "2026-11-23T07:44:00.000000Z"),
        (str(1795419840000 + 14 * 3_600_000), "2026-11-23T21:44:00.000000Z"),  # local time, sent as UTC
        (str(1795419840000 + 25 * 3_600_000), None),  # no time zone is that far ahead
        (str(1795419840000 - 47 * 3_600_000), "2026-11-21T08:44:00.000000Z"),
        (str(1795419840000 - 49 * 3_600_000), None),  # no call lasts that long
        ("1000000000000", None),  # 2001
        ("0", None),
        ("", None),
        ("-5", None),
        ("99999999999999", None),
        ("4102444800000", None),  # 2100: the far future
        ("12 3", None),
    ],
)
def test_java_timestamps_are_read_and_nonsense_is_ignored(text: str, expected: str | None) -> None:
    assert java_time(text, at(0)) == expected


@pytest.mark.parametrize("history", [ANSWERED[:3], ("0 agent pickup", "34 agent hangup"), ("0 dialed hangup", "1 agent hangup")])
def test_a_callback_that_is_repeated_late_is_no_clock(history: tuple[str, ...]) -> None:
    """It may only have been held up on its way, and what it overtook may still come: only timers tell that time has passed."""
    sides = {"agent": "CallType=API&CallID=1", "dialed": "CallType=Outgoing&CallID=2"}
    facts: dict[str, str] = {}
    for late_s in (0, 7200):
        for line in history:
            offset, leg, event = line.split()
            raw = CallbackEvent(KEY.source, at(float(offset) + late_s), f"{sides[leg]}&Event={event}&RequestID=513")
            for name, value in facts_of(raw, parse_link(SAMPLE_LINK))[1]:
                facts[name] = (max if name.startswith(">") else min)(facts.get(name, value), value)
    call = derive(KEY, facts, POLICY)
    assert call.closing is None
    assert call.wake_at is not None
    facts[CLOCK] = call.wake_at
    assert derive(KEY, facts, POLICY).closing is not None


@pytest.mark.parametrize(
    ("history", "seconds"),
    [
        (("0 agent pickup",), 14400),
        (("0 agent hangup",), 10),
        (("0 agent pickup", "5 agent hangup"), 15),
        (("0 agent pickup", "3 dialed pickup", "33 dialed hangup"), 153),
        (("3 dialed pickup", "33 dialed hangup", "34 agent hangup"), 44),
    ],
)
def test_an_open_call_tells_when_its_silence_will_close_it(history: tuple[str, ...], seconds: float) -> None:
    call = fold(*history)
    assert call.wake_at == at(seconds)
    assert fold(*history, now=seconds - 0.001).closing is None
    assert fold(*history, now=seconds).closing is not None
    assert fold(*history, now=seconds).wake_at is None


def _answered(*, pickup: float = 3, far_hangup: float = 33, agent_hangup: str = "34 agent hangup") -> str:
    return summary(fold("0 agent pickup", f"{pickup} dialed pickup", f"{far_hangup} dialed hangup", agent_hangup, now=9000))


def test_a_summary_that_differs_amends_but_not_for_a_fraction_of_a_second_of_talk() -> None:
    before = _answered()
    assert not amends(before, _answered())
    assert not amends(before, _answered(far_hangup=33.5))
    assert amends(before, _answered(far_hangup=32))
    assert amends(before, _answered(agent_hangup="34 agent pickup")), "not complete"
    assert amends(before, summary(fold(*ANSWERED, "20 second missed"))), "another leg"
    missed = summary(fold("0 agent pickup", "9 dialed missed", "34 agent hangup"))
    assert amends(missed, before)


def test_every_revision_writes_each_leg_s_sidecar_and_fetches_only_what_was_not_had() -> None:
    call = fold(*ANSWERED)
    assert call.agent is not None
    assert call.dialed is not None
    one = replace(call, agent=replace(call.agent, recorded=True, guid="g"), dialed=replace(call.dialed, recorded=True))
    jobs = recording_jobs(one, {}, ["agent"])
    assert [(job.leg, job.fetch, job.state) for job in jobs] == [("agent", True, "waiting"), ("dialed", False, "not_wanted")]
    jobs = recording_jobs(one, {}, ["agent", "dialed"], summary(one, "", ["agent", "dialed"]))
    assert [(job.leg, job.fetch, job.state) for job in jobs] == [("agent", False, "waiting"), ("dialed", False, "waiting")]
    jobs = recording_jobs(one, {}, ["agent", "dialed"], summary(call))
    assert [(job.leg, job.fetch) for job in jobs] == [("agent", True), ("dialed", True)]
    jobs = recording_jobs(call, {}, ["agent", "dialed"])
    assert [(job.leg, job.fetch, job.state) for job in jobs] == [
        ("agent", False, "not_recorded"),
        ("dialed", False, "not_recorded"),
    ]


def test_a_leg_whose_recording_is_told_late_is_fetched_though_another_leg_has_its_guid() -> None:
    call = fold(*ANSWERED)
    assert call.agent is not None
    assert call.dialed is not None
    first = replace(call, agent=replace(call.agent, recorded=True, guid="g"), dialed=replace(call.dialed, guid="g"))
    second = replace(first, dialed=replace(call.dialed, guid="g", recorded=True))
    told = summary(first, "", ["agent", "dialed"])
    assert amends(told, summary(second, told))
    jobs = recording_jobs(second, {}, ["agent", "dialed"], told)
    assert [(job.leg, job.name, job.fetch) for job in jobs] == [("agent", "g", False), ("dialed", "g.2", True)]


def _with_a_second_dialed_leg() -> tuple[Call, Call]:
    """A recorded call, and the same when callbacks of a dialed leg that rang before the known one have been folded."""
    late = ("1 second pickup", "3 second hangup")
    calls = []
    for call in (fold(*ANSWERED), fold(*ANSWERED, *late)):
        assert call.agent is not None
        assert call.dialed is not None
        agent, dialed = replace(call.agent, recorded=True), replace(call.dialed, recorded=True)
        calls.append(
            replace(call, agent=agent, dialed=dialed, other_legs=tuple(replace(leg, recorded=True) for leg in call.other_legs))
        )
    first, second = calls
    assert first.dialed is not None
    assert [leg.call_id for leg in second.other_legs] == [first.dialed.call_id], "it is nobody's side now"
    return first, second


def test_a_recording_that_was_not_wanted_is_fetched_when_its_leg_turns_out_to_be_no_side() -> None:
    first, second = _with_a_second_dialed_leg()
    assert [(job.leg, job.fetch) for job in recording_jobs(first, {}, ["agent"])] == [("agent", True), ("dialed", False)]
    told = summary(first, "", ["agent"])
    jobs = recording_jobs(second, {}, ["agent"], told)
    assert [(job.leg, job.fetch) for job in jobs] == [("agent", False), ("dialed", False), ("other", True)]
    jobs = recording_jobs(second, {}, ["agent"], summary(second, told, ["agent"]))
    assert [job.fetch for job in jobs] == [False, False, False]


def test_a_recording_is_fetched_that_is_wanted_only_since_the_last_revision() -> None:
    first, _ = _with_a_second_dialed_leg()
    jobs = recording_jobs(first, {}, ["agent", "dialed"], summary(first, "", ["agent"]))
    assert [(job.leg, job.fetch) for job in jobs] == [("agent", False), ("dialed", True)]


def _before_an_upgrade(summed_up: str) -> str:
    told = orjson.loads(summed_up)
    del told["asked"]
    return orjson.dumps(told, option=orjson.OPT_SORT_KEYS).decode()


def test_a_summary_that_does_not_tell_what_was_asked_for_amends_nothing_and_loses_no_recording() -> None:
    first, second = _with_a_second_dialed_leg()
    written = _before_an_upgrade(summary(first))
    assert not amends(written, summary(first, written, ["agent"]))
    assert not amends(summary(first, "", ["agent"]), summary(first, "", ["agent", "dialed"]))
    jobs = recording_jobs(second, {}, ["agent"], written)
    assert [(job.leg, job.fetch) for job in jobs] == [("agent", False), ("dialed", False), ("other", True)]
    jobs = recording_jobs(second, {}, ["agent"], _before_an_upgrade(summary(second)))
    assert [job.fetch for job in jobs] == [False, False, False], "whose side it was cannot be told"


def test_a_summary_written_before_an_upgrade_tells_the_side_of_a_call_of_one_leg() -> None:
    call = fold(*ANSWERED)
    assert call.dialed is not None
    key = CallKey(KEY.source, CallRef(f"call-{call.dialed.call_id}"))
    one = replace(call, key=key, agent=replace(call.dialed, recorded=True), dialed=None)
    written = _before_an_upgrade(summary(one))
    assert [job.fetch for job in recording_jobs(one, {}, ["agent"], written)] == [False]
    assert [job.fetch for job in recording_jobs(one, {}, ["dialed"], written)] == [False], "not wanted"


def test_a_summary_written_before_an_upgrade_reads_as_it_did() -> None:
    written = (
        '{"complete":true,"filed_at":"2026-11-23T07:44:00.000000Z",'
        '"legs":{"API/1":["ended","g with URL"],"Outgoing/2":["ended",""]},"outcome":"answered","talk_seconds":30.0}'
    )
    call = fold(*ANSWERED)
    assert call.agent is not None
    call = replace(call, agent=replace(call.agent, recorded=True, guid="g", recording_url="https://pbx/"))
    assert not amends(written, summary(call, written))
    assert [job.fetch for job in recording_jobs(call, {}, ["agent"], written)] == [False, False]


def test_a_summary_written_before_an_upgrade_leaves_the_files_of_its_recordings_where_they_are() -> None:
    written = (
        '{"complete":true,"filed_at":"2026-11-23T07:44:00.000000Z",'
        '"legs":{"API/1":["ended","1"],"Outgoing/2":["ended","g with URL"]},"outcome":"answered","talk_seconds":30.0}'
    )
    call = fold(*ANSWERED)
    assert call.agent is not None
    assert call.dialed is not None
    call = replace(call, agent=replace(call.agent, recorded=True, guid="g"), dialed=replace(call.dialed, recorded=True, guid="g"))
    assert [(job.leg, job.name) for job in recording_jobs(call, {}, ["agent"], written)] == [("agent", "g.1"), ("dialed", "g")]
    assert orjson.loads(summary(call, written))["guids"] == {"g": "2"}


def test_a_revision_that_starts_on_another_day_leaves_the_recordings_where_they_are_filed() -> None:
    call = fold(*ANSWERED)
    other = replace(call, started_at="2026-11-22T23:59:59.000000Z")
    assert not amends(summary(call), summary(other))
    assert {job.started_at for job in recording_jobs(other, {}, ["agent"], summary(call))} == {call.started_at}
    assert summary(other, summary(call)) == summary(call)


def test_timestamps_that_cannot_be_true_are_kept_apart_and_the_others_count() -> None:
    adapter = parse_link(SAMPLE_LINK + "&s={{StartTimestampUTC}}&p={{PickupTimestampUTC}}&e={{EndTimestampUTC}}")
    query = "CallType=API&CallID=1&Event=hangup&RequestID=513&s=1795419840000&p=0&e=99999999999999"
    told = dict(facts_of(CallbackEvent(KEY.source, at(0), query), adapter)[1])
    assert sorted(name for name in told if "ignored" in name) == [
        "leg:API:1:ignored.hangup.EndTimestampUTC.not_a_time",
        "leg:API:1:ignored.hangup.PickupTimestampUTC.not_a_time",
    ]
    assert [name for name in told if ":at." in name] == ["leg:API:1:at.start"]
    query = "CallType=API&CallID=1&Event=hangup&RequestID=513&s=1795419840000&e=1795419830000"
    told = dict(facts_of(CallbackEvent(KEY.source, at(0), query), adapter)[1])
    ended_before_it_started = ["leg:API:1:ignored.hangup.EndTimestampUTC.contradicts"]
    assert [name for name in told if "ignored" in name] == ended_before_it_started


@pytest.mark.parametrize(
    ("told", "ignored"),
    [
        ({"start": 0, "pickup": 2, "end": 30}, ()),
        ({"start": 0, "end": -500}, ("end",)),  # ended before it started
        ({"end": -7170}, ()),  # the only timestamp, of a clock two hours slow
        ({"start": 0, "pickup": -600, "end": 30}, ("pickup",)),
        ({"start": 200}, ("start",)),  # of a clock that is fast: picked up before it started
        ({"start": -7200, "pickup": -7197, "end": -7170}, ()),  # a slow clock that agrees with itself
        ({"pickup": 90}, ()),  # of a clock that is fast
        ({"start": 80, "pickup": 90}, ()),
    ],
)
def test_timestamps_that_contradict_the_leg_s_other_times_are_ignored(told: dict[str, int], ignored: tuple[str, ...]) -> None:
    """Each told in a callback of its own."""
    facts = {"leg:Incoming:1:pickup": at(3), "leg:Incoming:1:hangup": at(30)}
    facts |= {f"leg:Incoming:1:at.{what}": at(seconds) for what, seconds in told.items()}
    call = derive(CallKey(KEY.source, CallRef("call-1")), facts, POLICY)
    assert [leg.ignored for leg in call.legs] == [ignored]
    assert call.ended_at is not None
    assert call.answered_at is not None
    assert call.started_at <= call.answered_at <= call.ended_at
    assert call.talk_seconds is not None
    assert 27 <= call.talk_seconds <= 28


def test_a_pickup_received_after_the_hangup_was_no_later_and_no_seconds_are_counted_from_it() -> None:
    call = fold("0 agent pickup", "33 dialed hangup", "34 agent hangup", "40 dialed pickup")
    assert call.closing is not None
    assert call.dialed is not None
    assert (call.closing.outcome, call.dialed.state) == (Outcome.ANSWERED, LegState.ENDED)
    assert (call.dialed.picked_up_at, call.dialed.hung_up_at) == (at(33), at(33))
    assert (call.answered_at, call.ended_at, call.ring_seconds, call.talk_seconds) == (at(33), at(34), None, None)


@pytest.mark.parametrize(
    ("told", "picked_up_s", "hung_up_s", "talk_s"),
    [
        ({}, 34, 34, None),
        ({"pickup": 2}, 2, 34, None),  # by another clock than the hangup, and its callback was held up
        ({"pickup": 2, "end": 33}, 2, 33, 31),
        ({"end": 33}, 33, 33, None),  # the late pickup does not contradict it
    ],
)
def test_timestamps_tell_more_of_a_pickup_received_after_the_hangup(
    told: dict[str, int], picked_up_s: float, hung_up_s: float, talk_s: float | None
) -> None:
    facts = {"leg:Incoming:1:start": at(0), "leg:Incoming:1:hangup": at(34), "leg:Incoming:1:pickup": at(40)}
    facts |= {f"leg:Incoming:1:at.{what}": at(seconds) for what, seconds in told.items()}
    call = derive(CallKey(KEY.source, CallRef("call-1")), facts, POLICY)
    (leg,) = call.legs
    assert (leg.picked_up_at, leg.hung_up_at, leg.ignored) == (at(picked_up_s), at(hung_up_s), ())
    # The start was received 1 s before the time that the PBX, with its hangup, shows for it.
    assert (call.talk_seconds, call.ring_seconds) == (talk_s, None if talk_s is None else picked_up_s + 1)


def test_a_leg_that_is_first_heard_of_at_its_end_did_not_end_before() -> None:
    """A PBX that sends its own time of the end alone: it is a little before the receipt, or its clock is slow."""
    for told in (-0.2, -240):
        call = derive(KEY, {CLOCK: at(0), "leg:API:1:missed": at(0), "leg:API:1:at.end": at(told)}, POLICY)
        assert call.agent is not None
        assert (call.agent.missed_at, call.agent.ignored) == (at(told), ())
        assert (call.started_at, call.ended_at) == (at(told), at(told))


def test_a_call_of_which_only_the_time_is_known_waits_for_nothing() -> None:
    for facts in ({CLOCK: at(400_000)}, {}):
        call = derive(KEY, facts, POLICY)
        assert (call.closing, call.wake_at, call.legs) == (None, None, ())


def test_a_published_record_is_summed_up_as_it_was_when_it_was_published() -> None:
    """Its dial request too: a rebuild would else amend every call that was dialed."""
    facts = {CLOCK: at(34)}
    for line in ANSWERED:
        offset, leg, event = line.split()
        facts[f"leg:{LEGS[leg]}:{event}"] = at(float(offset))
    fields = {"agent": "1001", "number": "+45", "queue_prefix": "", "reference": "crm-42", "metadata.k": "v", "extra": "x"}
    _, told = facts_of(DialEvent(KEY.source, at(0), 513, fields), parse_link(SAMPLE_LINK))
    for dialed in ({}, dict(told)):
        call = derive(KEY, facts | dialed, POLICY)
        record = call_record(call, 1)
        read_back = published_summary(orjson.loads(orjson.dumps(record)), call.started_at, facts | dialed, call)
        assert read_back == summary(call)
