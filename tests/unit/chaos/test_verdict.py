"""The auditor objects to every kind of violation: a log of a run without one is clean, and each single change is seen."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import orjson
import pytest

from tests.chaos.audit.evidence import Evidence, Fault, Published, Received, Sent, Served
from tests.chaos.audit.model import read_callback
from tests.chaos.audit.verdict import Verdict, judge

GUIDS = {"1": "aaaaaaaa-0000-0000-0000-000000000001", "2": "aaaaaaaa-0000-0000-0000-000000000002"}
RECORDING = Served("ab" * 32, 1000)
PATH = f"acme/monitor/2026-UTC/11/23/{GUIDS['2']}.wav"


def _sent(kind: str, call_id: str, event: str, at: float, **more: str) -> Sent:
    values = {"CallType": kind, "CallID": call_id, "Event": event, "RequestID": "513", "Guid": GUIDS[call_id], **more}
    return Sent("acme", read_callback(urlencode(values)), at, answered=at + 0.01, status=200)


def _leg(kind: str, call_id: str, state: str = "ended", *, recorded: bool = False) -> dict[str, Any]:
    return {"call_type": kind, "call_id": call_id, "guid": GUIDS[call_id], "state": state, "recorded": recorded}


def _event(at: float, revision: int = 1, **changed: Any) -> Published:  # noqa: ANN401
    data: dict[str, Any] = {
        "source": "acme",
        "request_id": 513,
        "revision": revision,
        "outcome": "answered",
        "complete": True,
        "close_reason": "hangup",
        "talk_seconds": 8.0,
        "agent": _leg("API", "1"),
        "dialed": _leg("Outgoing", "2", recorded=True),
        "other_legs": [],
    }
    kind = "completed" if revision == 1 else "amended"
    event = {"id": f"acme/513/{revision}", "subject": "513", "type": f"callfold.call.{kind}.v1", "data": data | changed}
    return Published(at, orjson.dumps(event).decode(), event)


def _stored(at: float, **changed: Any) -> Published:  # noqa: ANN401
    data = {"source": "acme", "guid": GUIDS["2"], "sha256": RECORDING.sha256, "bytes": RECORDING.size, **changed}
    event_id = f"acme/513/recording/{GUIDS['2']}/stored"
    event = {"id": event_id, "subject": "513", "type": "callfold.recording.stored.v1", "data": data}
    return Published(at, orjson.dumps(event).decode(), event)


def _received(published: Published) -> Received:
    event = published.event
    checksum = hashlib.sha256(published.body.encode()).hexdigest()
    return Received(event["id"], checksum, event["subject"], event["data"].get("revision"))


def _subscribed(*received: Received, name: str = "crm") -> Callable[[Evidence], object]:
    return lambda evidence: evidence.received.update({name: list(received)})


def _clean() -> Evidence:
    """A run of one answered call with a recording, of which all was published as it must be."""
    sent = [
        _sent("API", "1", "pickup", 100),
        _sent("Outgoing", "2", "pickup", 102, PickupTimestampUTC="2000"),
        _sent("Outgoing", "2", "hangup", 110, PickupTimestampUTC="2000", EndTimestampUTC="10000", IsCallRecorded="1"),
        _sent("API", "1", "hangup", 110.5, EndTimestampUTC="10500"),
    ]
    return Evidence(
        sent=sent,
        published=[_event(111), _stored(112)],
        served={GUIDS["2"]: RECORDING},
        archived={PATH: (RECORDING.sha256, RECORDING.size)},
        left={"callbacks.fold": 0},
        faults=[Fault("kill:worker", "worker-1", 103, 104, 105)],
    )


def _verdict(change: Callable[[Evidence], object]) -> Verdict:
    evidence = _clean()
    change(evidence)
    return judge(evidence)


def test_a_clean_run_is_clean() -> None:
    verdict = judge(_clean())
    assert verdict.violations == {}
    assert verdict.figures["accepted_outside_faults"] == 1
    assert verdict.figures["recovery_max_s"] == 1


def _publish(*events: Published) -> Callable[[Evidence], object]:
    return lambda evidence: setattr(evidence, "published", [*events, _stored(112)])


def _drop_events(evidence: Evidence) -> None:
    evidence.published = []


def _change_answer(number: int, status: int | None) -> Callable[[Evidence], object]:
    return lambda evidence: setattr(evidence.sent[number], "status", status)


NO_FAR_HANGUP: dict[str, Any] = {
    "complete": False,
    "close_reason": "timeout",
    "talk_seconds": None,
    "dialed": _leg("Outgoing", "2", "talking"),
}
VIOLATIONS: dict[str, tuple[str, Callable[[Evidence], object]]] = {
    "a call without an event": ("lost", _drop_events),
    "a callback that is missing in the record": ("lost", _publish(_event(200, **NO_FAR_HANGUP))),
    "a wrong outcome": ("wrong", _publish(_event(111, outcome="dialed_missed"))),
    "a wrong state of a leg": ("wrong", _publish(_event(111, agent=_leg("API", "1", "missed")))),
    "a leg that never was": ("wrong", _publish(_event(111, other_legs=[_leg("API", "2")]))),
    "another talk time": ("wrong", _publish(_event(111, talk_seconds=80.0))),
    "a missing revision": ("wrong", _publish(_event(111, 2))),
    "an earlier revision that follows from nothing": (
        "wrong",
        _publish(_event(111, outcome="dialed_missed"), _event(112, 2)),
    ),
    "a call that was closed too early": (
        "early",
        _publish(_event(200, **NO_FAR_HANGUP), _event(201, 2)),
    ),
    "a second body of one id": ("bodies", _publish(_event(111), _event(112, talk_seconds=8.001))),
    "a call of which nothing was sent": (
        "spurious",
        lambda evidence: evidence.published.append(
            Published(113, "{}", {"id": "acme/9/1", "subject": "9", "type": "x", "data": {"source": "acme"}})
        ),
    ),
    "a second use of the call's id": (
        "spurious",
        lambda evidence: evidence.published.append(
            Published(113, "{}", {"id": "acme/513.2/1", "subject": "513.2", "type": "x", "data": {"source": "acme"}})
        ),
    ),
    "a recording that is not in the archive": ("recordings", lambda evidence: evidence.archived.clear()),
    "a recording with other bytes": ("recordings", lambda evidence: evidence.archived.update({PATH: ("cd" * 32, 1000)})),
    "a recording that was cut off": ("recordings", lambda evidence: evidence.archived.update({PATH: ("ab" * 32, 999)})),
    "a recording that was never published": ("recordings", lambda evidence: evidence.published.pop()),
    "a recording published with another checksum": (
        "recordings",
        lambda evidence: setattr(evidence, "published", [_event(111), _stored(112, sha256="cd" * 32)]),
    ),
    "a file that no PBX served": (
        "spurious",
        lambda evidence: evidence.archived.update({"acme/monitor/x.wav": ("cd" * 32, 10)}),
    ),
    "a dead letter": ("dead", lambda evidence: evidence.dead.append({"queue": "callbacks.dead", "reason": "x", "body": "y"})),
    "a message that is left": ("left", lambda evidence: evidence.left.update({"recordings": 1})),
    "callbacks refused without a fault": ("service", _change_answer(0, 503)),
    "no callback outside faults": (
        "service",
        lambda evidence: setattr(evidence, "faults", [Fault("kill:redis", "redis", 0, 500, 501)]),
    ),
    "an event that a subscriber lacks": ("subscribers", _subscribed(_received(_event(111)))),
    "a subscriber that received nothing": ("subscribers", _subscribed()),
    "other bytes at a subscriber": (
        "subscribers",
        _subscribed(_received(_event(111, talk_seconds=8.001)), _received(_stored(112))),
    ),
    "other bytes at the second delivery": (
        "subscribers",
        _subscribed(_received(_event(111)), _received(_event(111, talk_seconds=8.001)), _received(_stored(112))),
    ),
    "an event that was never published": (
        "subscribers",
        _subscribed(_received(_event(111)), _received(_event(112, 2)), _received(_stored(112))),
    ),
    "a fault without recovery": (
        "service",
        lambda evidence: evidence.faults.append(Fault("kill:redis", "redis", 103, 104, None)),
    ),
}


@pytest.mark.parametrize("name", VIOLATIONS)
def test_the_auditor_objects(name: str) -> None:
    kind, change = VIOLATIONS[name]
    violations = _verdict(change).violations
    assert violations[kind], violations


@pytest.mark.parametrize("name", ["crm", "crm-ordered"])
def test_a_subscriber_may_receive_an_event_twice_but_an_ordered_one_no_lower_revision_first(name: str) -> None:
    first, second, stored = _event(111), _event(112, 2), _stored(113)

    def publish(evidence: Evidence) -> None:
        evidence.published = [first, second, stored]

    def violations(*received: Published) -> list[str]:
        evidence = _clean()
        publish(evidence)
        _subscribed(*map(_received, received), name=name)(evidence)
        return judge(evidence).violations["subscribers"]

    assert violations(first, first, second, first, stored) == []
    assert bool(violations(second, first, stored)) is name.endswith("ordered")


def test_a_callback_without_an_answer_may_be_in_the_record_or_not() -> None:
    def unanswered(evidence: Evidence) -> None:
        evidence.sent[2] = replace(evidence.sent[2], answered=103, status=None, sent=103.5)

    assert not _verdict(unanswered).violations

    def unanswered_and_unknown(evidence: Evidence) -> None:
        unanswered(evidence)
        evidence.published = [_event(200, **NO_FAR_HANGUP)]
        evidence.archived.clear()

    assert not _verdict(unanswered_and_unknown).violations


@pytest.mark.parametrize(
    ("held_up", "is_compared"), [((), True), ((1,), True), ((1, 3), False), ((2, 3), False), ((1, 2, 3), True)]
)
def test_a_talk_time_is_not_compared_if_two_callbacks_came_much_later_than_a_third(
    held_up: tuple[int, ...], *, is_compared: bool
) -> None:
    def late(evidence: Evidence) -> None:
        for number in held_up:
            one = evidence.sent[number]
            evidence.sent[number] = replace(one, sent=one.sent + 6, answered=one.sent + 6.01)
        evidence.published = [_event(120, talk_seconds=None), _stored(121)]

    verdict = _verdict(late)
    assert bool(verdict.violations) is is_compared
    assert verdict.figures["talk_not_compared"] == (not is_compared)


def test_an_early_end_is_excused_by_a_fault_that_hid_a_spool_and_by_no_other() -> None:
    def early(kind: str) -> Callable[[Evidence], object]:
        def change(evidence: Evidence) -> None:
            evidence.published = [_event(200, **NO_FAR_HANGUP), _event(201, 2), _stored(202)]
            evidence.faults = [Fault(kind, "ingress-1", 103, 104, 105)]

        return change

    assert not _verdict(early("stall:ingress-rabbitmq")).violations
    assert _verdict(early("kill:worker")).violations["early"]


def test_an_event_that_is_published_twice_with_one_body_is_no_violation() -> None:
    assert not _verdict(lambda evidence: evidence.published.append(deepcopy(evidence.published[0]))).violations


def test_the_longest_silence_counts_refusals_as_silence() -> None:
    evidence = _clean()
    for number, one in enumerate(evidence.sent):
        one.sent, one.answered = 100 + number, 100.1 + number
    evidence.sent[1].status = 503
    evidence.sent[2].status = None
    assert round(judge(evidence).figures["longest_silence_s"], 3) == 2.1
