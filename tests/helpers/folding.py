"""A call's history played through the pure core, as the worker plays it: facts merged, derived, published when due."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from shared.domain.adapter_link import Adapter
from shared.domain.annotation import BODY, AnnotationType, annotation_id, body_text
from shared.domain.call import Call, derive
from shared.domain.closing import Policy
from shared.domain.facts import Fact, facts_of
from shared.domain.ids import CallKey, CallRef, SourceName
from shared.domain.raw_event import AnnotationEvent, CallbackEvent, TimerEvent
from shared.domain.revision_summary import amends, summary
from shared.domain.times import rfc3339
from tests.helpers.servers import POLICY

SOURCE = SourceName("acme")
T0 = datetime(2026, 11, 23, 7, 44, tzinfo=UTC)
PLACEHOLDERS = {
    "CallType": "CallTypeName",
    "Event": "DialApiEventName",
    "CallID": "CallID",
    "RequestID": "DialApiRequestID",
    "IsCallRecorded": "IsCallRecorded",
    "Guid": "CallUUID",
    "IsCallAnswered": "IsCallAnswered",
    "TotalWaitTimeMs": "TotalWaitTimeMs",
    "Start": "StartTimestampUTC",
    "Pickup": "PickupTimestampUTC",
    "End": "EndTimestampUTC",
    "CallerID": "CallerID",
    "DID": "DID",
    "ResponderAgentExt": "ResponderAgentExt",
    "ResponderAgent": "ResponderAgent",
    "ResponderUserID": "ResponderUserID",
    "ResponderUserName": "ResponderUserName",
    "LastQueueName": "LastQueueName",
}
ADAPTER = Adapter(PLACEHOLDERS)


def at(seconds: float) -> str:
    return rfc3339(T0 + timedelta(seconds=seconds))


def callback(seconds: float, query: str) -> CallbackEvent:
    return CallbackEvent(SOURCE, at(seconds), query)


def timer(seconds: float, call: str = "513") -> TimerEvent:
    return TimerEvent(SOURCE, at(seconds), CallRef(call))


def annotation(seconds: float, key: str, text: str, call: str = "513") -> AnnotationEvent:
    """Return a note that was sent under a key."""
    name = annotation_id(SOURCE, call, key)
    return AnnotationEvent(SOURCE, at(seconds), CallRef(call), name, AnnotationType.NOTE, "kasper", body_text({"text": text}))


def seconds_of(time: str) -> float:
    return (datetime.fromisoformat(time) - T0).total_seconds()


@lru_cache(maxsize=1000)
def _facts_of(event: CallbackEvent | TimerEvent | AnnotationEvent) -> tuple[CallKey, list[Fact]]:
    return facts_of(event, ADAPTER)


@dataclass(slots=True)
class Published:
    """What the worker keeps in Redis of a call: its facts and what was published of it."""

    policy: Policy = POLICY
    facts: dict[str, str] = field(default_factory=dict)
    revision: int = 0
    summary: str = ""
    record_legs: Collection[str] = ()
    bodies: dict[str, str] = field(default_factory=dict)
    key: CallKey = CallKey(SOURCE, CallRef("513"))  # noqa: RUF009 - a tuple of strings

    def fold(self, events: Iterable[CallbackEvent | TimerEvent | AnnotationEvent]) -> Call | None:
        """Fold some events at once; returns the call where that publishes a revision."""
        for event in events:
            self.key, told = _facts_of(event)
            for name, value in told:
                if name.startswith(BODY):
                    self.bodies[name.removeprefix(BODY)] = value
                    continue
                best = max if name.startswith(">") else min
                self.facts[name] = best(self.facts.get(name, value), value)
        call = self.call()
        if call.closing is None:
            return None
        now = summary(call, self.summary, self.record_legs)
        if self.revision and not amends(self.summary, now):
            return None
        self.revision, self.summary = self.revision + 1, now
        return call

    def call(self) -> Call:
        return derive(self.key, self.facts, self.policy)
