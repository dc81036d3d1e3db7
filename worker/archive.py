"""The archive: recordings and their sidecars under one URL, on disk or in an object store, in FocalScope's own layout.

`<source>/monitor/YYYY-UTC/MM/DD/<guid>.wav` and `<guid>.json`, by the call's UTC date.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

import obstore
import orjson
from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore, from_url

from shared.errors import CallfoldError, ConfigError
from shared.records import RecordingJob


class ArchiveUnavailableError(CallfoldError):
    """The archive cannot be written now."""


def path_of(job: RecordingJob, suffix: str) -> str:
    """Place a job's file: `acme/monitor/2026-UTC/11/23/<guid>.wav`."""
    year, month, day = job.started_at[:10].split("-")
    return f"{job.source}/monitor/{year}-UTC/{month}/{day}/{job.name}.{suffix}"


class Archive:
    """Writes whole files: a file is at its final name only when all of it is."""

    def __init__(self, url: str) -> None:
        """Take the URL: `file:///...`, `s3://bucket/prefix`, or another that obstore knows.

        Raises:
            ConfigError: the URL is not understood, or its directory cannot be made.
        """
        self._url = url.rstrip("/")
        try:
            self._store: ObjectStore = _local(url) if url.startswith("file://") else from_url(url)
        except (BaseError, OSError, ValueError) as error:
            raise ConfigError(f"CALLFOLD_ARCHIVE_URL {self._url} cannot be used: {error}.") from error

    async def check(self) -> None:
        """Write, and delete, a small file.

        Raises:
            ConfigError: the archive cannot be written.
        """
        probe = f".probe-{uuid.uuid4().hex}"
        try:
            await obstore.put_async(self._store, probe, b"probe")
            await obstore.delete_async(self._store, probe)
        except (BaseError, OSError) as error:
            raise ConfigError(f"The archive {self._url} cannot be written: {error}.") from error

    async def put(self, path: str, content: BinaryIO | bytes) -> str:
        """Store a file, over one of the same name, and return its URI.

        Raises:
            ArchiveUnavailableError: it could not be stored; nothing is at that name that was not there before.
        """
        try:
            await obstore.put_async(self._store, path, content)
        except (BaseError, OSError) as error:
            raise ArchiveUnavailableError(f"{path} could not be stored: {type(error).__name__}") from error
        return f"{self._url}/{path}"

    async def stored(self, job: RecordingJob) -> dict[str, object] | None:
        """Read what the sidecar tells of the recording, where it was stored.

        Raises:
            ArchiveUnavailableError: it could not be read.
        """
        try:
            found = await obstore.get_async(self._store, path_of(job, "json"))
            sidecar = orjson.loads(bytes(await found.bytes_async()))
        except FileNotFoundError:
            return None
        except (BaseError, OSError, orjson.JSONDecodeError) as error:
            raise ArchiveUnavailableError(f"{path_of(job, 'json')} could not be read: {type(error).__name__}") from error
        recording = sidecar["recording"]
        return recording if recording["state"] == "stored" else None

    async def put_sidecar(self, job: RecordingJob, recording: Mapping[str, object]) -> None:
        """Write the json beside the recording: FocalScope's ids, what became of the recording, the leg and its call."""
        sidecar = {
            "v": 1,
            "nId": int(job.call_id),
            "usId": job.guid,
            "source": job.source,
            "request_id": job.request_id,
            "call_id": job.call_id,
            "guid": job.guid,
            "leg": job.leg,
            "recording": dict(recording),
            "call": dict(job.record),
        }
        await self.put(path_of(job, "json"), orjson.dumps(sidecar, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))


def _local(url: str) -> ObjectStore:
    directory = Path(unquote(urlsplit(url).path))
    directory.mkdir(parents=True, exist_ok=True)
    return LocalStore(prefix=directory)
