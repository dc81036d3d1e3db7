"""Is this file a recording? RIFF/WAVE structure checked against the bytes that are there (RIFF MCI 1991, IBM/Microsoft)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import BinaryIO

_CHUNK = struct.Struct("<4sI")
_FORMAT = struct.Struct("<HHIIHH")
# Far more than any recorder writes; a file of chunks alone must not cost a look at each of millions.
_MAX_CHUNKS = 1000
_STREAMED = (0, 0xFFFFFFFF)  # sizes of writers that could not, or not yet, seek back to fill them in


class Flaw(StrEnum):
    """What is wrong with a file that should be a recording."""

    NOT_A_RECORDING = "not_a_recording"
    TRUNCATED = "truncated"
    LENGTH_MISMATCH = "length_mismatch"
    NO_AUDIO = "no_audio"


class InvalidWavError(Exception):
    """The bytes are no whole recording; the text says why."""

    def __init__(self, flaw: Flaw, detail: str) -> None:
        self.flaw = flaw
        super().__init__(detail)


@dataclass(frozen=True, slots=True)
class Audio:
    """What a recording's header tells.

    Attributes:
        seconds: length of the audio that is really there.
        is_open_ended: the header does not tell the length of the file, or not that of the audio, so that the file itself does
            not show whether it is whole.
    """

    seconds: float
    channels: int
    sample_rate: int
    is_open_ended: bool = False


@dataclass(frozen=True, slots=True)
class _Format:
    """What is used of the format chunk."""

    channels: int
    sample_rate: int
    byte_rate: int


def read_audio(file: BinaryIO, size: int) -> Audio:
    """Check a file of `size` bytes, read from its beginning.

    Raises:
        InvalidWavError: not RIFF/WAVE, no audio, or a header that disagrees with the size.
    """
    file.seek(0)
    head = file.read(12)
    if len(head) < 12 or head[:4] != b"RIFF" or head[8:] != b"WAVE":  # noqa: PLR2004 - the length of that header
        raise InvalidWavError(Flaw.NOT_A_RECORDING, "not a RIFF/WAVE file")
    declared = struct.unpack("<I", head[4:8])[0]
    if declared not in _STREAMED:
        _check_length(declared + 8, size)
    found: _Format | None = None
    for chunk in _chunks(file, 12, size):
        if chunk.name == b"fmt ":
            file.seek(chunk.body)
            found = _read_format(file, chunk.length)
        elif chunk.name == b"data":
            audio = _audio(found, chunk.length, size - chunk.body)
            if not audio.is_open_ended:
                _check_rest(file, chunk, size)
            return replace(audio, is_open_ended=audio.is_open_ended or declared in _STREAMED)
    raise InvalidWavError(Flaw.NO_AUDIO, "no audio in the file")


@dataclass(frozen=True, slots=True)
class _Chunk:
    name: bytes
    body: int
    length: int

    @property
    def end(self) -> int:
        """Where the next one begins: chunks lie at even offsets."""
        return self.body + self.length + self.length % 2


def _chunks(file: BinaryIO, position: int, size: int) -> Iterator[_Chunk]:
    """Walk chunk by chunk to where no other fits.

    Raises:
        InvalidWavError: what stands there is no chunk, or there is no end of them.
    """
    for _ in range(_MAX_CHUNKS):
        if position + _CHUNK.size > size:
            return
        file.seek(position)
        name, length = _CHUNK.unpack(file.read(_CHUNK.size))
        if not all(0x20 <= byte < 0x7F for byte in name):  # noqa: PLR2004 - printable ASCII
            raise InvalidWavError(Flaw.NOT_A_RECORDING, f"no chunk at byte {position}")
        chunk = _Chunk(name, position + _CHUNK.size, length)
        yield chunk
        position = chunk.end
    raise InvalidWavError(Flaw.NOT_A_RECORDING, f"more than {_MAX_CHUNKS} chunks")


def _check_rest(file: BinaryIO, data: _Chunk, size: int) -> None:
    """See that what lies behind the audio is chunks to the last byte, and no audio that the header does not count.

    Some writers leave out the pad byte behind an odd number of bytes.
    """
    flaws = {_flaw_of_rest(file, position, size) for position in (data.end, data.body + data.length)}
    if None not in flaws:
        flaw = Flaw.TRUNCATED if Flaw.TRUNCATED in flaws else Flaw.LENGTH_MISMATCH
        raise InvalidWavError(flaw, f"{data.length} bytes of audio told, and what follows them is not whole chunks")


def _flaw_of_rest(file: BinaryIO, position: int, size: int) -> Flaw | None:
    try:
        for chunk in _chunks(file, position, size):
            position = chunk.end
    except InvalidWavError:
        return Flaw.LENGTH_MISMATCH
    if position > size + 1:
        return Flaw.TRUNCATED
    return None if size - position <= 1 else Flaw.LENGTH_MISMATCH


def _check_length(declared: int, there: int) -> None:
    """Hold the header's length against the bytes; one pad byte at the end may be there or not."""
    if declared > there + 1:
        raise InvalidWavError(Flaw.TRUNCATED, f"truncated: the header tells {declared} bytes, {there} are there")
    if declared < there - 1:
        raise InvalidWavError(Flaw.LENGTH_MISMATCH, f"the header tells {declared} bytes, {there} are there")


def _read_format(file: BinaryIO, length: int) -> _Format:
    told = file.read(_FORMAT.size)
    if length < _FORMAT.size or len(told) < _FORMAT.size:
        raise InvalidWavError(Flaw.NOT_A_RECORDING, "the format chunk is too short")
    _, channels, sample_rate, byte_rate, _, _ = _FORMAT.unpack(told)
    if not channels or not sample_rate or not byte_rate:
        raise InvalidWavError(Flaw.NOT_A_RECORDING, "the format chunk has a zero where none can be")
    return _Format(channels, sample_rate, byte_rate)


def _audio(found: _Format | None, declared: int, there: int) -> Audio:
    if found is None:
        raise InvalidWavError(Flaw.NOT_A_RECORDING, "audio before its format")
    is_open_ended = declared in _STREAMED
    if not is_open_ended and declared > there:
        raise InvalidWavError(Flaw.TRUNCATED, f"truncated: {declared} bytes of audio told, {there} are there")
    length = there if is_open_ended else declared
    if not length:
        raise InvalidWavError(Flaw.NO_AUDIO, "no audio in the file")
    return Audio(length / found.byte_rate, found.channels, found.sample_rate, is_open_ended)
