"""The page says that calls wait for a rebuild, and how far it is."""

from __future__ import annotations

from console.rebuilds import sentence
from shared.state.rebuild_note import RebuildNote, RebuildStep, read_note


def test_the_progress_of_a_rebuild_is_a_sentence() -> None:
    note = RebuildNote(RebuildStep.REPLAYING, 5, 12345, 67890, 17)
    assert sentence(5, read_note(note.encode())) == (
        "Redis lost the state of 5 of 16 partitions. Their calls wait until it is rebuilt: callbacks are replayed "
        "(12,345 messages read, 67,890 events replayed, 17 s so far)."
    )
    assert sentence(16, None).endswith("Their calls wait until it is rebuilt.")


def test_a_note_of_another_release_is_none() -> None:
    assert [read_note(text) for text in (None, b"", b"[]", b'{"step":"dancing"}', b'{"step":"reading","more":1}')] == [None] * 5
