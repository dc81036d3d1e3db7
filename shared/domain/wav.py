"""The parser of RIFF/WAVE headers (RIFF MCI 1991, IBM/Microsoft). It does no I/O: the caller reads the bytes that it asks for.

A parser is a generator. It yields the `Span` that it needs next and is sent the bytes of that span. Spans only move forward in
a file, so a caller can seek in a file or skip in a stream.
"""

from __future__ import annotations

import struct
from collections.abc import Generator
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, TypeVar

_RIFF_HEADER = struct.Struct("<4sI4s")
_CHUNK_HEADER = struct.Struct("<4sI")
_FORMAT = struct.Struct("<HHIIHH")
# Far more than any recorder writes. It limits how many reads a file of empty chunks can cause.
_MAX_CHUNKS = 1000
# Lengths in the headers of recorders that cannot seek back, or have not yet done so.
_UNKNOWN_LENGTHS = (0, 0xFFFFFFFF)


class Flaw(StrEnum):
    """A reason to reject a file."""

    NOT_A_RECORDING = "not_a_recording"
    TRUNCATED = "truncated"
    LENGTH_MISMATCH = "length_mismatch"
    NO_AUDIO = "no_audio"


class InvalidWavError(Exception):
    """The file is not a complete recording."""

    def __init__(self, flaw: Flaw, detail: str) -> None:
        self.flaw = flaw
        super().__init__(detail)


class Span(NamedTuple):
    """Bytes of the file that the parser needs. The caller sends fewer only if the file ends in them."""

    position: int
    size: int


@dataclass(frozen=True, slots=True)
class Format:
    """Content of the format chunk."""

    encoding: int
    channels: int
    sample_rate: int
    byte_rate: int
    bits: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """A chunk, whose content starts at `body`."""

    name: bytes
    body: int
    length: int

    @property
    def end(self) -> int:
        """Return the position of the next chunk, which is even."""
        return self.body + self.length + self.length % 2

    @property
    def has_length(self) -> bool:
        return self.length not in _UNKNOWN_LENGTHS


@dataclass(frozen=True, slots=True)
class Header:
    """All that precedes the audio. `declared_size` is the size of the file, if the header has it."""

    declared_size: int | None
    format: Format
    audio: Chunk


_T = TypeVar("_T")
Parser = Generator[Span, bytes, _T]


def parse_header(size: int | None = None) -> Parser[Header]:
    """Parse a file up to its audio. `size` is the size of the file, if it is known.

    Raises:
        InvalidWavError: not RIFF/WAVE, no audio, or a declared size that is not `size`.
    """
    riff = yield Span(0, _RIFF_HEADER.size)
    if len(riff) < _RIFF_HEADER.size or not riff.startswith(b"RIFF") or not riff.endswith(b"WAVE"):
        raise InvalidWavError(Flaw.NOT_A_RECORDING, "not a RIFF/WAVE file")
    length = _RIFF_HEADER.unpack(riff)[1]
    declared_size = None if length in _UNKNOWN_LENGTHS else length + _CHUNK_HEADER.size
    if size is not None and declared_size is not None:
        _check_size(declared_size, size)
    position = _RIFF_HEADER.size
    audio_format: Format | None = None
    for _ in range(_MAX_CHUNKS):
        chunk = yield from _parse_chunk(position)
        if chunk is None:
            raise InvalidWavError(Flaw.NO_AUDIO, "no audio in the file")
        if chunk.name == b"fmt ":
            audio_format = yield from _parse_format(chunk)
        elif chunk.name == b"data":
            if audio_format is None:
                raise InvalidWavError(Flaw.NOT_A_RECORDING, "the audio precedes its format chunk")
            return Header(declared_size, audio_format, chunk)
        position = chunk.end
    raise _too_many_chunks()


def parse_chunks(position: int) -> Parser[int]:
    """Parse chunks from `position` to the last one. Return where that one ends, which can be past the end of the file.

    Raises:
        InvalidWavError: there is something else than chunks, or too many of them.
    """
    for _ in range(_MAX_CHUNKS):
        chunk = yield from _parse_chunk(position)
        if chunk is None:
            return position
        position = chunk.end
    raise _too_many_chunks()


def _parse_chunk(position: int) -> Parser[Chunk | None]:
    header = yield Span(position, _CHUNK_HEADER.size)
    if len(header) < _CHUNK_HEADER.size:
        return None
    name, length = _CHUNK_HEADER.unpack(header)
    if not all(0x20 <= byte < 0x7F for byte in name):  # noqa: PLR2004 - printable ASCII
        raise InvalidWavError(Flaw.NOT_A_RECORDING, f"no chunk at byte {position}")
    return Chunk(name, position + _CHUNK_HEADER.size, length)


def _parse_format(chunk: Chunk) -> Parser[Format]:
    content = b"" if chunk.length < _FORMAT.size else (yield Span(chunk.body, _FORMAT.size))
    if len(content) < _FORMAT.size:
        raise InvalidWavError(Flaw.NOT_A_RECORDING, "the format chunk is too short")
    encoding, channels, sample_rate, byte_rate, _, bits = _FORMAT.unpack(content)
    if not channels or not sample_rate or not byte_rate:
        raise InvalidWavError(Flaw.NOT_A_RECORDING, "channels, sample rate or byte rate is 0 in the format chunk")
    return Format(encoding, channels, sample_rate, byte_rate, bits)


def _check_size(declared: int, actual: int) -> None:
    """Compare the declared size with the actual size. The pad byte at the end may be missing or not counted."""
    detail = f"the header declares {declared} bytes, the file has {actual}"
    if declared > actual + 1:
        raise InvalidWavError(Flaw.TRUNCATED, f"truncated: {detail}")
    if declared < actual - 1:
        raise InvalidWavError(Flaw.LENGTH_MISMATCH, detail)


def _too_many_chunks() -> InvalidWavError:
    return InvalidWavError(Flaw.NOT_A_RECORDING, f"more than {_MAX_CHUNKS} chunks")
