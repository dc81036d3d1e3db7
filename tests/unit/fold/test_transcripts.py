"""Transcripts of calls: tables of what came in, and below each line what follows from it. `tests/transcripts/*.txt`.

A line that begins with a number is a callback: seconds, call type, CallID, event, and what else it tells. `recorded` stands for
IsCallRecorded=1, a time in Start, Pickup or End for that second as a Java timestamp. Everything indented
follows: timers that fire, records that are published, and at the end how long an open call will wait.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.domain.call import Call
from shared.domain.leg import Leg
from shared.domain.leg_event import CallType
from tests.helpers.folding import T0, Published, callback, seconds_of, timer

DIRECTORY = Path(__file__).parents[2] / "transcripts"
FILES = sorted(DIRECTORY.glob("*.txt"))
_TIMES = ("Start", "Pickup", "End")


def replay(text: str) -> str:
    """Play the callbacks of a transcript and write it anew, with what follows from them."""
    lines: list[str] = []
    history = Published()
    for line in text.splitlines():
        if line[:1].isdigit():
            seconds = float(line.split()[0])
            lines += _timers_until(history, seconds)
            lines.append(line)
            lines += _told(history, history.fold([callback(seconds, _query(line))]))
        elif not line.startswith(" "):
            lines.append(line)
    lines += _timers_until(history, float("inf"))
    return "\n".join(lines) + "\n"


def _query(line: str) -> str:
    _, call_type, call_id, event, *more = line.split()
    values = {"CallType": call_type, "CallID": call_id, "Event": event}
    if call_type in {"API", "Outgoing"} and "RequestID=" not in more:
        values["RequestID"] = "513"
    for word in more:
        name, equals, value = word.partition("=")
        if word == "recorded":
            values["IsCallRecorded"] = "1"
        elif equals and name in _TIMES and value.replace(".", "").isdigit() and float(value) > 0:
            values[name] = str(round((T0.timestamp() + float(value)) * 1000))
        elif equals and value:
            values[name] = value
    return "&".join(f"{name}={value}" for name, value in values.items())


def _timers_until(history: Published, seconds: float) -> list[str]:
    lines: list[str] = []
    while history.facts and (wake_at := history.call().wake_at) is not None and seconds_of(wake_at) < seconds:
        due = seconds_of(wake_at)
        lines.append(f"    {due:g} s: a timer")
        lines += _told(history, history.fold([timer(due, history.key.call)]))
    return lines


def _told(history: Published, call: Call | None) -> list[str]:
    if call is None or call.closing is None:
        return []
    kind = "completed" if history.revision == 1 else f"amended (revision {history.revision})"
    complete = "complete" if call.closing.complete else "not complete"
    times = [
        f"{name} {value:g} s" for name, value in (("ring", call.ring_seconds), ("talk", call.talk_seconds)) if value is not None
    ]
    lines = [
        f"    -> {kind}: {call.closing.outcome}, {complete}, by {call.closing.reason}" + "".join(f", {time}" for time in times)
    ]
    sides = [("agent" if call.request_id is not None else "leg", call.agent), ("dialed", call.dialed)]
    lines += [f"         {name} {_leg(leg)}" for name, leg in sides if leg]
    return lines + [f"         other {_leg(leg)}" for leg in call.other_legs]


def _leg(leg: Leg) -> str:
    words = [f"{leg.call_id} {leg.state}"]
    if leg.call_type not in {CallType.API, CallType.OUTGOING}:
        words = [f"{leg.call_type} {words[0]}"]
    words += ["inferred"] if leg.inferred else []
    times = (("picked up", leg.picked_up_at), ("hung up", leg.hung_up_at), ("missed", leg.missed_at))
    words += [f"{name} at {seconds_of(time):g}" for name, time in times if time]
    words += ["recorded"] if leg.recorded else []
    return ", ".join(words)


def test_there_are_transcripts() -> None:
    assert len(FILES) >= 40


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_transcript_is_what_follows_from_its_callbacks(path: Path) -> None:
    text = path.read_text("utf-8")
    assert replay(text) == text
