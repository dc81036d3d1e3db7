"""The row of a call: the agent who talked, the far party's number, its type; and it is found by any of its legs."""

from __future__ import annotations

from typing import Any

import pytest

from console.call_query import CallQuery, CallRow, row_of
from console.commands.list_calls import _line
from console.commands.show import who
from shared.domain.call import Status
from shared.domain.leg_event import CallType
from shared.domain.parties import EndedBy
from tests.helpers.records import DIAL, SECOND_AGENT, SECOND_NUMBER, A, D, record

KASPER = "ResponderAgentExt=1001 ResponderAgent=Kasper"
IDA = "ResponderAgentExt=1002 ResponderAgent=Ida"


def row(*lines: str, dial: dict[str, str] | None = None, request_id: str = "513") -> CallRow:
    return row_of(record(*lines, dial=dial, request_id=request_id), request_id or "call-77", Status.COMPLETE)


def test_a_call_is_listed_with_who_talked_and_found_by_every_leg() -> None:
    lines = [f"{line} {KASPER if ' 1 ' in line else IDA}" for line in SECOND_AGENT if "Outgoing" not in line]
    lines += [f"{line} CallerID=0700" for line in SECOND_AGENT if "Outgoing" in line]
    listed = row(*lines, "2 Outgoing 9 missed CallerID=0800 DID=70101010", dial=DIAL)
    assert (listed.agent, listed.agent_name, listed.number, listed.call_type) == ("1002", "Ida", "0700", CallType.API)
    for agent in ("1001", "1002", "kas*", "IDA"):
        assert CallQuery(agent=agent).matches(listed), agent
    for number in ("0700", "0800", "70101010", "+4512345678"):
        assert CallQuery(number=number).matches(listed), number
    assert not CallQuery(agent="1003").matches(listed)


def test_the_dial_request_fills_in_for_one_leg_but_not_for_one_of_several() -> None:
    one_each = (f"0 {A} pickup", f"9 {D} pickup", f"30 {D} hangup", f"31 {A} hangup")
    assert (row(*one_each, dial=DIAL).agent, row(*one_each, dial=DIAL).number) == ("1001", "+4512345678")
    assert row(*one_each, dial=DIAL | {"agent": "Kasper"}).agent == "Kasper"
    assert row(f"0 {A} missed", dial=DIAL).number == "+4512345678", "it was to be dialed"
    assert row(*SECOND_AGENT, dial=DIAL).agent is None
    assert row(*SECOND_NUMBER, dial=DIAL).number is None
    assert CallQuery(agent="1001", number="+45*").matches(row(*SECOND_AGENT, dial=DIAL))


@pytest.mark.parametrize("kind", [kind for kind in CallType if kind is not CallType.API])
def test_a_call_is_found_by_its_type(kind: CallType) -> None:
    listed = row(f"0 {kind} 77 pickup CallerID=0700", f"9 {kind} 77 hangup", request_id="")
    assert listed.call_type is kind
    assert CallQuery.model_validate({"type": kind.lower()}).matches(listed)
    assert not CallQuery(type=CallType.API).matches(listed)


def test_a_record_of_the_first_release_is_listed_by_its_fields_and_dial_request() -> None:
    leg: dict[str, Any] = {"call_id": "1", "guid": None, "state": "ended", "recorded": False}
    old = {
        **{name: value for name, value in record(f"0 {A} missed").items() if name not in {"call_type", "queue", "ended_by"}},
        "agent": leg,
        "fields": {"ResponderAgent": "Kasper", "DID": "70101010"},
    }
    listed = row_of(old, "513", Status.COMPLETE)
    assert (listed.agent, listed.number, listed.call_type, listed.ended_by) == ("Kasper", "70101010", CallType.API, None)
    assert row_of({**old, "request_id": None}, "call-1", Status.COMPLETE).call_type is None


def test_the_command_line_names_type_agent_number_queue_and_who_hung_up() -> None:
    lines = [f"{line} {IDA} LastQueueName=Sales" for line in SECOND_AGENT]
    listed = row(*lines, dial=DIAL)
    assert who(listed) == "API, agent 1002 Ida, number +4512345678, queue Sales, ended by dialed"
    assert "ended by" not in who(listed.model_copy(update={"ended_by": EndedBy.UNKNOWN}))
    assert "API  " in _line(listed)
    assert who(row("0 Login 77 missed", request_id="")) == "Login"
