"""Checks a complete download: decompresses it if the server compressed it, checks its audio, and computes its checksum."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import BinaryIO

from shared.archive.checksum import sha256_of
from shared.domain.wav import Flaw, InvalidWavError
from worker.download.content_encoding import open_content
from worker.download.failures import FetchError, Reason
from worker.download.partial_file import Partial
from worker.download.wav_check import Audio, read_audio

PAGE = "a web page instead of a recording. The token may be wrong or expired"
SNIFF_BYTES = 64
_INCOMPLETE = frozenset({Flaw.TRUNCATED, Flaw.NO_AUDIO, Flaw.EMPTY})


@dataclass(frozen=True, slots=True)
class Recording:
    """A complete recording. The caller closes its file."""

    file: BinaryIO
    bytes: int
    sha256: str
    audio: Audio


def examine(part: Partial, max_bytes: int, seen_bytes: int | None) -> Recording:
    """Check a complete download. Not for the event loop.

    `seen_bytes` is the size at the previous attempt. A file that has grown is still being written. A header without a length is
    accepted once two attempts returned the same size.

    Raises:
        FetchError: it is not a recording, or not yet complete.
    """
    if part.size == 0:
        raise FetchError(Reason.EMPTY, "the body is empty")
    part.file.flush()
    file = open_content(part.file, part.encoding, part.directory, max_bytes)
    try:
        size = file.seek(0, os.SEEK_END)
        try:
            audio = read_audio(file, size)
        except InvalidWavError as error:
            file.seek(0)
            if is_page(file.read(SNIFF_BYTES)):  # a compressed page
                raise FetchError(Reason.LOGIN_PAGE, PAGE) from error
            has_grown = seen_bytes is not None and size > seen_bytes
            reason = Reason.GROWING if has_grown and error.flaw in _INCOMPLETE else Reason(error.flaw)
            raise FetchError(reason, str(error), size=size) from error
        _check_grown(audio, size, seen_bytes)
        digest = sha256_of(file)
    except BaseException:
        file.close()
        raise
    return Recording(file, size, digest, audio)


def is_page(head: bytes) -> bool:
    """Return whether a file starts like HTML or XML, after any byte order mark and white space."""
    return head.lstrip(b"\xef\xbb\xbf\xfe\xff\0 \t\r\n\f")[:1] == b"<"


def _check_grown(audio: Audio, size: int, seen_bytes: int | None) -> None:
    if audio.is_open_ended and seen_bytes != size:
        raise FetchError(Reason.GROWING, f"{size} bytes so far. The header does not contain the length", size=size)
