"""SHA-256 checksums of recordings."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterable
from io import BufferedReader
from typing import BinaryIO, cast

from shared.archive.local_disk import OnProgress


def sha256_of(file: BinaryIO) -> str:
    """Return the checksum of a whole file, and seek to its beginning. Not for the event loop."""
    file.seek(0)
    digest = hashlib.file_digest(cast("BufferedReader", file), "sha256")
    file.seek(0)
    return digest.hexdigest()


async def sha256_of_stream(pieces: AsyncIterable[bytes | memoryview], on_progress: OnProgress = lambda: None) -> str:
    """Return the checksum of what arrives. `on_progress` is called for each piece."""
    digest = hashlib.sha256()
    async for piece in pieces:
        on_progress()
        digest.update(piece)
    return digest.hexdigest()
