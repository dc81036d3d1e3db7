"""The audio of stored recordings: found in the archive, decrypted if the console has the identity, read in pieces."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from shared.archive.encryption import decrypt, decrypt_start
from shared.archive.sidecar import Sidecar
from shared.archive.storage import Archive
from shared.domain.wav import HEAD_BYTES
from shared.errors import CallfoldError

_CHUNK_BYTES = 1 << 20
_ENCRYPTED_HEAD_BYTES = 128 << 10
MISSING = "The file of this recording is missing from the archive. Run callfold recordings verify."
NO_IDENTITY = "This recording is encrypted and the console cannot decrypt it. Set CALLFOLD_ARCHIVE_IDENTITY."


class NoAudioError(CallfoldError):
    """The audio cannot be read: `status` is 404 if its file is missing, 409 if it cannot be decrypted."""

    def __init__(self, status: int, title: str) -> None:
        super().__init__(title)
        self.status = status


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A recording in the archive. `fingerprint` identifies its content."""

    path: str
    fingerprint: str
    is_encrypted: bool

    @classmethod
    def of(cls, sidecar: Sidecar) -> StoredFile:
        """Return the file of a stored recording. An encrypted recording whose sidecar was lost has no SHA-256."""
        info = sidecar.recording
        return cls(sidecar.file(info), str(info.sha256 or info.at), bool(info.encryption))


@dataclass(frozen=True, slots=True)
class Audio:
    """Audio that can be read: a path in the archive, or a temporary file."""

    size: int
    path: str
    file: BinaryIO | None = None


class AudioArchive:
    """Reads the audio of recordings."""

    def __init__(self, archive: Archive, identity: Path | None) -> None:
        self._archive = archive
        self._identity = identity

    async def open(self, stored: StoredFile, scratch: BinaryIO) -> Audio:
        """Open a recording. An encrypted one is decrypted into `scratch`.

        Raises:
            NoAudioError: the file is missing, or there is no identity.
            CallfoldError: the archive cannot be read, or the identity does not decrypt the recording.
        """
        if not stored.is_encrypted:
            return Audio(await self.file_size(stored), stored.path)
        if self._identity is None:
            raise NoAudioError(409, NO_IDENTITY)
        with tempfile.TemporaryFile() as encrypted:
            async for chunk in self._archive.stream(stored.path):
                await asyncio.to_thread(encrypted.write, chunk)
            encrypted.seek(0)
            await asyncio.to_thread(decrypt, encrypted, scratch, self._identity)
        return Audio(scratch.seek(0, 2), stored.path, scratch)

    async def file_size(self, stored: StoredFile) -> int:
        """Return the size of a recording's file.

        Raises:
            NoAudioError: the file is missing.
            CallfoldError: the archive cannot be read.
        """
        size = await self._archive.size(stored.path)
        if size is None:
            raise NoAudioError(404, MISSING)
        return size

    async def head(self, stored: StoredFile) -> tuple[bytes, int]:
        """Read the start of a recording, enough for its header, and the size of its file.

        Raises:
            NoAudioError: the file is missing, or there is no identity.
            CallfoldError: the archive cannot be read, or the identity does not decrypt the recording.
        """
        if stored.is_encrypted and self._identity is None:
            raise NoAudioError(409, NO_IDENTITY)
        size = await self.file_size(stored)
        length = min(size, _ENCRYPTED_HEAD_BYTES if stored.is_encrypted else HEAD_BYTES)
        start = await self._archive.read_range(stored.path, 0, length) if length else b""
        if stored.is_encrypted and self._identity is not None:
            start = await asyncio.to_thread(decrypt_start, start, self._identity)
        return start, size

    async def chunks(self, audio: Audio, first: int, last: int) -> AsyncIterator[bytes]:
        """Read the bytes from `first` to `last`, both included.

        Raises:
            CallfoldError: the archive cannot be read.
        """
        for start in range(first, last + 1, _CHUNK_BYTES):
            yield await self.read(audio, start, min(_CHUNK_BYTES, last + 1 - start))

    async def read(self, audio: Audio, start: int, size: int) -> bytes:
        """Read up to `size` bytes; fewer at the end of the recording.

        Raises:
            CallfoldError: the archive cannot be read.
        """
        size = max(min(size, audio.size - start), 0)
        if audio.file is None:
            return await self._archive.read_range(audio.path, start, size) if size else b""
        audio.file.seek(start)
        return await asyncio.to_thread(audio.file.read, size)
