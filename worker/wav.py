"""Is this file a recording? RIFF/WAVE structure checked against the bytes that are there (RIFF MCI 1991, IBM/Microsoft)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO

_CHUNK = struct.Struct("<4sI")
_FORMAT = struct.Struct("<HHIIHH")
_STREAMED = (0, 0xFFFFFFFF)  # sizes of writers that could not seek back to fill them in


class InvalidWavError(Exception):
    """The bytes are no whole recording; the text says why."""


@dataclass(frozen=True, slots=True)
class Audio:
    """What a recording's header tells. `seconds` is the length of the audio that is really there."""

    seconds: float
    channels: int
    sample_rate: int


def read_audio(file: BinaryIO, size: int) -> Audio:
    """Check a file of `size` bytes, read from its beginning.

    Raises:
        InvalidWavError: not RIFF/WAVE, no audio, or a header that disagrees with the size.
    """
    file.seek(0)
    head = file.read(12)
    if len(head) < 12 or head[:4] != b"RIFF" or head[8:] != b"WAVE":  # noqa: PLR2004 - the length of that header
        raise InvalidWavError("not a RIFF/WAVE file")
    declared = struct.unpack("<I", head[4:8])[0]
    if declared not in _STREAMED and declared + 8 > size + 1:  # a pad byte may be missing at the end
        raise InvalidWavError(f"truncated: the header tells {declared + 8} bytes, {size} are there")
    rate: tuple[int, int, int] | None = None
    position = 12
    while position + _CHUNK.size <= size:
        file.seek(position)
        name, length = _CHUNK.unpack(file.read(_CHUNK.size))
        body = position + _CHUNK.size
        if name == b"fmt ":
            rate = _read_format(file, length)
        elif name == b"data":
            return _audio(rate, length, size - body)
        position = body + length + length % 2
    raise InvalidWavError("no audio in the file")


def _read_format(file: BinaryIO, length: int) -> tuple[int, int, int]:
    told = file.read(_FORMAT.size)
    if length < _FORMAT.size or len(told) < _FORMAT.size:
        raise InvalidWavError("the format chunk is too short")
    _, channels, sample_rate, byte_rate, _, _ = _FORMAT.unpack(told)
    if not channels or not sample_rate or not byte_rate:
        raise InvalidWavError("the format chunk has a zero where none can be")
    return channels, sample_rate, byte_rate


def _audio(rate: tuple[int, int, int] | None, declared: int, there: int) -> Audio:
    if rate is None:
        raise InvalidWavError("audio before its format")
    if declared not in _STREAMED and declared > there:
        raise InvalidWavError(f"truncated: {declared} bytes of audio told, {there} are there")
    length = there if declared in _STREAMED else declared
    if not length:
        raise InvalidWavError("no audio in the file")
    channels, sample_rate, byte_rate = rate
    return Audio(length / byte_rate, channels, sample_rate)
