"""The table of faults is in the documentation."""

from __future__ import annotations

from pathlib import Path

from tests.helpers.recording_faults import TROUBLES

DOCUMENTED = Path(__file__).resolve().parents[3] / "docs" / "recordings.md"


def test_the_table_of_faults_stands_in_the_documentation() -> None:
    text = DOCUMENTED.read_text("utf-8")
    table = text.partition("| fault | ends | reason | attempts |\n|---|---|---|---|\n")[2].partition("\n\n")[0]
    assert table.splitlines() == [trouble.row for trouble in TROUBLES]
