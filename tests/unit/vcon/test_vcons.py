"""A vCon keeps to the drafts whatever the call was, and the record can be read back from it."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha512
from typing import Any
from uuid import UUID

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from console.vcon.document import encode, vcon_of
from console.vcon.published_call import LegRecordings, PublishedCall, Publisher
from console.vcon.uuids import vcon_uuid
from shared.domain.call_event import call_record
from shared.domain.closing import Outcome
from shared.domain.ids import CallKey, CallRef
from shared.domain.leg_event import CallType, LegEvent
from shared.domain.recording import RecordingState
from shared.domain.recording_info import RecordingInfo
from simulator.scenario import Dialed, Scenario, play
from tests.helpers.folding import PLACEHOLDERS, SOURCE, Published, at, callback, timer
from tests.helpers.records import DIAL, SECOND_AGENT, SECOND_NUMBER, A, D
from tests.helpers.records import record as record_until
from tests.helpers.vcons import core_of, problems_of, record_of, recordings_of

KEY = CallKey(SOURCE, CallRef("513"))
CALLS = Publisher("https://calls.example.com/callfold/")
ANSWERED = (
    f"0 {A} pickup ResponderAgentExt=1001&ResponderAgent=Kasper&ResponderUserID=7&LastQueueName=Sales",
    f"3 {D} pickup",
    f"30 {D} hangup",
    f"31 {A} hangup",
)
_LEG_OF_FIRST_RELEASE = ("call_id", "guid", "state", "inferred", "picked_up_at", "missed_at", "hung_up_at", "recorded")
SHA512 = sha512(b"audio").hexdigest()
INFO = RecordingInfo(RecordingState.STORED, at(99), "file:///a/b.wav", 5, "ab" * 32, 26.5, 1, 8000, attempts=1, sha512=SHA512)


def record(*lines: str, dial: dict[str, str] | None = None, request_id: str = "513") -> dict[str, Any]:
    """Fold callbacks until the call is complete, at the latest by the longest wait."""
    return record_until(*lines, dial=dial, until=20_000, request_id=request_id)


def _call(of_call: Mapping[str, Any], *recordings: LegRecordings, previous: Mapping[str, Any] | None = None) -> PublishedCall:
    event = {"time": at(60), "data": of_call}
    return PublishedCall.of(KEY, event, None if previous is None else {"data": previous}, recordings)


def _vcon(call: PublishedCall, publisher: Publisher = CALLS) -> dict[str, Any]:
    vcon: dict[str, Any] = orjson.loads(encode(vcon_of(call, publisher)))
    assert problems_of(vcon) == []
    assert record_of(vcon) == orjson.loads(orjson.dumps(call.published))
    return vcon


def _types(vcon: Mapping[str, Any]) -> list[str]:
    return [each.get("disposition", each["type"]) for each in vcon["dialog"]]


def test_an_answered_call_has_its_parties_and_a_dialog_for_each_leg() -> None:
    recordings = [LegRecordings("1", "guid-1", INFO), LegRecordings("3", "guid-3", replace(INFO, channels=2))]
    vcon = _vcon(_call(record(*ANSWERED, dial=DIAL), *recordings))
    agent, customer, callfold = vcon["parties"]
    assert agent | {"uuid": ""} == {
        "tel": "1001;phone-context=calls.example.com",
        "name": "Kasper",
        "validation": "none",
        "uuid": "",
        "role": "agent",
    }
    assert (customer, callfold["name"]) == ({"tel": "+4512345678", "role": "customer"}, "Callfold")
    first, second = vcon["dialog"]
    assert (first["type"], first["start"], first["duration"], first["parties"]) == ("recording", at(0), 26.5, [0, 1])
    assert first["url"] == "https://calls.example.com/callfold/recordings/acme/guid-1?call=513"
    assert first["content_hash"].startswith("sha512-")
    assert (first["interaction_type"], first["interaction_id"], first["skill"]) == ("API", "acme/513", ["Sales"])
    assert [(each["party"], each["event"]) for each in first["party_history"]] == [
        (0, "join"),
        (1, "join"),
        (1, "drop"),
        (0, "drop"),
    ]
    assert second["parties"] == [[0, 1], [0, 1]], "one entry for each channel"
    assert (vcon["created_at"], vcon["updated_at"]) == (at(60), at(99))
    assert "amended" not in vcon


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (ANSWERED, ["recording", "recording"]),
        ((f"0 {A} pickup", f"9 {A} hangup"), ["hung-up"]),
        ((f"0 {A} hangup", f"0 {A} missed"), ["no-answer"]),
        ((f"0 {A} pickup", f"9 {D} hangup", f"9 {D} missed", f"10 {A} hangup"), ["no-answer", "no-answer"]),
        (SECOND_AGENT, ["recording", "recording", "no-answer"]),
        (SECOND_NUMBER, ["recording", "recording", "no-answer"]),
        ((f"0 {A} pickup",), ["recording"]),  # whether anybody talked is not known
        ((f"0 {A} start",), ["failed"]),
    ],
)
def test_why_nobody_talked_is_in_the_words_of_the_draft(lines: Sequence[str], expected: Sequence[str]) -> None:
    assert _types(_vcon(_call(record(*lines, dial=DIAL)))) == expected


def test_a_dial_request_of_which_no_phone_was_heard_is_a_dialog_that_failed() -> None:
    vcon = _vcon(_call(record(dial=DIAL)))
    assert _types(vcon) == ["failed"]
    assert [vcon["parties"][index]["role"] for index in vcon["dialog"][0]["parties"]] == ["agent", "customer"]


@pytest.mark.parametrize(
    ("call_type", "expected", "roles"),
    [
        ("Incoming", "recording", ["customer", "agent"]),
        ("Outgoing", "recording", ["agent", "customer"]),
        ("Internal", "recording", [None, "agent"]),
        ("Login", "hung-up", ["agent"]),
        ("Conference", "recording", ["agent"]),
    ],
)
def test_in_a_call_of_one_leg_the_first_party_began_it(call_type: str, expected: str, roles: Sequence[str | None]) -> None:
    lines = [f"0 {call_type} 1 {event} CallerID=%2B4530000000&ResponderAgentExt=1001" for event in ("pickup", "hangup")]
    vcon = _vcon(_call(record(*lines, request_id="")))
    assert _types(vcon) == [expected]
    assert [vcon["parties"][index].get("role") for index in vcon["dialog"][0]["parties"]] == roles


@pytest.mark.parametrize("state", list(RecordingState))
def test_a_recording_has_content_only_while_it_is_stored(state: RecordingState) -> None:
    info = replace(INFO, state=state, expired_at=at(900) if state is RecordingState.EXPIRED else None)
    vcon = _vcon(_call(record(*ANSWERED, dial=DIAL), LegRecordings("1", "guid-1", info, [replace(INFO, state=None)])))
    dialog = vcon["dialog"][0]
    assert ("url" in dialog, "content_hash" in dialog) == (state is RecordingState.STORED,) * 2
    (noted,) = recordings_of(vcon)
    assert noted == {
        "call_id": "1",
        "name": "guid-1",
        "recording": orjson.loads(orjson.dumps(info.to_json())),
        "others": [*noted["others"]],
    }
    assert RecordingInfo.from_json(noted["recording"]) == info
    assert noted["recording"]["state"] == state, "an expired recording says so"


def test_a_recording_of_a_phone_that_nobody_answered_is_a_recording() -> None:
    lines = (f"0 {A} pickup", f"9 {D} hangup", f"9 {D} missed", f"10 {A} hangup")
    assert _types(_vcon(_call(record(*lines, dial=DIAL), LegRecordings("3", "g", INFO)))) == ["no-answer", "recording"]


def test_a_recording_of_a_previous_release_has_a_sha_256() -> None:
    vcon = _vcon(_call(record(*ANSWERED), LegRecordings("1", "g", replace(INFO, sha512=None))))
    assert vcon["dialog"][0]["content_hash"] == "sha256-q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s"


def test_without_a_public_url_a_recording_has_its_hash_alone() -> None:
    dialog = _vcon(_call(record(*ANSWERED), LegRecordings("1", "g", INFO)), Publisher())["dialog"][0]
    assert "url" not in dialog
    assert "content_hash" in dialog


def test_a_later_revision_refers_to_the_one_before_it() -> None:
    first = record(*ANSWERED)
    earlier = {**first, "started_at": at(-5)}
    second, third = ({**first, "revision": number} for number in (2, 3))
    vcons = [_vcon(_call(first)), _vcon(_call(second, previous=first)), _vcon(_call(third, previous=second))]
    uuids = [vcon["uuid"] for vcon in vcons]
    assert len(set(uuids)) == 3
    assert [vcon.get("amended") for vcon in vcons] == [None, {"uuid": uuids[0]}, {"uuid": uuids[1]}]
    assert _vcon(_call(second, previous=earlier))["amended"] != {"uuid": uuids[0]}, "the start has changed since"
    assert _vcon(_call(second))["amended"] == {}, "the revision before is not kept any more"


def test_a_uuid_is_calculated_as_it_is_documented() -> None:
    # printf 1.513.acme.calls.example.com | sha1sum
    digest = f"{int('2c65bd4d186fecd81f827efe5c928eff3a404a10', 16):0160b}"
    bits = f"{1:048b}1000{digest[62:74]}10{digest[:62]}"
    assert vcon_uuid("calls.example.com", KEY, 1, "1970-01-01T00:00:00.001000Z") == str(UUID(int=int(bits, 2)))
    uuids = {vcon_uuid(host, KEY, revision, at(0)) for host in ("a.example", "b.example") for revision in (1, 2)}
    assert len(uuids) == 4
    assert sorted(vcon_uuid("h", KEY, 1, at(seconds)) for seconds in (2, 1, 0.001, 0)) == [
        vcon_uuid("h", KEY, 1, at(seconds)) for seconds in (0, 0.001, 1, 2)
    ]


def test_a_record_of_the_first_release_is_a_vcon_too() -> None:
    of_call = record(*ANSWERED, dial=DIAL)
    legs = {side: {name: of_call[side][name] for name in _LEG_OF_FIRST_RELEASE} for side in ("agent", "dialed")}
    new = {"call_type", "queue", "ended_by", "ignored", "annotations"}
    vcon = _vcon(_call({name: value for name, value in of_call.items() if name not in new} | legs, LegRecordings("1", "g", INFO)))
    assert _types(vcon) == ["recording", "recording"]
    assert [party.get("role") for party in vcon["parties"]] == ["agent", "customer", None]
    assert vcon["parties"][1]["tel"] == "+4512345678"


def test_the_same_agent_has_the_same_uuid_in_each_call() -> None:
    agents = [_vcon(_call(record(*lines)))["parties"][0]["uuid"] for lines in (ANSWERED, ANSWERED[:1])]
    assert agents[0] == agents[1]
    other = _vcon(_call({**record(*ANSWERED), "source": "other"}))["parties"][0]["uuid"]
    assert other != agents[0]


def test_annotations_are_analysis_or_attachments_and_can_be_read_back() -> None:
    kinds = {
        "transcript": {"text": "Hello", "call_id": "3", "engine": "whisper"},
        "disposition": {"code": "sold"},
        "consent": {"status": "granted"},
        "note": {"text": "Call back"},
        "of a newer release": {"what": 1},
    }
    annotations = [{"id": kind, "type": kind, "at": at(70), "by": "anna", "body": body} for kind, body in kinds.items()]
    vcon = _vcon(_call({**record(*ANSWERED), "annotations": annotations}, LegRecordings("1", "g", INFO)))
    transcript, disposition = vcon["analysis"]
    assert (transcript["type"], transcript["dialog"], transcript["vendor"], transcript["product"]) == (
        "transcript",
        1,
        "anna",
        "whisper",
    )
    assert (disposition["type"], disposition["schema"], disposition["dialog"]) == ("report", "callfold.disposition", [0, 1])
    assert [each["purpose"] for each in vcon["attachments"][2:]] == ["consent", "note", "of a newer release"]
    assert vcon["attachments"][3]["body"] == {"text": "Call back"}


@pytest.mark.parametrize("scenario", list(Scenario))
@pytest.mark.parametrize("seed", range(4))
def test_each_course_of_a_simulated_call_is_a_valid_vcon(scenario: Scenario, seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311 - repeatable on purpose
    dialed = Dialed(513, 7000, "1001", "+4512345678", 1795419840000, recorded=seed % 2 == 0)
    truth, steps = play(scenario, dialed, rng, speed=1)
    history = Published()
    history.fold([callback(step.at_s, "&".join(f"{name}={value}" for name, value in _renamed(step.values))) for step in steps])
    history.fold([timer(9000)])
    of_call = orjson.loads(orjson.dumps(call_record(history.call(), 1)))
    assert of_call["outcome"] == truth.outcome
    recordings = [LegRecordings(leg.call_id, leg.guid, INFO) for leg in truth.legs if leg.recorded]
    vcon = _vcon(_call(of_call, *recordings))
    assert len(vcon["dialog"]) == len(truth.legs)
    assert sum("url" in each for each in vcon["dialog"]) == len(recordings)
    assert (truth.outcome is Outcome.ANSWERED) == ("recording" in _types(vcon) and bool(truth.ended_by))


def _renamed(values: Mapping[str, str]) -> list[tuple[str, str]]:
    names = {placeholder: name for name, placeholder in PLACEHOLDERS.items()}
    return [(names[placeholder], value) for placeholder, value in values.items() if placeholder in names]


_NUMBERS = st.sampled_from(
    ["", "CallerID=%2B4530000000", "CallerID=12", "CallerID=anonymous", "ResponderAgentExt=1001", "ResponderAgent=Eva"]
)
_LINES = st.tuples(
    st.integers(0, 60), st.sampled_from(list(CallType)), st.integers(1, 5), st.sampled_from(list(LegEvent)), _NUMBERS
).map(lambda parts: " ".join(map(str, parts)))


@given(
    lines=st.lists(_LINES, max_size=9),
    dial=st.sampled_from([None, DIAL, {"agent": "Eva", "number": "x"}]),
    state=st.sampled_from([*RecordingState]),
    channels=st.sampled_from([None, 1, 2]),
)
@settings(max_examples=60, deadline=None)
def test_whatever_the_call_was_its_vcon_is_valid_and_loses_nothing(
    lines: list[str], dial: dict[str, str] | None, state: RecordingState, channels: int | None
) -> None:
    if not lines and dial is None:
        return
    of_call = record(*lines, dial=dial)
    info = replace(INFO, state=state, channels=channels)
    legs = [leg for leg in (of_call["agent"], of_call["dialed"], *of_call["other_legs"]) if leg]
    vcon = _vcon(_call(of_call, *(LegRecordings(leg["call_id"], "g", info) for leg in legs[:2])))
    core = core_of(vcon)
    assert [(each["call_id"], each["call_type"]) for each in core] == [(leg["call_id"], leg["call_type"]) for leg in legs]
    for each, leg in zip(core, legs, strict=True):
        names = {person.get("name") for person in each["people"]}
        numbers = {str(person.get("tel", "")).partition(";")[0] for person in each["people"]}
        assert leg["name"] is None or leg["name"] in names
        assert leg["number"] in {None, "anonymous", "x", *numbers}
        if leg["picked_up_at"] is not None:
            assert ("join", leg["picked_up_at"]) in each["times"]
