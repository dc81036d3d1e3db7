"""What a call publishes: every job holds the record of its call, so a call of very many legs is refused before they are written."""

from __future__ import annotations

import tracemalloc

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


def test_a_call_of_thousands_of_legs_is_refused_before_it_fills_the_memory() -> None:
    call = _missed(2000)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="2000 legs"):
            write_outbox(call, 1, ["agent"])
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 64 << 20
