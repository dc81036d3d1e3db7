"""The archive: recordings and their sidecars under one URL, on disk or in an object store, in FocalScope's own layout.

`<source>/monitor/YYYY-UTC/MM/DD/<guid>.wav` and `<guid>.json`, by the call's UTC date.

obstore reads, lists and deletes files, and writes to object stores. `local_disk.py` writes files on disk, because obstore does
not fsync and never removes the temporary files of a killed process (docs/adr/0005-archive-writes.md).
"""

from __future__ import annotations

import asyncio
import io
import uuid
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore

from shared.archive.checksum import Checksums, checksums_of_stream
from shared.archive.deadlines import ArchiveUnavailableError, archive_deadline, within_deadline
from shared.archive.local_disk import INCOMPLETE, PROBE, Confirm, DurableDirectory, TakenError
from shared.archive.object_store import Bucket
from shared.archive.sidecar import Sidecar, path_of
from shared.domain.recording import RecordingJob
from shared.domain.recording_info import RecordingInfo
from shared.errors import ConfigError

_READ_TIMEOUT_S = 60
_SMALL_WRITE_TIMEOUT_S = 60
# The longest time that a disk may take to write one piece of a file.
_STALL_S = 120.0
_COPY_BYTES = 1 << 20
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Entry:
    """A file in the archive."""

    path: str
    size: int
    modified: datetime = _LONG_AGO


class Archive:
    """The files of the archive, and the sidecars among them. A file has its final name only once it is complete."""

    def __init__(self, url: str) -> None:
        """Open `file:///...`, `s3://bucket/prefix`, or another URL that obstore supports.

        Raises:
            ConfigError: the URL is not supported, or its directory cannot be created.
        """
        parts = urlsplit(url)
        if parts.username or parts.password or parts.query:
            raise ConfigError(
                "CALLFOLD_ARCHIVE_URL contains a credential, and every recording event contains this URL. "
                "Set the credential in the environment instead (AWS_... for S3)."
            )
        self.url = url.rstrip("/")
        self._directory: DurableDirectory | None = None
        self._bucket: Bucket | None = None
        self._probe = f"{PROBE}{uuid.uuid4().hex}"
        try:
            if url.startswith("file://"):
                root = Path(unquote(urlsplit(url).path))
                root.mkdir(parents=True, exist_ok=True)
                self._directory = DurableDirectory(root)
                self._store: ObjectStore = LocalStore(prefix=root)
            else:
                self._bucket = Bucket(url)
                self._store = self._bucket.store
                self._probe = f"{INCOMPLETE}/{self._probe}"  # `sweep` lists this prefix alone
        except (BaseError, OSError, ValueError) as error:
            raise ConfigError(f"CALLFOLD_ARCHIVE_URL {self.url} cannot be used: {error}.") from error

    async def check(self) -> None:
        """Write and delete a small file, and check that it cannot be overwritten.

        Raises:
            ArchiveUnavailableError: the archive cannot be written now.
            ConfigError: the archive allows two files with one name. Waiting does not help.
        """
        await self.sweep()
        try:
            await self.delete(self._probe)  # the previous check may have been interrupted
            await self.put(self._probe, io.BytesIO(b"probe"), is_new=True)
            is_refused = await self._refuses(self._probe)
            await self.delete(self._probe)
        except ArchiveUnavailableError as error:
            raise ArchiveUnavailableError(f"The archive {self.url} cannot be written: {error}.") from error
        if not is_refused:
            raise ConfigError(
                f"The archive {self.url} overwrites existing files: it ignores conditional copies. See docs/recordings.md."
            )

    async def _refuses(self, path: str) -> bool:
        try:
            await self.put(path, io.BytesIO(b"second"), is_new=True)
        except TakenError:
            return True
        return False

    async def sweep(self) -> None:
        """Remove the incomplete files of killed processes."""
        with suppress(OSError, ArchiveUnavailableError):  # the next write reports it
            if self._directory is not None:
                await asyncio.to_thread(self._directory.sweep)
            elif self._bucket is not None:
                await self._bucket.sweep()

    async def put(self, path: str, content: BinaryIO | bytes, *, confirm: Confirm | None = None, is_new: bool = False) -> str:
        """Store a file durably and return its URI. An existing file is replaced, unless `is_new`.

        There is no time limit while data moves. `confirm` is awaited immediately before the file gets its final name. If it
        raises, the file does not get the name, and the error is raised here.

        Raises:
            ArchiveUnavailableError: the file could not be stored. A file with that name is complete: it is the previous one, or
                this one if only the response was lost.
            TakenError: `is_new`, and the file exists.
        """
        problem = f"{path} could not be stored"
        try:
            if self._directory is not None:
                loop = asyncio.get_running_loop()
                async with archive_deadline(problem, _STALL_S) as on_progress:
                    await self._directory.put(
                        path,
                        content,
                        confirm=confirm,
                        is_new=is_new,
                        on_progress=lambda: loop.call_soon_threadsafe(on_progress),
                    )
            elif self._bucket is not None and not isinstance(content, bytes):
                await self._bucket.put(path, content, confirm, is_new=is_new)
            else:
                await within_deadline(obstore.put_async(self._store, path, content), problem, _SMALL_WRITE_TIMEOUT_S)
        except FileNotFoundError as error:  # e.g. another process removed the directory
            raise ArchiveUnavailableError(f"{problem}: FileNotFoundError") from error
        return self.uri(path)

    def uri(self, path: str) -> str:
        return f"{self.url}/{path}"

    async def read(self, path: str) -> bytes | None:
        """Read a small file. None: it does not exist.

        Raises:
            ArchiveUnavailableError: it could not be read.
        """

        async def get() -> bytes:
            response = await obstore.get_async(self._store, path)
            return bytes(await response.bytes_async())

        with suppress(FileNotFoundError):
            return await within_deadline(get(), f"{path} could not be read", _READ_TIMEOUT_S)
        return None

    async def read_range(self, path: str, start: int, size: int) -> bytes:
        """Read a part of a file.

        Raises:
            FileNotFoundError: the file does not exist.
            ArchiveUnavailableError: it could not be read.
        """
        part = obstore.get_range_async(self._store, path, start=start, length=size)
        return bytes(await within_deadline(part, f"{path} could not be read", _READ_TIMEOUT_S))

    async def stream(self, path: str) -> AsyncIterator[bytes]:
        """Read a file piece by piece.

        Raises:
            FileNotFoundError: the file does not exist.
            ArchiveUnavailableError: it could not be read.
        """
        problem = f"{path} could not be read"
        response = await within_deadline(obstore.get_async(self._store, path), problem, _READ_TIMEOUT_S)
        pieces = response.stream(min_chunk_size=_COPY_BYTES).__aiter__()
        while True:
            try:
                piece = await within_deadline(pieces.__anext__(), problem, _READ_TIMEOUT_S)
            except StopAsyncIteration:
                return
            yield bytes(piece)

    async def checksums(self, path: str) -> Checksums:
        """Return the checksums of a file.

        Raises:
            FileNotFoundError: the file does not exist.
            ArchiveUnavailableError: it could not be read.
        """
        return await checksums_of_stream(self.stream(path))

    async def size(self, path: str) -> int | None:
        """Return the size of a file in bytes. None: it does not exist."""
        with suppress(FileNotFoundError):
            head = await within_deadline(obstore.head_async(self._store, path), f"{path} could not be read", _READ_TIMEOUT_S)
            return int(head["size"])
        return None

    async def delete(self, path: str) -> None:
        """Delete a file, if it exists."""
        with suppress(FileNotFoundError):
            await within_deadline(obstore.delete_async(self._store, path), f"{path} could not be deleted", _SMALL_WRITE_TIMEOUT_S)

    async def entries(self, prefix: str) -> AsyncIterator[Entry]:
        """List the files in a directory and its subdirectories, in no particular order."""
        batches = obstore.list(self._store, prefix=prefix, chunk_size=500).__aiter__()
        while True:
            try:
                batch = await within_deadline(batches.__anext__(), f"{prefix} could not be listed", _READ_TIMEOUT_S)
            except (StopAsyncIteration, FileNotFoundError):
                return
            for entry in batch:
                yield Entry(entry["path"], entry["size"], entry["last_modified"])

    async def directories(self, prefix: str) -> list[str]:
        """List the subdirectories of a directory, sorted."""
        listing = obstore.list_with_delimiter_async(self._store, prefix=prefix or None)
        try:
            entries = await within_deadline(listing, f"{prefix or self.url} could not be listed", _READ_TIMEOUT_S)
        except FileNotFoundError:
            return []
        return sorted(entries["common_prefixes"])

    async def days(self, source: str) -> list[str]:
        """List the days of a source that have files, sorted: `acme/monitor/2026-UTC/11/23`."""
        directories = [f"{source}/monitor"]
        for _ in range(3):  # year, month, day
            directories = [inner for outer in directories for inner in await self.directories(outer)]
        return directories

    async def sidecar(self, path: str) -> Sidecar | None:
        """Read a sidecar. None: it does not exist.

        Raises:
            ArchiveUnavailableError: it could not be read.
            ValueError: the file is not a sidecar.
        """
        body = await self.read(path)
        return None if body is None else Sidecar.decode(body, path)

    async def sidecar_of(self, job: RecordingJob) -> tuple[Sidecar | None, str]:
        """Read the sidecar of a job's leg. Return it with its path.

        Raises:
            ArchiveUnavailableError: it could not be read.
            ValueError: the file is not a sidecar.
        """
        path = path_of(job, "json")
        sidecar = await self.sidecar(path)
        if sidecar is not None and sidecar.call_id != job.call_id:  # two legs claim one GUID: both are kept
            path = path_of(job, f"{job.call_id}.json")
            sidecar = await self.sidecar(path)
        elif sidecar is not None and job.guid is None and sidecar.call != job.call:  # a CallID used again on the same day
            path = path_of(job, f"{job.call}.json")
            sidecar = await self.sidecar(path)
        return sidecar, path

    async def has_file(self, sidecar: Sidecar, info: RecordingInfo) -> bool:
        """Return whether the file of a recording exists and has the right size."""
        size = await self.size(sidecar.file(info))
        return size is not None and size == info.file_bytes
