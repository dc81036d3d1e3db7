"""What the auditor demands of a run. Every violation is a sentence that names the call, the event or the file."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tests.chaos.audit.evidence import Evidence, Fault, Published, Sent, Served
from tests.chaos.audit.figures import figures
from tests.chaos.audit.model import Callback, Record, read_record, record_of, subsets
from tests.chaos.audit.pace import PACE
from tests.chaos.audit.subscribers import check_subscribers

LEAST_ACCEPTED = 0.95
# Where the two clocks of a comparison are apart by less, or the way of a message takes as long, nothing is concluded.
_SLACK_S = 2.0 * PACE
# Two callbacks that arrive so much later than a third one, by their timestamps, look like a clock that was set during the call.
_HELD_UP, _HELD_UP_S = 2, 4.0
# A callback that one ingress alone holds, cut off from RabbitMQ, may be overtaken by timers: ARCHITECTURE.md, "Known limits".
_HIDES_A_SPOOL = (":ingress", ":rabbitmq", "alarm:", "disk:spool")


@dataclass(slots=True)
class Verdict:
    """Violations by kind, and the figures of the run."""

    violations: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    excused: list[str] = field(default_factory=list)
    """Calls that were closed early and amended, as the documented limits allow."""
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def is_clean(self) -> bool:
        return not any(self.violations.values())

    def object(self, kind: str, text: str) -> None:
        self.violations[kind].append(text)


@dataclass(slots=True)
class _Call:
    """One call: the callbacks that were answered 200 with the time of that, those that may have arrived, and its revisions."""

    certain: dict[Callback, float] = field(default_factory=dict)
    possible: set[Callback] = field(default_factory=set)
    revisions: dict[int, Published] = field(default_factory=dict)
    delays: dict[Callback, float] = field(default_factory=dict)
    """How long after its timestamp each callback was first answered, and a constant: the difference of the two clocks."""

    @property
    def is_clock_known(self) -> bool:
        delays = sorted(self.delays.values())
        return len(delays) <= _HELD_UP or delays[-_HELD_UP] - delays[0] < _HELD_UP_S

    def record(self, revision: int) -> Record:
        return replace(read_record(self.revisions[revision].event["data"]), is_clock_known=self.is_clock_known)


def judge(evidence: Evidence) -> Verdict:
    """Hold the evidence against the promises."""
    verdict = Verdict()
    calls = _calls(evidence.sent)
    _check_bodies(evidence.published, verdict)
    stored = _assign(evidence, calls, verdict)
    for (source, name), call in calls.items():
        _check_call(f"{source}/{name}", call, evidence.faults, verdict)
    _check_recordings(evidence, calls, stored, verdict)
    for problem in check_subscribers(evidence):
        verdict.object("subscribers", problem)
    for letter in evidence.dead:
        verdict.object("dead", f"dead letter in {letter['queue']}: {letter['reason']}: {str(letter['body'])[:300]}")
    for queue, count in evidence.left.items():
        if count:
            verdict.object("left", f"{count} messages are left in {queue}")
    verdict.figures = figures(evidence)
    verdict.figures["calls"] = len(calls)
    verdict.figures["received"] = {name: len(received) for name, received in evidence.received.items()}
    verdict.figures["outcomes"] = _outcomes(calls)
    verdict.figures["talk_not_compared"] = sum(not call.is_clock_known for call in calls.values())
    verdict.figures["amended_in_known_limits"] = len(verdict.excused)
    _check_service(verdict)
    return verdict


def _calls(sent: Iterable[Sent]) -> dict[tuple[str, str], _Call]:
    calls: dict[tuple[str, str], _Call] = {}
    for one in sent:
        call = calls.setdefault((one.source, one.callback.call), _Call())
        if one.is_accepted and one.answered is not None:
            call.certain[one.callback] = min(one.answered, call.certain.get(one.callback, one.answered))
        else:
            call.possible.add(one.callback)
        if one.callback.at_s:
            delay_s = (one.sent if one.answered is None else one.answered) - one.callback.at_s
            call.delays[one.callback] = min(delay_s, call.delays.get(one.callback, delay_s))
    return calls


def _check_bodies(published: Iterable[Published], verdict: Verdict) -> None:
    bodies: dict[str, str] = {}
    for one in published:
        if bodies.setdefault(one.event["id"], one.body) != one.body:
            verdict.object("bodies", f"event {one.event['id']} was published with two bodies")


def _assign(
    evidence: Evidence, calls: Mapping[tuple[str, str], _Call], verdict: Verdict
) -> dict[tuple[str, str], Mapping[str, Any]]:
    """Give each call its revisions; returns the recording events by call and GUID. An event of no call is spurious."""
    stored: dict[tuple[str, str], Mapping[str, Any]] = {}
    for one in evidence.published:
        event, data = one.event, one.event["data"]
        call = calls.get((data["source"], event["subject"]))
        if call is None:
            verdict.object("spurious", f"event {event['id']} is about a call of which no callback was sent")
        elif ".call." in event["type"]:
            call.revisions.setdefault(data["revision"], one)
        elif event["type"] == "callfold.recording.stored.v1":
            stored[data["source"], data["guid"]] = data
        else:
            verdict.object("recordings", f"event {event['id']} of type {event['type']}: {data.get('reason')}")
    return stored


def _check_call(name: str, call: _Call, faults: Iterable[Fault], verdict: Verdict) -> None:
    if not call.revisions:
        if call.certain:
            verdict.object("lost", f"call {name} has no event; {len(call.certain)} callbacks of it were answered 200")
        return
    numbers = sorted(call.revisions)
    if numbers != list(range(1, len(numbers) + 1)):
        verdict.object("wrong", f"call {name} has revisions {numbers}")
    _check_last(name, call, verdict)
    for number in numbers[:-1]:
        _check_earlier(name, number, call, verdict)
    for number in numbers:
        _check_early(name, number, call, faults, verdict)


def _check_last(name: str, call: _Call, verdict: Verdict) -> None:
    """Hold the last revision against all callbacks that were answered 200, and any of the others."""
    record = call.record(max(call.revisions))
    certain = frozenset(call.certain)
    if any(_explains(chosen, record) for chosen in subsets(certain, call.possible)):
        return
    expected = [record_of(chosen) for chosen in subsets(certain, call.possible)]
    if any(_explains(chosen, record) for chosen in subsets(frozenset(), certain | call.possible)):
        verdict.object("lost", f"call {name} lacks a callback that was answered 200: it is {record}, expected {expected}")
    else:
        verdict.object("wrong", f"call {name} is {record}, expected {expected}")


def _check_earlier(name: str, number: int, call: _Call, verdict: Verdict) -> None:
    """An earlier revision must follow from some of the callbacks."""
    record = call.record(number)
    if not any(_explains(chosen, record) for chosen in subsets(frozenset(), {*call.certain, *call.possible})):
        verdict.object("wrong", f"revision {number} of call {name} follows from none of its callbacks: {record}")


def _check_early(name: str, number: int, call: _Call, faults: Iterable[Fault], verdict: Verdict) -> None:
    """A record must know every callback that was answered 200 well before it was published."""
    one = call.revisions[number]
    known = frozenset(callback for callback, answered in call.certain.items() if answered < one.at - _SLACK_S)
    record = call.record(number)
    everything = {*call.certain, *call.possible}
    if any(_explains(chosen, record) for chosen in subsets(known, everything)):
        return
    if not any(_explains(chosen, record) for chosen in subsets(frozenset(), everything)):
        return  # it is wrong, which is worse
    since = min(call.certain.values())
    hidden = [fault.kind for fault in faults if _may_hide(fault) and fault.begin <= one.at and fault.until >= since]
    text = f"revision {number} of call {name} was published before {len(known)} accepted callbacks were all folded: {record}"
    if hidden:
        verdict.excused.append(f"{text} ({', '.join(hidden)})")
    else:
        verdict.object("early", text)


def _may_hide(fault: Fault) -> bool:
    return any(part in fault.kind for part in _HIDES_A_SPOOL)


def _explains(callbacks: frozenset[Callback], published: Any) -> bool:  # noqa: ANN401
    record = record_of(callbacks)
    return record is not None and record.explains(published)


def _check_recordings(
    evidence: Evidence,
    calls: Mapping[tuple[str, str], _Call],
    stored: Mapping[tuple[str, str], Mapping[str, Any]],
    verdict: Verdict,
) -> None:
    """Every leg that a last revision calls recorded is in the archive, whole; and nothing else is there."""
    paths = {path.rpartition("/")[2].removesuffix(".wav"): path for path in evidence.archived}
    for guid, path in paths.items():
        served = evidence.served.get(guid)
        if served is None:
            verdict.object("spurious", f"the archive holds {path}, which no PBX has served")
        elif evidence.archived[path] != (served.sha256, served.size):
            verdict.object("recordings", f"{path} in the archive differs from what the PBX served")
    for (source, name), call in calls.items():
        record = call.record(max(call.revisions)) if call.revisions else None
        for leg in (record.agent, record.dialed, *record.others) if record else ():
            if leg is not None and leg.recorded:
                if leg.guid not in paths:
                    verdict.object("recordings", f"the recording {leg.guid} of call {source}/{name} is not in the archive")
                _check_stored(leg.guid, stored.get((source, leg.guid)), evidence.served.get(leg.guid), verdict)


def _check_stored(guid: str, event: Mapping[str, Any] | None, served: Served | None, verdict: Verdict) -> None:
    if event is None:
        verdict.object("recordings", f"recording {guid} was never published as stored")
    elif served and (event["sha256"], event["bytes"]) != (served.sha256, served.size):
        verdict.object("recordings", f"the event of recording {guid} has another checksum than what the PBX served")


def _outcomes(calls: Mapping[tuple[str, str], _Call]) -> dict[str, int]:
    last = (call.revisions[max(call.revisions)].event["data"] for call in calls.values() if call.revisions)
    return dict(Counter(f"{data['outcome']}{'' if data['complete'] else ' (incomplete)'}" for data in last))


def _check_service(verdict: Verdict) -> None:
    """A system that answers nothing would lose nothing: it must have worked wherever there was no fault."""
    share, outside = verdict.figures["accepted_outside_faults"], verdict.figures["callbacks_outside_faults"]
    if not outside:
        verdict.object("service", "no callback was sent outside a fault: the run proves nothing")
    elif share < LEAST_ACCEPTED:
        verdict.object("service", f"only {share:.1%} of {outside} callbacks outside faults were answered 200")
    for fault in verdict.figures["not_recovered"]:
        verdict.object("service", f"not recovered within the limit: {fault}")
