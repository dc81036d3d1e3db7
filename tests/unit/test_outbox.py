"""What a call publishes: every job holds the record of its call, so a call of very many legs is refused before they are written."""

from __future__ import annotations

import tracemalloc

import orjson
import pytest

from shared.domain.call import Call, derive
from shared.domain.facts import CLOCK
from shared.domain.ids import CallKey, CallRef, SourceName
from tests.helpers.servers import POLICY
from worker.folding.outbox import read_outbox, write_outbox

AT = "2026-11-23T07:44:00.000000Z"


def _missed(legs: int) -> Call:
    facts = {CLOCK: AT, "leg:API:1:missed": AT} | {f"leg:Outgoing:{2 + number}:missed": AT for number in range(legs - 1)}
    return derive(CallKey(SourceName("acme"), CallRef("513")), facts, POLICY)


def test_each_leg_has_a_job_behind_the_event() -> None:
    messages = read_outbox(write_outbox(_missed(3), 1, ["agent"]))
    assert [message.routing_key for message in messages] == ["call.completed.acme.dialed_missed", *["recordings"] * 3]


def test_a_call_of_hundreds_of_legs_is_refused_before_it_fills_the_memory() -> None:
    call = _missed(500)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="500 legs"):
            write_outbox(call, 1, ["agent"])
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 64 << 20


def test_a_call_with_as_many_legs_and_values_as_a_call_can_have_is_published() -> None:
    value = "x" * (4 << 10)
    facts = {CLOCK: AT, "leg:API:1:missed": AT}
    facts |= {f"leg:Outgoing:{2 + number}:missed": AT for number in range(63)}
    facts |= {f"leg:Outgoing:{2 + number}:f.missed.CallerID": f"{value}{number}" for number in range(63)}
    call = derive(CallKey(SourceName("acme"), CallRef("513")), facts, POLICY)
    event, *jobs = read_outbox(write_outbox(call, 1, ["agent"]))
    legs = [orjson.loads(event.body)["data"]["dialed"], *orjson.loads(event.body)["data"]["other_legs"]]
    assert sorted(int(leg["fields"]["CallerID"][len(value) :]) for leg in legs) == list(range(63))
    records = [orjson.loads(job.body)["record"] for job in jobs]
    assert [record["outcome"] for record in records] == ["dialed_missed"] * 64
    assert records[0]["other_legs"][0]["fields"] == {}, "the jobs have the record without its fields"
