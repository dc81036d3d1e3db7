"""The revisions of a call and the recording jobs that they lead to."""

from __future__ import annotations

import random
from collections.abc import Collection

import orjson

from shared.domain.call_event import call_record
from shared.domain.ids import CallKey
from shared.domain.raw_event import CallbackEvent
from shared.domain.recording import RecordingJob
from shared.domain.recording_plan import recording_jobs
from shared.rebuild.published_calls import PublishedCall, add_revision
from tests.helpers.folding import Published, callback

SIDES = ("agent", "dialed")


class Revisions:
    """A call as it is published, revision by revision, and what a reader of the journal knows of it."""

    def __init__(self, record_legs: Collection[str] = SIDES) -> None:
        self.fold = Published(record_legs=record_legs)
        self.jobs: list[RecordingJob] = []
        self.records: list[dict[str, object]] = []

    def tell(self, *events: CallbackEvent) -> None:
        before = self.fold.summary
        call = self.fold.fold(events)
        if call is not None:
            self.records.append(orjson.loads(orjson.dumps(call_record(call, self.fold.revision))))
            self.jobs += recording_jobs(call, self.records[-1], self.fold.record_legs, before)

    def read_back(self, rng: random.Random) -> PublishedCall:
        found: dict[CallKey, PublishedCall] = {}
        for record in rng.sample(self.records, len(self.records)):
            add_revision(found, self.fold.key, record)
        return found[self.fold.key]


def line(seconds: float, call_type: str, call_id: str, event: str, more: str = "") -> CallbackEvent:
    return callback(seconds, f"CallType={call_type}&CallID={call_id}&Event={event}&RequestID=513{more}")
