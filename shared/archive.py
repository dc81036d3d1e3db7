"""The archive: recordings and their sidecars under one URL, on disk or in an object store, in FocalScope's own layout.

`<source>/monitor/YYYY-UTC/MM/DD/<guid>.wav` and `<guid>.json`, by the call's UTC date. Reading, listing, deleting, and
writing to object stores go through obstore. Files on disk are written by `durable.py`: obstore does not fsync, and what
a killed process leaves of its temporary files stays for ever (docs/adr/0005-archive-writes.md).
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore, S3Store, from_url

if TYPE_CHECKING:  # exist for type checkers only
    from obstore import AsyncWritableFile
    from obstore.store import RetryConfig

from shared.durable import DurableDirectory, Last, TakenError
from shared.errors import ConfigError, UnavailableError
from shared.log import get_logger
from shared.records import RecordingJob
from shared.sidecar import Sidecar, Told, path_of, size_of

log = get_logger(__name__)

_READ_TIMEOUT_S = 60
# Nobody waits longer for a disk or a bucket; a delivery is handed over meanwhile (worker/handover.py).
_WRITE_TIMEOUT_S = 480
_SMALL_WRITE_TIMEOUT_S = 60
_COPY_BYTES = 1 << 20
_PART_BYTES = 5 << 20
# So that all but the last part has arrived, and can be aborted, before an upload is completed.
_PARTS_AT_A_TIME = 1
# How long what must not be cut off half-way, an abort above all, goes on after a cancellation: less than a shutdown waits.
_UNCUT_S = 8
_RETRIES: RetryConfig = {"max_retries": 3, "retry_timeout": timedelta(seconds=60)}

_T = TypeVar("_T")


class ArchiveUnavailableError(UnavailableError):
    """The archive cannot be read or written now."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of the archive."""

    path: str
    size: int


class Archive:
    """Writes whole files: a file is at its final name only when all of it is."""

    def __init__(self, url: str) -> None:
        """Take the URL: `file:///...`, `s3://bucket/prefix`, or another that obstore knows.

        Raises:
            ConfigError: the URL is not understood, or its directory cannot be made.
        """
        parts = urlsplit(url)
        if parts.username or parts.password or parts.query:
            raise ConfigError(
                "CALLFOLD_ARCHIVE_URL holds a credential: it goes into every event. Use the environment's (AWS_..., say)."
            )
        self.url = url.rstrip("/")
        self._directory: DurableDirectory | None = None
        try:
            if url.startswith("file://"):
                root = Path(unquote(urlsplit(url).path))
                root.mkdir(parents=True, exist_ok=True)
                self._directory = DurableDirectory(root)
                self._store: ObjectStore = LocalStore(prefix=root)
            else:
                self._store = _remote(url)
        except (BaseError, OSError, ValueError) as error:
            raise ConfigError(f"CALLFOLD_ARCHIVE_URL {self.url} cannot be used: {error}.") from error

    async def check(self) -> None:
        """Write, and delete, a small file.

        Raises:
            ConfigError: the archive cannot be written.
        """
        probe = f".probe-{uuid.uuid4().hex}"
        await self.sweep()
        try:
            await self.put(probe, b"probe")
            await self.delete(probe)
        except ArchiveUnavailableError as error:
            raise ConfigError(f"The archive {self.url} cannot be written: {error}.") from error

    async def sweep(self) -> None:
        """Remove what killed processes left of files they never finished; a bucket has a lifecycle rule for that."""
        if self._directory is not None:
            with suppress(OSError):  # it shows where something is written
                await asyncio.to_thread(self._directory.sweep)

    async def put(self, path: str, content: BinaryIO | bytes, *, last: Last | None = None, is_new: bool = False) -> str:
        """Store a file durably and return its URI; one of the same name is written over, unless `is_new`.

        `last` is awaited when nothing is left but to give the file its name: what it raises prevents that, and is raised.

        Raises:
            ArchiveUnavailableError: it could not be stored. What is at that name is whole: what was there before, or, where
                only the answer was lost, this file.
            TakenError: `is_new`, and there is one.
        """
        if self._directory is not None:
            write: Awaitable[object] = self._directory.put(path, content, last=last, is_new=is_new)
        elif isinstance(content, bytes):
            write = obstore.put_async(self._store, path, content)
        else:
            write = self._upload(path, content, last, is_new=is_new)
        try:
            timeout_s = _SMALL_WRITE_TIMEOUT_S if isinstance(content, bytes) else _WRITE_TIMEOUT_S
            await _guarded(write, f"{path} could not be stored", timeout_s)
        except FileNotFoundError as error:  # its directory was removed meanwhile, say
            raise ArchiveUnavailableError(f"{path} could not be stored: FileNotFoundError") from error
        return self.uri(path)

    async def _upload(self, path: str, content: BinaryIO, last: Last | None, *, is_new: bool) -> None:
        """Send a file in parts, aborted on whatever goes wrong; read it back, since not every store checks what it gets."""
        writer = obstore.open_writer_async(self._store, path, buffer_size=_PART_BYTES, max_concurrency=_PARTS_AT_A_TIME)
        try:
            sent = await _send(content, writer)
            if last is not None:
                await last()
            if is_new:
                await self._check_free(path)
        except BaseException:
            with suppress(BaseError, OSError):  # what went wrong first counts
                await _uncut(writer.__aexit__(*sys.exc_info()))
            raise
        await _uncut(writer.close())
        if await self.sha256(path) != sent:
            await self.delete(path)
            raise ArchiveUnavailableError(f"{path} could not be stored: it arrived damaged")

    async def _check_free(self, path: str) -> None:
        if await self.size(path) is not None:
            raise TakenError(f"{path} is there already")

    def uri(self, path: str) -> str:
        return f"{self.url}/{path}"

    async def read(self, path: str) -> bytes | None:
        """Read a small file; None where there is none.

        Raises:
            ArchiveUnavailableError: it could not be read.
        """

        async def get() -> bytes:
            found = await obstore.get_async(self._store, path)
            return bytes(await found.bytes_async())

        with suppress(FileNotFoundError):
            return await _guarded(get(), f"{path} could not be read", _READ_TIMEOUT_S)
        return None

    async def read_range(self, path: str, start: int, size: int) -> bytes:
        """Read a part of a file.

        Raises:
            FileNotFoundError: there is none.
            ArchiveUnavailableError: it could not be read.
        """
        part = obstore.get_range_async(self._store, path, start=start, length=size)
        return bytes(await _guarded(part, f"{path} could not be read", _READ_TIMEOUT_S))

    async def stream(self, path: str) -> AsyncIterator[bytes]:
        """Read a file piece by piece.

        Raises:
            FileNotFoundError: there is none.
            ArchiveUnavailableError: it could not be read.
        """
        found = await _guarded(obstore.get_async(self._store, path), f"{path} could not be read", _READ_TIMEOUT_S)
        pieces = found.stream(min_chunk_size=_COPY_BYTES).__aiter__()
        while True:
            try:
                piece = await _guarded(pieces.__anext__(), f"{path} could not be read", _READ_TIMEOUT_S)
            except StopAsyncIteration:
                return
            yield bytes(piece)

    async def sha256(self, path: str) -> str:
        """Fingerprint a file.

        Raises:
            FileNotFoundError: there is none.
            ArchiveUnavailableError: it could not be read.
        """
        digest = hashlib.sha256()
        async for piece in self.stream(path):
            digest.update(piece)
        return digest.hexdigest()

    async def size(self, path: str) -> int | None:
        """Tell how many bytes a file has; None where there is none."""
        with suppress(FileNotFoundError):
            found = await _guarded(obstore.head_async(self._store, path), f"{path} could not be read", _READ_TIMEOUT_S)
            return int(found["size"])
        return None

    async def delete(self, path: str) -> None:
        """Delete a file; one that is not there is no error."""
        with suppress(FileNotFoundError):
            await _guarded(obstore.delete_async(self._store, path), f"{path} could not be deleted", _SMALL_WRITE_TIMEOUT_S)

    async def entries(self, prefix: str) -> AsyncIterator[Entry]:
        """List the files under a directory, in no particular order."""
        batches = obstore.list(self._store, prefix=prefix, chunk_size=500).__aiter__()
        while True:
            try:
                batch = await _guarded(batches.__anext__(), f"{prefix} could not be listed", _READ_TIMEOUT_S)
            except (StopAsyncIteration, FileNotFoundError):
                return
            for found in batch:
                yield Entry(found["path"], found["size"])

    async def directories(self, prefix: str) -> list[str]:
        """List the directories in a directory, sorted."""
        listing = obstore.list_with_delimiter_async(self._store, prefix=prefix or None)
        try:
            found = await _guarded(listing, f"{prefix or self.url} could not be listed", _READ_TIMEOUT_S)
        except FileNotFoundError:
            return []
        return sorted(found["common_prefixes"])

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

    async def has(self, sidecar: Sidecar, told: Told) -> bool:
        """Tell whether the file of a recording is there, by its size."""
        return await self.size(sidecar.file(told)) == size_of(told)


async def _guarded(work: Awaitable[_T], problem: str, timeout_s: float) -> _T:
    try:
        async with asyncio.timeout(timeout_s):
            return await work
    except (FileNotFoundError, StopAsyncIteration):
        raise
    except (BaseError, OSError) as error:  # a timeout among them
        # The library's own words can quote whole requests, signatures included.
        log.debug("archive_error", detail=str(error)[:500])
        told = error.strerror if isinstance(error, OSError) else None
        raise ArchiveUnavailableError(f"{problem}: {told or type(error).__name__}") from error


async def _send(content: BinaryIO, writer: AsyncWritableFile) -> str:
    """Send a file into an upload, and return its SHA-256."""
    digest = hashlib.sha256()
    content.seek(0)
    while piece := await asyncio.to_thread(content.read, _COPY_BYTES):
        digest.update(piece)
        await writer.write(piece)
    return digest.hexdigest()


async def _uncut(work: Awaitable[_T]) -> _T:
    """Await what must not be cut off half-way: a cancellation is passed on once it has ended, or has had its time."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task], timeout=_UNCUT_S)
        task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # seen, if nobody waits for it
        raise


def _remote(url: str) -> ObjectStore:
    if url.startswith(("s3://", "s3a://")):
        # The server compares each part with our checksum and refuses what was damaged on the way.
        return S3Store.from_url(url, config={"checksum_algorithm": "SHA256"}, retry_config=_RETRIES)
    return from_url(url, config=None, retry_config=_RETRIES)
