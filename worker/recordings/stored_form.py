"""The content of a file as the archive has it: encrypted if its source has a recipient."""

from __future__ import annotations

import asyncio
import os
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from shared.archive.checksum import checksums_of
from shared.archive.encryption import SCHEME, encrypt
from shared.domain.event_types import Encryption


@dataclass(frozen=True, slots=True)
class StoredForm:
    """Content for a file of the archive. All but the content are None if it is not encrypted."""

    content: BinaryIO
    encryption: Encryption | None = None
    stored_bytes: int | None = None
    stored_sha256: str | None = None
    stored_sha512: str | None = None


async def stored_form(closing: ExitStack, plain: BinaryIO, directory: Path, recipient: str | None) -> StoredForm:
    """Return the content of a file, encrypted if there is a recipient. `closing` removes the copy in `directory`.

    Raises:
        OSError: the copy could not be written.
    """
    if recipient is None:
        return StoredForm(plain)
    await asyncio.to_thread(directory.mkdir, parents=True, exist_ok=True)
    encrypted: BinaryIO = closing.enter_context(tempfile.TemporaryFile(dir=directory))  # noqa: SIM115 - entered
    plain.seek(0)
    await asyncio.to_thread(encrypt, plain, encrypted, recipient)
    encrypted.seek(0)
    checksums = await asyncio.to_thread(checksums_of, encrypted)
    size = encrypted.seek(0, os.SEEK_END)
    encrypted.seek(0)
    return StoredForm(encrypted, {"scheme": SCHEME, "recipient": recipient}, size, *checksums)
