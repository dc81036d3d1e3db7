"""The files of the archive under one URL, on disk or in an object store.

Reading, listing, deleting, and writing to object stores go through obstore. Files on disk are written by `durable.py`:
obstore does not fsync, and what a killed process leaves of its temporary files stays for ever
(docs/adr/0005-archive-writes.md).
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import uuid
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore

from shared.archive.deadlines import ArchiveUnavailableError, archive_deadline, within_deadline
from shared.archive.local_disk import DurableDirectory, Last, TakenError
from shared.archive.object_store import Bucket
from shared.errors import ConfigError

_READ_TIMEOUT_S = 60
_SMALL_WRITE_TIMEOUT_S = 60
# How long a disk may take over a piece of a file.
_STALL_S = 120.0
_COPY_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of the archive."""

    path: str
    size: int


class Files:
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
        self._probe = f".probe-{uuid.uuid4().hex}"
        self._directory: DurableDirectory | None = None
        self._bucket: Bucket | None = None
        try:
            if url.startswith("file://"):
                root = Path(unquote(urlsplit(url).path))
                root.mkdir(parents=True, exist_ok=True)
                self._directory = DurableDirectory(root)
                self._store: ObjectStore = LocalStore(prefix=root)
            else:
                self._bucket = Bucket(url)
                self._store = self._bucket.store
        except (BaseError, OSError, ValueError) as error:
            raise ConfigError(f"CALLFOLD_ARCHIVE_URL {self.url} cannot be used: {error}.") from error

    async def check(self) -> None:
        """Write, and delete, a small file; see that it is not written over. It can be repeated.

        Raises:
            ArchiveUnavailableError: the archive cannot be written now.
            ConfigError: it does not refuse a second file of one name, which no wait can heal.
        """
        await self.sweep()
        try:
            await self.delete(self._probe)  # where the check before this one broke off
            await self.put(self._probe, io.BytesIO(b"probe"), is_new=True)
            is_refused = await self._refuses(self._probe)
            await self.delete(self._probe)
        except ArchiveUnavailableError as error:
            raise ArchiveUnavailableError(f"The archive {self.url} cannot be written: {error}.") from error
        if not is_refused:
            raise ConfigError(f"The archive {self.url} writes over files that are there, see docs/recordings.md.")

    async def _refuses(self, path: str) -> bool:
        try:
            await self.put(path, io.BytesIO(b"second"), is_new=True)
        except TakenError:
            return True
        return False

    async def sweep(self) -> None:
        """Remove what killed processes left of files they never finished."""
        with suppress(OSError, ArchiveUnavailableError):  # it shows where something is written
            if self._directory is not None:
                await asyncio.to_thread(self._directory.sweep)
            elif self._bucket is not None:
                await self._bucket.sweep()

    async def put(self, path: str, content: BinaryIO | bytes, *, last: Last | None = None, is_new: bool = False) -> str:
        """Store a file durably and return its URI; one of the same name is written over, unless `is_new`.

        It may take as long as it needs, while something moves. `last` is awaited when nothing is left but to give the file its
        name: what it raises prevents that, and is raised.

        Raises:
            ArchiveUnavailableError: it could not be stored. What is at that name is whole: what was there before, or, where
                only the answer was lost, this file.
            TakenError: `is_new`, and there is one.
        """
        problem = f"{path} could not be stored"
        try:
            if self._directory is not None:
                loop = asyncio.get_running_loop()
                async with archive_deadline(problem, _STALL_S) as moved:
                    await self._directory.put(
                        path, content, last=last, is_new=is_new, moved=lambda: loop.call_soon_threadsafe(moved)
                    )
            elif self._bucket is not None and not isinstance(content, bytes):
                await self._bucket.put(path, content, last, is_new=is_new)
            else:
                await within_deadline(obstore.put_async(self._store, path, content), problem, _SMALL_WRITE_TIMEOUT_S)
        except FileNotFoundError as error:  # its directory was removed meanwhile, say
            raise ArchiveUnavailableError(f"{problem}: FileNotFoundError") from error
        return self.uri(path)

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
            return await within_deadline(get(), f"{path} could not be read", _READ_TIMEOUT_S)
        return None

    async def read_range(self, path: str, start: int, size: int) -> bytes:
        """Read a part of a file.

        Raises:
            FileNotFoundError: there is none.
            ArchiveUnavailableError: it could not be read.
        """
        part = obstore.get_range_async(self._store, path, start=start, length=size)
        return bytes(await within_deadline(part, f"{path} could not be read", _READ_TIMEOUT_S))

    async def stream(self, path: str) -> AsyncIterator[bytes]:
        """Read a file piece by piece.

        Raises:
            FileNotFoundError: there is none.
            ArchiveUnavailableError: it could not be read.
        """
        found = await within_deadline(obstore.get_async(self._store, path), f"{path} could not be read", _READ_TIMEOUT_S)
        pieces = found.stream(min_chunk_size=_COPY_BYTES).__aiter__()
        while True:
            try:
                piece = await within_deadline(pieces.__anext__(), f"{path} could not be read", _READ_TIMEOUT_S)
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
            found = await within_deadline(obstore.head_async(self._store, path), f"{path} could not be read", _READ_TIMEOUT_S)
            return int(found["size"])
        return None

    async def delete(self, path: str) -> None:
        """Delete a file; one that is not there is no error."""
        with suppress(FileNotFoundError):
            await within_deadline(obstore.delete_async(self._store, path), f"{path} could not be deleted", _SMALL_WRITE_TIMEOUT_S)

    async def entries(self, prefix: str) -> AsyncIterator[Entry]:
        """List the files under a directory, in no particular order."""
        batches = obstore.list(self._store, prefix=prefix, chunk_size=500).__aiter__()
        while True:
            try:
                batch = await within_deadline(batches.__anext__(), f"{prefix} could not be listed", _READ_TIMEOUT_S)
            except (StopAsyncIteration, FileNotFoundError):
                return
            for found in batch:
                yield Entry(found["path"], found["size"])

    async def directories(self, prefix: str) -> list[str]:
        """List the directories in a directory, sorted."""
        listing = obstore.list_with_delimiter_async(self._store, prefix=prefix or None)
        try:
            found = await within_deadline(listing, f"{prefix or self.url} could not be listed", _READ_TIMEOUT_S)
        except FileNotFoundError:
            return []
        return sorted(found["common_prefixes"])
