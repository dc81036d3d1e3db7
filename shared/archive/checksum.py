"""Checksums of recordings: SHA-256 and SHA-512, computed while a file is read once."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterable
from typing import BinaryIO, NamedTuple

from shared.archive.local_disk import OnProgress

# Large enough that hashlib releases the GIL, small enough that the second algorithm reads the piece from the CPU's cache.
_PIECE_BYTES = 128 << 10


class Checksums(NamedTuple):
    """The checksums of one content, in hexadecimal digits."""

    sha256: str
    sha512: str


class _Digests:
    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()
        self._sha512 = hashlib.sha512()

    def update(self, piece: bytes | memoryview) -> None:
        self._sha256.update(piece)
        self._sha512.update(piece)

    def checksums(self) -> Checksums:
        return Checksums(self._sha256.hexdigest(), self._sha512.hexdigest())


def checksums_of(file: BinaryIO) -> Checksums:
    """Return the checksums of a whole file, and seek to its beginning. Not for the event loop."""
    file.seek(0)
    digests = _Digests()
    while piece := file.read(_PIECE_BYTES):
        digests.update(piece)
    file.seek(0)
    return digests.checksums()


async def checksums_of_stream(pieces: AsyncIterable[bytes | memoryview]) -> Checksums:
    """Return the checksums of what arrives."""
    digests = _Digests()
    async for piece in pieces:
        digests.update(piece)
    return digests.checksums()


async def sha256_of_stream(pieces: AsyncIterable[bytes | memoryview], on_progress: OnProgress = lambda: None) -> str:
    """Return the SHA-256 of what arrives. `on_progress` is called for each piece."""
    digest = hashlib.sha256()
    async for piece in pieces:
        on_progress()
        digest.update(piece)
    return digest.hexdigest()
