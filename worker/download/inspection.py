"""Checks a complete download: decompresses it if the server compressed it, checks its audio, and computes its checksums."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import BinaryIO

from shared.archive.checksum import checksums_of
from shared.domain.recording_flags import Flag
from shared.domain.recording_reasons import Reason
from shared.domain.wav import Flaw, InvalidWavError
from worker.download.content_encoding import content_head, open_content
from worker.download.failures import FetchError
from worker.download.partial_file import Partial
from worker.download.sniffing import PAGE, is_page, is_text
from worker.download.wav_check import Audio, RefusedWavError, read_audio

_PAGE_BYTES = 4096
_NO_AUDIO = Audio(None, None, None)
_INCOMPLETE = frozenset({Flaw.TRUNCATED, Flaw.NO_AUDIO, Flaw.EMPTY})


@dataclass(frozen=True, slots=True)
class Recording:
    """A complete recording. The caller closes its file."""

    file: BinaryIO
    bytes: int
    sha256: str
    sha512: str | None
    audio: Audio


class RefusedError(FetchError):
    """A complete answer that is no complete recording. The caller closes `content`."""

    def __init__(self, reason: Reason, detail: str, content: Recording) -> None:
        super().__init__(reason, detail, size=content.bytes, audio_bytes=content.audio.declared_bytes)
        self.content = content


def examine(part: Partial, max_bytes: int, seen_bytes: int | None, seen_audio_bytes: int | None = None) -> Recording:
    """Check a complete download. Not for the event loop.

    `seen_bytes` is the size at the previous attempt, and `seen_audio_bytes` that of its audio according to its header. A file
    that has grown is still being written. A header that cannot show whether the file is complete is accepted once two attempts
    returned the same sizes.

    Raises:
        RefusedError: it is not a recording, or not yet complete, or cannot be decompressed.
        FetchError: it is empty, too large or a web page.
    """
    if part.size == 0:
        raise FetchError(Reason.EMPTY, "the body is empty")
    part.file.flush()
    try:
        file = open_content(part.file, part.encoding, part.directory, max_bytes)
    except FetchError as error:
        raise _as_sent(part, error) from error
    try:
        return _examine(file, seen_bytes, seen_audio_bytes)
    except RefusedError:
        raise
    except BaseException:
        file.close()
        raise


def _as_sent(part: Partial, error: FetchError) -> FetchError:
    """Return why a body cannot be decompressed, with the body as it was sent, unless it is a compressed page or text."""
    head = content_head(part.file, part.encoding)
    if is_page(head):
        return FetchError(Reason.LOGIN_PAGE, PAGE)
    if error.reason is Reason.TOO_LARGE or (head and is_text(head)):
        return error
    file = os.fdopen(os.dup(part.file.fileno()), "rb")
    return RefusedError(error.reason, error.detail, Recording(file, part.size, *checksums_of(file), _NO_AUDIO))


def _examine(file: BinaryIO, seen_bytes: int | None, seen_audio_bytes: int | None) -> Recording:
    size = file.seek(0, os.SEEK_END)
    try:
        audio = read_audio(file, size)
    except InvalidWavError as error:
        file.seek(0)
        if is_page(file.read(_PAGE_BYTES)):  # a compressed page
            raise FetchError(Reason.LOGIN_PAGE, PAGE) from error
        has_grown = seen_bytes is not None and size > seen_bytes
        reason = Reason.GROWING if has_grown and error.flaw in _INCOMPLETE else Reason(error.flaw)
        audio = error.audio if isinstance(error, RefusedWavError) else _NO_AUDIO
        raise RefusedError(reason, str(error), Recording(file, size, *checksums_of(file), audio)) from error
    if seen_audio_bytes is not None and audio.declared_bytes not in {None, seen_audio_bytes}:
        audio = replace(audio, flags=audio.flags | {Flag.HEADER_CHANGED})
    recording = Recording(file, size, *checksums_of(file), audio)
    is_unchanged = seen_bytes == size and seen_audio_bytes in {None, audio.declared_bytes}
    if audio.is_open_ended and not is_unchanged:
        detail = f"{size} bytes so far. The header does not show whether the audio is complete"
        raise RefusedError(Reason.GROWING, detail, recording)
    return recording
