"""Published revisions of a call that only the history has, and what it knows of their recordings."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from console.call_query import row_of
from console.history.queries import CallHistory, Recording
from console.lookup import published as lookup
from console.lookup.published import NotPublishedError, Published
from shared.archive.storage import Archive
from shared.config.settings import Settings
from shared.domain.call import Status
from shared.domain.ids import CallKey, CallRef
from shared.domain.recording import RecordingState
from shared.state.stored_call import PublicationState, StoredCall
from tests.helpers.folding import SOURCE, at
from tests.helpers.page_fakes import call, facts
from tests.helpers.records import SECOND_NUMBER, record

KEY = CallKey(SOURCE, CallRef("513"))


def _event(revision: int) -> dict[str, Any]:
    return {"id": f"acme/513/{revision}", "time": at(60), "data": record(*SECOND_NUMBER) | {"revision": revision}}


def _recording(suffix: str = "", **more: object) -> Recording:
    known: dict[str, object] = {
        "id": f"acme/513/recording/guid-1{suffix}",
        "source": "acme",
        "call": "513",
        "call_id": "1",
        "guid": "guid-1",
        "leg": "agent",
        "state": "stored",
        "at": at(70),
        "uri": f"s3://b/acme/monitor/2026-UTC/11/23/guid-1{suffix.replace('/', '.')}.wav",
        "sha256": "ab",
        "sha512": "cd",
        **dict.fromkeys(("bytes", "seconds", "channels", "sample_rate", "encryption", "attempts", "reason")),
    }
    return Recording.model_validate(known | more)


def _published(*revisions: int, recordings: tuple[Recording, ...] = ()) -> Published:
    events = [_event(revision) for revision in revisions]
    latest = events[-1]["data"] if events else record(*SECOND_NUMBER)
    past = CallHistory(row=row_of(latest, "513", Status.COMPLETE), record=latest, revisions=tuple(events), recordings=recordings)
    return Published(Settings(), KEY, past, None, None)


async def test_a_revision_comes_with_the_one_before_it() -> None:
    published = _published(1, 2, 3)
    for revision, expected in ((None, (3, 2)), (3, (3, 2)), (2, (2, 1)), (1, (1, None))):
        event, previous = await published.find(revision)
        assert (event["data"]["revision"], previous and previous["data"]["revision"]) == expected
    event, previous = await _published(4).find(None)
    assert (event["data"]["revision"], previous) == (4, None), "the history began later"


async def test_why_there_is_no_revision_is_said() -> None:
    for revisions, wanted, problem in (
        ((1,), 2, "acme/513 has only revision 1, not 2."),
        ((1, 2), 3, "acme/513 has revisions 1 to 2, not 3."),
        ((2,), 1, "Revision 1 of acme/513 was published, but is not known any more. The history has not kept its event."),
        ((), None, "Unknown call acme/513: it was never received, or is no longer retained."),
    ):
        with pytest.raises(NotPublishedError) as refused:
            await _published(*revisions).find(wanted)
        assert str(refused.value) == problem


async def test_without_a_history_the_journal_is_read_from_the_last_event_and_if_needed_from_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    derived = call()
    state = StoredCall(facts(), 1, PublicationState.PUBLISHED, "", "1", wake_at_ms=None)
    published, searched = Published(Settings(), KEY, None, state, derived), []

    async def search(_: object, key: CallKey, revisions: Collection[int], since: str) -> dict[int, dict[str, Any]]:
        searched.append((key, set(revisions), since))
        return {1: _event(1)} if since == derived.first_event_at else {}

    monkeypatch.setattr(lookup, "events_of_journal", search)
    event, previous = await published.find(None)
    assert (event["id"], previous) == ("acme/513/1", None)
    assert searched == [(KEY, {1}, derived.last_event_at), (KEY, {1}, derived.first_event_at)]
    assert derived.first_event_at < derived.last_event_at
    claimed = replace(published, state=replace(state, state=PublicationState.CLAIMED))
    with pytest.raises(NotPublishedError, match="not complete"):
        await claimed.find(None)


async def test_the_recordings_of_a_leg_are_named_as_in_the_archive(tmp_path: Path) -> None:
    rows = (
        _recording("/12345678", reason="other_content"),
        _recording(state="expired", at=at(900)),
        _recording(call_id="9", guid=None, id="acme/513/recording/call-9", uri="file:///x/call-9.wav.age"),
    )
    first, second = await _published(1, recordings=rows).recordings(Archive(tmp_path.as_uri()), None)
    assert (first.call_id, first.name, first.recording.state, first.recording.expired_at) == (
        "1",
        "guid-1",
        RecordingState.EXPIRED,
        at(900),
    )
    assert [(info.reason, info.sha512) for info in first.others] == [("other_content", "cd")]
    assert (second.call_id, second.name, second.recording.sha512) == ("9", "call-9", "cd")
