"""Checks a complete download: decompresses it if the server compressed it, checks its audio, and computes its checksum."""

from __future__ import annotations

import os
import tempfile
import zlib
from dataclasses import dataclass
from typing import BinaryIO

from shared.archive.checksum import sha256_of
from shared.domain.wav import Flaw, InvalidWavError
from worker.download.failures import FetchError, Reason
from worker.download.partial_file import Partial
from worker.download.wav_check import Audio, read_audio

PAGE = "a web page instead of a recording. The token may be wrong or expired"
SNIFF_BYTES = 64
_PIECE_BYTES = 16 << 10  # decompresses to 16 MiB at most
# wbits of zlib: detect gzip or zlib by the header
_ANY_HEADER = 47
_COMPRESSIONS = frozenset({"gzip", "x-gzip", "deflate"})
_INCOMPLETE = frozenset({Flaw.TRUNCATED, Flaw.NO_AUDIO, Flaw.LENGTH_MISMATCH})


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
    file = _decompressed(part, max_bytes)
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


def _decompressed(part: Partial, max_bytes: int) -> BinaryIO:
    """Return the content, decompressed if the server compressed it unasked. The partial file is not changed."""
    if part.encoding in {"", "identity"}:
        return os.fdopen(os.dup(part.file.fileno()), "rb")
    if part.encoding not in _COMPRESSIONS:
        raise FetchError(Reason.COMPRESSED, f"Content-Encoding {part.encoding!r:.20} is not supported")
    plain: BinaryIO = tempfile.TemporaryFile(dir=part.directory)  # noqa: SIM115 - returned
    try:
        _decompress(part.file, plain, max_bytes)
    except BaseException:
        plain.close()
        raise
    return plain


def _decompress(compressed: BinaryIO, plain: BinaryIO, max_bytes: int) -> None:
    """Decompress every member of a body. gzip allows several, and zeros after them (RFC 1952, 2.2)."""
    compressed.seek(0)
    decompressor = zlib.decompressobj(_ANY_HEADER)
    try:
        while piece := compressed.read(_PIECE_BYTES):
            while piece:
                if decompressor.eof and not (piece := piece.lstrip(b"\0")):
                    break
                if decompressor.eof:
                    decompressor = zlib.decompressobj(_ANY_HEADER)
                plain.write(decompressor.decompress(piece))
                if plain.tell() > max_bytes:
                    raise FetchError(Reason.TOO_LARGE, f"more than {max_bytes} bytes (CALLFOLD_RECORDING_MAX_BYTES)")
                piece = decompressor.unused_data
    except zlib.error as error:
        raise FetchError(Reason.COMPRESSED, "the body cannot be decompressed") from error
    if not decompressor.eof:
        raise FetchError(Reason.TRUNCATED, "the compressed body is incomplete")
