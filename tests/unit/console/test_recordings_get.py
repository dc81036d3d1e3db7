"""`callfold recordings get` explains why there is nothing to get."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from console.commands.recordings_get import Target, get
from shared.archive.sidecar import path_of, updated_sidecar
from shared.archive.storage import Archive
from shared.config.settings import Settings
from shared.domain.recording import RecordingState
from shared.errors import CallfoldError
from tests.helpers.recordings import GUID, job
from tests.helpers.settings import settings_here

_NOT_STORED = sorted(set(RecordingState) - {RecordingState.STORED})


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    sources = tmp_path / "sources.toml"
    sources.write_text("[sources.acme]\n")
    archive = (tmp_path / "archive").as_uri()
    return settings_here(monkeypatch, {"CALLFOLD_SOURCES": str(sources), "CALLFOLD_ARCHIVE_URL": archive})


async def _error(settings: Settings, state: RecordingState, reason: str | None) -> str:
    path = path_of(job(), "json")
    sidecar = updated_sidecar(job(), None, path)
    found = replace(sidecar.recording, state=state, reason=reason, uri=f"file:///{path}")
    await Archive(settings.archive_url).put(path, replace(sidecar, recording=found).encode())
    with pytest.raises(CallfoldError) as error:
        await get(settings, "acme", GUID, Target(None, None, force=False), as_json=False)
    return str(error.value)


async def test_the_reason_of_a_failure_is_named(settings: Settings) -> None:
    said = await _error(settings, RecordingState.FAILED, "not_allowed")
    assert said.startswith(
        f"No recording of acme {GUID} is stored. Agent leg 7: it could not be archived (failed, not_allowed). "
    )
    assert "callfold recordings redrive" in said


@pytest.mark.parametrize("state", _NOT_STORED)
async def test_each_state_is_explained(settings: Settings, state: RecordingState) -> None:
    said = await _error(settings, state, None)
    explanation, _, _ = said.partition("Agent leg 7: ")[2].partition(f" ({state}).")
    assert len(explanation.split()) >= 3
