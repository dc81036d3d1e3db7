"""Who talked, who they are, and who hung up first: the legs, people and ends of a record."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from tests.helpers.folding import at
from tests.helpers.records import DIAL, SECOND_AGENT, SECOND_NUMBER, A, B, D, E, record


def ids(data: dict[str, Any]) -> tuple[str | None, str | None, list[str]]:
    agent, dialed = ((data[side] or {}).get("call_id") for side in ("agent", "dialed"))
    return agent, dialed, [leg["call_id"] for leg in data["other_legs"]]


@pytest.mark.parametrize(
    ("lines", "named", "outcome"),
    [
        (SECOND_AGENT, ("2", "3", ["1"]), "answered"),
        (SECOND_NUMBER, ("1", "4", ["3"]), "answered"),
        # Of several that answered, the first.
        ((*SECOND_NUMBER, f"2 {D} pickup"), ("1", "3", ["4"]), "answered"),
        # If none answered, the first.
        ((f"0 {A} missed", f"5 {B} missed"), ("1", None, ["2"]), "agent_missed"),
        ((f"0 {A} pickup", f"4 {D} missed", f"6 {E} missed", f"9 {A} hangup"), ("1", "3", ["4"]), "dialed_missed"),
        # The first agent's `missed` was lost, and the second one's pickup.
        ((f"0 {A} hangup", *SECOND_AGENT[2:]), ("2", "3", ["1"]), "answered"),
        ((SECOND_AGENT[0], *SECOND_AGENT[3:]), ("2", "3", ["1"]), "answered"),
        # Legs of other types represent no side.
        ((*SECOND_AGENT, "2 Conference 7 pickup", "8 Conference 7 hangup"), ("2", "3", ["1", "7"]), "answered"),
    ],
)
def test_the_legs_that_answered_represent_their_sides(
    lines: tuple[str, ...], named: tuple[str, str | None, list[str]], outcome: str
) -> None:
    data = record(*lines)
    assert (ids(data), data["outcome"], data["complete"]) == (named, outcome, True)


TOOK_OVER = (f"5 {A} pickup", f"20 {A} hangup", f"21 {B} pickup", f"30 {D} pickup", f"60 {D} hangup", f"61 {B} hangup")


def test_the_agent_is_the_one_who_was_there_when_the_dialed_party_picked_up() -> None:
    for order in itertools.permutations(TOOK_OVER):
        data = record(*order)
        assert (ids(data), data["ring_seconds"], data["dialed"]["ring_seconds"]) == (("2", "3", ["1"]), 9, 9)
        assert (data["talk_seconds"], data["ended_by"]) == (30, "dialed")


@pytest.mark.parametrize(
    ("lines", "agent", "rang_s"),
    [
        # The first one hung up while the phone rang. The dialed party missed the call, or the second agent gave up.
        ((*TOOK_OVER[:3], f"40 {D} missed", f"41 {B} hangup"), "2", 19),
        ((*TOOK_OVER[:3], f"39 {B} hangup", f"41 {D} missed"), "2", 20),
        # Both were there, or the order of two receipts says nothing: the first.
        ((f"5 {A} pickup", f"6 {B} pickup", f"30 {D} pickup", f"60 {D} hangup", f"61 {B} hangup", f"62 {A} hangup"), "1", 25),
        ((f"5 {A} pickup", f"29.5 {A} hangup", *TOOK_OVER[2:]), "1", 25),
        # The first one picked up when the other two talked already.
        ((f"1 {A} start", f"5 {B} pickup", *TOOK_OVER[3:5], f"40 {A} pickup", f"61 {A} hangup", f"62 {B} hangup"), "2", 25),
        # The hangup of the first one was lost.
        ((TOOK_OVER[0], *TOOK_OVER[2:]), "1", 25),
    ],
)
def test_of_several_agents_who_answered_the_one_of_the_conversation_is_named(
    lines: tuple[str, ...], agent: str, rang_s: float
) -> None:
    data = record(*lines)
    assert (data["agent"]["call_id"], data["dialed"]["ring_seconds"]) == (agent, rang_s)


def test_by_the_clock_of_the_pbx_an_agent_was_over_whatever_the_receipts_say() -> None:
    lines = (
        f"5 {A} pickup",
        f"35 {A} hangup {stamp('Pickup', 5)} {stamp('End', 20)}",
        f"21 {B} pickup {stamp('Pickup', 21)}",
        f"30 {D} pickup {stamp('Pickup', 30)}",
        f"60 {D} hangup",
        f"61 {B} hangup",
    )
    data = record(*lines)
    assert (ids(data), data["ring_seconds"]) == (("2", "3", ["1"]), 9)


def test_each_first_phone_rings_from_the_agent_who_waited_for_it() -> None:
    data = record(
        f"0 {A} pickup", f"9 {D} missed", f"10 {A} hangup", f"12 {B} pickup", f"20 {E} pickup", f"40 {E} hangup", f"41 {B} hangup"
    )
    assert ids(data) == ("2", "4", ["1", "3"])
    assert [leg["ring_seconds"] for leg in (data["dialed"], *data["other_legs"])] == [None, None, 9]


def test_an_agent_who_hung_up_without_an_event_missed_the_call_if_another_one_answered() -> None:
    first = record(f"0 {A} hangup", *SECOND_AGENT[2:])["other_legs"][0]
    assert (first["state"], first["inferred"]) == ("missed", True)
    both_silent = record(f"0 {A} hangup", *SECOND_AGENT[3:])
    assert both_silent["agent"]["state"] == "ended", "somebody must have answered: the last one that was called"
    assert [leg["state"] for leg in both_silent["other_legs"]] == ["missed"]


def test_fields_are_those_of_the_legs_named_and_each_leg_has_its_own() -> None:
    names = ("CallerID=%2B451", "CallerID=%2B452", "CallerID=%2B453", "CallerID=%2B454")
    lines = [f"{line} {name}" for line, name in zip((f"0 {A} missed", *SECOND_AGENT[2:4], SECOND_AGENT[4]), names, strict=True)]
    data = record(*lines, SECOND_AGENT[5])
    assert data["fields"] == {"CallerID": "+454"}
    legs = [data["agent"], data["dialed"], *data["other_legs"]]
    assert [leg["fields"] for leg in legs] == [{"CallerID": "+452"}, {"CallerID": "+454"}, {"CallerID": "+451"}]
    only_agents = record(f"0 {A} missed CallerID=1", f"5 {B} missed IsCallAnswered=0")
    assert only_agents["fields"] == {"CallerID": "1"}, "not those of other legs"


WHO = "ResponderAgentExt=1002 ResponderAgent=Kasper ResponderUserID=1234 LastQueueName=Sales"


def person(leg: dict[str, Any]) -> tuple[str | None, ...]:
    return tuple(leg[name] for name in ("extension", "name", "user_id", "number"))


def test_people_are_named_by_their_legs_else_by_the_dial_request() -> None:
    one_each = (f"0 {A} pickup", f"9 {D} pickup", f"30 {D} hangup", f"31 {A} hangup")
    data = record(*one_each)
    assert (person(data["agent"]), person(data["dialed"]), data["queue"]) == ((None,) * 4, (None,) * 4, None)
    data = record(*one_each, dial=DIAL)
    assert (person(data["agent"]), person(data["dialed"])) == (("1001", *3 * (None,)), (*3 * (None,), "+4512345678"))
    data = record(*(f"{line} {WHO} CallerID=0700 DID=70101010" for line in one_each), dial=DIAL)
    assert person(data["agent"]) == ("1002", "Kasper", "1234", None)
    assert person(data["dialed"]) == (None, None, None, "+4512345678")
    assert data["queue"] == "Sales"
    assert record(*one_each, dial={"agent": "Kasper", "number": "112"})["agent"]["extension"] is None, "no extension"


def test_the_dialed_leg_names_the_agent_who_dials() -> None:
    silent = (f"0 {A} pickup", f"9 {D} pickup {WHO}", f"30 {D} hangup", f"31 {A} hangup")
    data = record(*silent)
    assert (person(data["agent"]), person(data["dialed"])) == (("1002", "Kasper", "1234", None), (None,) * 4)
    assert person(record(*silent, dial=DIAL)["agent"]) == ("1001", None, None, None), "who dials is another one"
    assert person(record(*silent, dial=DIAL | {"agent": "1002"})["agent"])[:2] == ("1002", "Kasper")
    named = record(f"0 {A} pickup ResponderAgent=Ida", *silent[1:])
    assert person(named["agent"]) == (None, "Ida", None, None), "values of one person"
    missed = record(f"0 {A} missed", f"5 {B} pickup", *silent[1:3], f"31 {B} hangup")
    assert (person(missed["agent"])[1], person(missed["other_legs"][0])[1]) == ("Kasper", None)


def test_the_dial_request_names_no_one_of_several() -> None:
    data = record(*SECOND_AGENT, dial=DIAL)
    assert [data["agent"]["extension"], data["other_legs"][0]["extension"]] == [None, None]
    data = record(*SECOND_NUMBER, f"30 {E} hangup CallerID=0700", dial=DIAL)
    assert [data["dialed"]["number"], data["other_legs"][0]["number"]] == ["0700", None]


@pytest.mark.parametrize(
    ("call_type", "number"),
    [("Incoming", "0700"), ("Outgoing", "0700"), ("Internal", "0700"), ("Login", None), ("Conference", None)],
)
def test_the_far_party_of_a_call_of_one_leg_depends_on_its_type(call_type: str, number: str | None) -> None:
    lines = [f"{seconds} {call_type} 77 {event} {WHO}" for seconds, event in ((0, "pickup"), (9, "hangup"))]
    data = record(*(f"{line} CallerID=0700 DID=70101010" for line in lines), request_id="")
    assert (data["call_type"], data["agent"]["call_type"]) == (call_type, call_type)
    assert person(data["agent"]) == ("1002", "Kasper", "1234", number)
    assert data["dialed"] is None
    line_alone = record(*(f"{line} DID=70101010" for line in lines), request_id="")
    assert line_alone["agent"]["number"] == ("70101010" if call_type == "Outgoing" else None)


def test_what_is_too_long_for_a_name_is_only_in_the_fields() -> None:
    data = record(f"0 {A} missed ResponderAgent={'x' * 257}")
    assert (data["agent"]["name"], len(data["agent"]["fields"]["ResponderAgent"])) == (None, 257)


@pytest.mark.parametrize(
    ("ends", "first"),
    [
        (("31 agent", "30 dialed"), "dialed"),
        (("29 agent", "30 dialed"), "agent"),
        (("30.5 agent", "30 dialed"), "unknown"),
        (("31 agent 30", "30 dialed 30.001"), "agent"),  # by the PBX's clock, whatever the receipts
        (("31 agent 30", "30 dialed 30"), "dialed"),  # by the receipts
        (("31 agent 30", "30 dialed"), "dialed"),  # one clock for both
        (("30.5 agent 20", "30 dialed"), "unknown"),
        (("30 dialed",), "unknown"),  # the agent's hangup was lost
    ],
)
def test_the_first_hangup_tells_who_ended_the_call(ends: tuple[str, ...], first: str) -> None:
    lines = [f"0 {A} pickup", f"9 {D} pickup"]
    for end in ends:
        seconds, side, *stamp = end.split()
        stamps = [f"End={round(1795419840000 + float(text) * 1000)}" for text in stamp]
        lines.append(" ".join([seconds, A if side == "agent" else D, "hangup", *stamps]))
    for order in itertools.permutations(lines):
        assert record(*order)["ended_by"] == first


def test_who_ended_a_call_is_null_without_a_conversation_and_unknown_with_one_leg() -> None:
    assert record(f"0 {A} missed")["ended_by"] is None
    assert record(f"0 {A} pickup", f"9 {D} missed", f"12 {A} hangup")["ended_by"] is None
    assert record(f"0 {A} pickup", f"9 {D} pickup", f"20 {D} hangup", until=21)["ended_by"] is None, "still open"
    assert record("0 Incoming 77 pickup", "9 Incoming 77 hangup", request_id="")["ended_by"] == "unknown"
    assert record("0 Incoming 77 missed", request_id="")["ended_by"] is None
    # A side ends with the last of its legs that talked.
    transfer = (f"12 {E} pickup", f"40 {E} hangup")
    lines = (f"0 {A} pickup", f"9 {D} pickup", f"20 {D} hangup", f"30 {A} hangup")
    assert (record(*lines)["ended_by"], record(*lines, *transfer)["ended_by"]) == ("dialed", "agent")


def stamp(name: str, seconds: float, ahead: float = 30) -> str:
    """Write a timestamp of a PBX whose clock is ahead."""
    return f"{name}={round(1795419840000 + (seconds + ahead) * 1000)}"


def test_how_long_a_leg_rang_is_measured_by_one_clock() -> None:
    missed = record(f"10.2 Incoming 77 missed {stamp('Start', 0)} {stamp('End', 10)}", request_id="")
    assert (missed["agent"]["started_at"], missed["agent"]["ring_seconds"]) == (at(30), 10)
    assert missed["ring_seconds"] == 10
    by_receipt = record("0 Incoming 77 start", f"10 Incoming 77 missed {stamp('End', 10)}", request_id="")
    assert (by_receipt["agent"]["started_at"], by_receipt["agent"]["ring_seconds"]) == (at(30), 10), "on the axis of the PBX"
    unknown = record(f"10 Incoming 77 missed {stamp('Start', 0)}", request_id="")
    assert unknown["agent"]["ring_seconds"] is None
    waited = record(f"10 Incoming 77 missed {stamp('Start', 0)} TotalWaitTimeMs=9500", request_id="")
    assert waited["agent"]["ring_seconds"] == 9.5
    pair = record(f"4 {A} missed {stamp('Start', 0)} {stamp('End', 4)}", f"9 {B} pickup {stamp('Start', 5)} {stamp('Pickup', 9)}")
    assert [leg["ring_seconds"] for leg in (pair["agent"], *pair["other_legs"])] == [4, 4]
    assert pair["ring_seconds"] is None, "no number was dialed"


def test_only_the_first_dialed_phone_rings_from_the_pickup_of_the_agent() -> None:
    data = record(*SECOND_NUMBER)
    assert [data["ring_seconds"], data["dialed"]["ring_seconds"], data["other_legs"][0]["ring_seconds"]] == [None, None, 9]
    assert record(f"0 {A} pickup", f"9 {D} missed", f"10 {A} hangup")["dialed"]["ring_seconds"] == 9
