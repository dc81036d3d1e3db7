"""The archive: recordings and their sidecars, in FocalScope's own layout.

`<source>/monitor/YYYY-UTC/MM/DD/<guid>.wav` and `<guid>.json`, by the call's UTC date.
"""

from __future__ import annotations

from shared.archive.sidecar import Sidecar, path_of
from shared.archive.storage import Files
from shared.domain.recording import RecordingJob
from shared.domain.recording_info import RecordingInfo


class Archive(Files):
    """The files of the archive, and what they mean."""

    async def days(self, source: str) -> list[str]:
        """List the days of a source that have files: `acme/monitor/2026-UTC/11/23`, sorted."""
        found = [f"{source}/monitor"]
        for _ in range(3):  # year, month, day
            found = [inner for outer in found for inner in await self.directories(outer)]
        return found

    async def sidecar(self, path: str) -> Sidecar | None:
        """Read a sidecar; None where there is none.

        Raises:
            ArchiveUnavailableError: it could not be read.
            ValueError: what is there is no sidecar.
        """
        body = await self.read(path)
        return None if body is None else Sidecar.decode(body, path)

    async def sidecar_of(self, job: RecordingJob) -> tuple[Sidecar | None, str]:
        """Read the sidecar of a job's leg, and tell where it belongs.

        Raises:
            ArchiveUnavailableError: it could not be read.
            ValueError: what is there is no sidecar.
        """
        path = path_of(job, "json")
        found = await self.sidecar(path)
        if found is not None and found.call_id != job.call_id:  # two legs that say they have one GUID: both are kept
            path = path_of(job, f"{job.call_id}.json")
            found = await self.sidecar(path)
        return found, path

    async def has(self, sidecar: Sidecar, info: RecordingInfo) -> bool:
        """Tell whether the file of a recording is there, by its size."""
        size = await self.size(sidecar.file(info))
        return size is not None and size == info.file_bytes
