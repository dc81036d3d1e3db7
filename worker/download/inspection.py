"""A download that is whole: unpacked where the server compressed it, checked as audio, and given its fingerprint."""

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

PAGE = "a page came instead of a recording: wrong or expired token?"
SNIFF_BYTES = 64
_PIECE_BYTES = 16 << 10  # unpacks to 16 MiB at most
# wbits of zlib: gzip or zlib, by the header
_ANY_HEADER = 47
_GZIP = frozenset({"gzip", "x-gzip", "deflate"})


@dataclass(frozen=True, slots=True)
class Recording:
    """A whole recording in a file that the reader closes."""

    file: BinaryIO
    bytes: int
    sha256: str
    audio: Audio


def examine(part: Partial, max_bytes: int, seen_bytes: int | None) -> Recording:
    """Look at a whole download. Reads the file: not for the event loop.

    `seen_bytes`: how large it was at the last try. A header that does not tell the length is believed once two tries saw the
    same; a file that has become larger is still being written.

    Raises:
        FetchError: it is no recording, or not yet.
    """
    if part.size == 0:
        raise FetchError(Reason.EMPTY, "an empty body")
    part.file.flush()
    file = _unpacked(part, max_bytes)
    try:
        size = file.seek(0, os.SEEK_END)
        try:
            audio = read_audio(file, size)
        except InvalidWavError as error:
            reason = Reason(error.flaw)
            if (
                seen_bytes is not None
                and size > seen_bytes
                and error.flaw in {Flaw.TRUNCATED, Flaw.NO_AUDIO, Flaw.LENGTH_MISMATCH}
            ):
                reason = Reason.GROWING
            file.seek(0)
            if is_page(file.read(SNIFF_BYTES)):  # one that came packed
                raise FetchError(Reason.LOGIN_PAGE, PAGE) from error
            raise FetchError(reason, str(error), size=size) from error
        _check_grown(audio, size, seen_bytes)
        digest = sha256_of(file)
    except BaseException:
        file.close()
        raise
    return Recording(file, size, digest, audio)


def is_page(head: bytes) -> bool:
    """Tell whether a file begins as HTML or XML does, byte order marks and white space aside."""
    return head.lstrip(b"\xef\xbb\xbf\xfe\xff\0 \t\r\n\f")[:1] == b"<"


def _check_grown(audio: Audio, size: int, seen_bytes: int | None) -> None:
    if audio.is_open_ended and seen_bytes != size:
        raise FetchError(Reason.GROWING, f"{size} bytes, and the header does not tell how many it will be", size=size)


def _unpacked(part: Partial, max_bytes: int) -> BinaryIO:
    """Undo a compression that was not asked for; the part itself stays as it came."""
    if part.encoding in {"", "identity"}:
        return os.fdopen(os.dup(part.file.fileno()), "rb")
    if part.encoding not in _GZIP:
        raise FetchError(Reason.COMPRESSED, f"Content-Encoding {part.encoding!r:.20} is not understood")
    unpacked: BinaryIO = tempfile.TemporaryFile(dir=part.directory)  # noqa: SIM115 - handed on
    try:
        _unpack(part.file, unpacked, max_bytes)
    except BaseException:
        unpacked.close()
        raise
    return unpacked


def _unpack(packed: BinaryIO, unpacked: BinaryIO, max_bytes: int) -> None:
    """Unpack every member of a body: gzip allows several, one after another, and zeros behind them (RFC 1952, 2.2)."""
    packed.seek(0)
    unpacker = zlib.decompressobj(_ANY_HEADER)
    try:
        while piece := packed.read(_PIECE_BYTES):
            while piece:
                if unpacker.eof and not (piece := piece.lstrip(b"\0")):
                    break
                if unpacker.eof:
                    unpacker = zlib.decompressobj(_ANY_HEADER)
                unpacked.write(unpacker.decompress(piece))
                if unpacked.tell() > max_bytes:
                    raise FetchError(Reason.TOO_LARGE, f"more than {max_bytes} bytes")
                piece = unpacker.unused_data
    except zlib.error as error:
        raise FetchError(Reason.COMPRESSED, "the body cannot be unpacked") from error
    if not unpacker.eof:
        raise FetchError(Reason.TRUNCATED, "the compressed body ends too soon")
