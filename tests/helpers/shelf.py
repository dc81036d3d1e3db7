"""An archive in a directory, with jobs of a worker that files recordings in it."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

from console.commands.recordings_verify import check_day
from shared.archive.checksum import checksums_of
from shared.archive.local_disk import Confirm
from shared.archive.sidecar import Sidecar, path_of
from shared.archive.storage import Archive
from shared.domain.recording_info import RecordingInfo
from simulator.audio import recording
from tests.helpers.recordings import GUID, job
from worker.download.inspection import Recording
from worker.download.wav_check import read_audio
from worker.recordings.attempt import Attempt
from worker.recordings.sidecars import Sidecars

OTHER = recording("8", 1.5)


JOB = job(record={"revision": 1})


DAY = "acme/monitor/2026-UTC/11/23"


class Shelf:
    """An archive in a directory, and workers that put recordings there."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.use(directory / "archive")
        self.recipient: str | None = None

    def use(self, root: Path) -> None:
        self.root = root
        self.archive = Archive(root.as_uri())
        self.sidecars = Sidecars(self.archive, self.directory / "downloads")

    async def store(self, content: bytes, confirm: Confirm | None = None, **attempt: Any) -> RecordingInfo:  # noqa: ANN401
        async def ours() -> None:
            return

        file = io.BytesIO(content)
        whole = Recording(file, len(content), *checksums_of(file), read_audio(file, len(content)))
        this = replace(Attempt(JOB, JOB.encode(), 1, JOB.started_at), **attempt)
        return await self.sidecars.store(this, whole, self.recipient, confirm or ours)

    async def sidecar(self) -> Sidecar:
        found = await self.archive.sidecar(path_of(JOB, "json"))
        assert found is not None
        return found

    def file(self, suffix: str) -> Path:
        return self.root / path_of(JOB, suffix)

    def files(self) -> list[str]:
        return sorted(path.name.removeprefix(f"{GUID}.") for path in (self.root / DAY).iterdir())

    async def differences(self) -> list[tuple[str, str]]:
        """What is not as the sidecars tell: nothing, if no file was forgotten and none written over."""
        return [(found.path.removeprefix(f"{DAY}/"), found.problem) async for found in check_day(self.archive, DAY, (1,))]
