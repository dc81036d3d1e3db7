"""Checks that a file is a complete recording: its WAV header must account for every byte."""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO, TypeVar

from shared.domain.wav import Chunk, Flaw, InvalidWavError, Parser, parse_chunks, parse_header

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Audio:
    """Properties of the audio in a file.

    Attributes:
        seconds: duration of the audio that is in the file.
        is_open_ended: the header lacks the length of the file or of the audio, so it cannot show whether the file is complete.
    """

    seconds: float
    channels: int
    sample_rate: int
    is_open_ended: bool = False


def read_audio(file: BinaryIO, size: int) -> Audio:
    """Check a file of `size` bytes.

    Raises:
        InvalidWavError: not RIFF/WAVE, no audio, or a header that does not match the file.
    """
    header = _run(parse_header(size), file)
    audio, available = header.audio, size - header.audio.body
    if audio.has_length and audio.length > available:
        raise InvalidWavError(
            Flaw.TRUNCATED, f"truncated: the header declares {audio.length} bytes of audio, the file has {available}"
        )
    length = audio.length if audio.has_length else available
    if not length:
        raise InvalidWavError(Flaw.NO_AUDIO, "no audio in the file")
    if audio.has_length:
        _check_rest(file, audio, size)
    is_open_ended = not audio.has_length or header.declared_size is None
    return Audio(length / header.format.byte_rate, header.format.channels, header.format.sample_rate, is_open_ended)


def _check_rest(file: BinaryIO, audio: Chunk, size: int) -> None:
    """Check that only complete chunks follow the audio, and no audio that the header does not count.

    Some recorders omit the pad byte after an odd number of bytes.
    """
    flaws = {_flaw_of_rest(file, position, size) for position in (audio.end, audio.body + audio.length)}
    if None not in flaws:
        flaw = Flaw.TRUNCATED if Flaw.TRUNCATED in flaws else Flaw.LENGTH_MISMATCH
        raise InvalidWavError(flaw, f"the header declares {audio.length} bytes of audio, but no complete chunks follow them")


def _flaw_of_rest(file: BinaryIO, position: int, size: int) -> Flaw | None:
    try:
        end = _run(parse_chunks(position), file)
    except InvalidWavError:
        return Flaw.LENGTH_MISMATCH
    if end > size + 1:
        return Flaw.TRUNCATED
    return None if size - end <= 1 else Flaw.LENGTH_MISMATCH


def _run(parser: Parser[_T], file: BinaryIO) -> _T:
    """Read what a parser asks for."""
    span = next(parser)
    while True:
        file.seek(span.position)
        content = file.read(span.size)
        try:
            span = parser.send(content)
        except StopIteration as stop:
            result: _T = stop.value
            return result
