"""The auditor's own model of a call agrees with the transcripts, which say what must follow from which callbacks."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.chaos.audit.model import Callback, read_callback, record_of

DIRECTORY = Path(__file__).parents[2] / "transcripts"


def _callbacks(text: str) -> frozenset[Callback]:
    read = []
    for line in text.splitlines():
        if line[:1].isdigit():
            _, call_type, call_id, event, *more = line.split()
            values = {"CallType": call_type, "CallID": call_id, "Event": event}
            if call_type in {"API", "Outgoing"}:
                values["RequestID"] = "513"
            for word in more:
                name, equals, value = word.partition("=")
                if word == "recorded":
                    values["IsCallRecorded"] = "1"
                elif equals and name == "Pickup" and float(value) > 0:
                    values["PickupTimestampUTC"] = str(round(float(value) * 1000))
                elif equals and name not in {"Start", "Pickup", "End"}:
                    values[name] = value
            read.append(read_callback(urlencode(values)))
    return frozenset(read)


def _last_record(text: str) -> tuple[str, bool, str]:
    *_, (outcome, complete, reason) = re.findall(r"-> \w+(?: \(revision \d+\))?: (\w+), (not )?complete, by (\w+)", text)
    return outcome, not complete, reason


def _is_modelled(callbacks: frozenset[Callback]) -> bool:
    legs = {(callback.call_type, callback.call_id) for callback in callbacks}
    kinds = [kind for kind, _ in legs]
    return len(kinds) == len(set(kinds)) and len({callback.call for callback in callbacks}) == 1


TRANSCRIPTS = {path.stem: path.read_text("utf-8") for path in sorted(DIRECTORY.glob("*.txt"))}
MODELLED = [name for name, text in TRANSCRIPTS.items() if _is_modelled(_callbacks(text))]


def test_most_transcripts_are_of_calls_that_the_model_knows() -> None:
    assert len(MODELLED) >= 35


@pytest.mark.parametrize("name", MODELLED)
def test_the_last_record_of_a_transcript_is_that_of_the_model(name: str) -> None:
    record = record_of(_callbacks(TRANSCRIPTS[name]))
    assert record is not None
    outcome, is_complete, reason = _last_record(TRANSCRIPTS[name])
    assert (record.outcome, record.complete) == (outcome, is_complete)
    assert record.close_reason == reason or {record.close_reason, reason} == {"missed", "settled"}
