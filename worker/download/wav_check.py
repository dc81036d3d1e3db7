"""Checks that the audio of a WAV file is whole. The audio decides; wrong sizes and bytes around it are only flagged."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import BinaryIO, TypeVar

from shared.domain.recording_flags import Flag
from shared.domain.wav import CHUNK_HEADER_BYTES, Chunk, Flaw, Header, InvalidWavError, Parser, parse_chunks, parse_header
from worker.download.sniffing import is_text

_T = TypeVar("_T")
# What other programs put behind a recording. Anything else may be audio that the header does not count yet.
_TAGS = (b"ID3", b"TAG", b"APETAGEX", b"LYRICS", b"3DI")
_BLANK = b"\0 \t\r\n\x1a"
_MAX_BLANK_BYTES = 4096
_MAX_BLANK_INSTEAD_OF_AUDIO = 16
_MIN_SECONDS_SINCE = 1.0
_PIECE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Audio:
    """Properties of the audio in a file.

    Attributes:
        seconds: duration of the audio that is in the file; None if its encoding is unknown.
        declared_bytes: size of the audio according to the header; None if it does not say so.
        is_open_ended: the header cannot show whether the file is complete: it lacks the size of the audio, or audio may follow
            that it does not count.
    """

    seconds: float | None
    channels: int | None
    sample_rate: int | None
    flags: frozenset[Flag] = frozenset()
    declared_bytes: int | None = None
    is_open_ended: bool = False


class RefusedWavError(InvalidWavError):
    """The file is not a complete recording; `audio` describes what there is of it."""

    def __init__(self, flaw: Flaw, detail: str, audio: Audio) -> None:
        super().__init__(flaw, detail)
        self.audio = audio


@dataclass(frozen=True, slots=True)
class _Rest:
    """The chunks that follow the audio, then `other` bytes. With `is_cut`, the last chunk ends past the end of the file."""

    chunks: list[Chunk]
    other: int
    is_cut: bool = False


def read_audio(file: BinaryIO, size: int) -> Audio:
    """Check a file of `size` bytes.

    Raises:
        InvalidWavError: not RIFF/WAVE, no audio, or less audio than the header declares.
    """
    return _check(file, _run(parse_header(size), file), size)


def has_declared_size(file: BinaryIO, size: int) -> bool:
    """Return whether a file ends where its header says, and its audio before that."""
    try:
        header = _run(parse_header(size), file)
    except InvalidWavError:
        return False
    return header.declared_end == size >= header.audio.end


def _check(file: BinaryIO, header: Header, size: int) -> Audio:
    available = max(size - header.audio.body, 0)
    length = header.audio.length
    if not header.audio.has_length and not 0 < length <= available:
        return _open_ended(file, header, size, available)
    if length > available and _counts_the_header(header, size):
        flags = frozenset({Flag.CHUNK_SIZES}) | _flags_of_header(header)
        return _audio(header, available, flags, length, is_open_ended=True)
    if length > available:
        raise RefusedWavError(
            Flaw.TRUNCATED,
            f"truncated: the header declares {length} bytes of audio, the file has {available}",
            _audio(header, available, frozenset(), length),
        )
    rest = _rest(file, header.audio.end, size, header.order)
    for more in rest.chunks:
        if more.name == b"data" and more.has_length and more.end > size:
            detail = f"truncated: the second part of the audio lacks {more.end - size} bytes"
            raise RefusedWavError(Flaw.TRUNCATED, detail, _audio(header, length, frozenset(), length))
    is_uncounted = _may_be_audio(file, rest, size)
    # The size of the file counts what follows, and no chunk begins there: the size of the audio is too small.
    is_all_audio = is_uncounted and not rest.chunks and header.declared_end is not None and abs(header.declared_end - size) <= 1
    is_untold = any(more.name == b"data" and not more.has_length and more.body < size for more in rest.chunks)
    is_open_ended = is_uncounted or is_untold or header.declared_end is None
    is_outdated = is_uncounted and _are_sizes_outdated(file, header, rest, size)
    audio_bytes = length + rest.other if is_all_audio or is_outdated else length
    flags = _flags(header, rest, size)
    flags = flags - {Flag.TRAILING_BYTES} | {Flag.SIZES_OUTDATED} if is_outdated else flags
    audio = _audio(header, audio_bytes, flags, length, is_open_ended=is_open_ended)
    if is_outdated and audio_bytes % header.format.block_bytes:
        return replace(audio, seconds=None)  # nothing says how much of the rest is audio
    if audio.seconds == 0:
        raise InvalidWavError(Flaw.NO_AUDIO, "less than one sample of audio in the file")
    return audio


def _are_sizes_outdated(file: BinaryIO, header: Header, rest: _Rest, size: int) -> bool:
    """Return whether a writer that was killed has written audio since it last wrote the sizes into the header.

    Both sizes end at the same place, and at least a second of audio follows. Less changes little, and may be anything.
    """
    if rest.chunks or header.declared_end is None or abs(header.declared_end - header.audio.end) > 1:
        return False
    if (header.format.seconds(rest.other) or 0) < _MIN_SECONDS_SINCE:
        return False
    file.seek(size - rest.other)
    piece = file.read(_MAX_BLANK_BYTES)
    if is_text(piece):
        return False
    while piece and not piece.strip(b"\0"):  # a file can be reserved before it is written
        piece = file.read(_PIECE_BYTES)
    return bool(piece)


def _counts_the_header(header: Header, size: int) -> bool:
    """Return whether the size of the audio includes headers, as some recorders write it, while the size of the file is right.

    A file that was cut is shorter than both sizes say. Here they contradict each other.
    """
    total, end = header.declared_end, header.audio.end
    if total is None or end <= total + 1 or total - size not in {-1, 0, 1, CHUNK_HEADER_BYTES}:
        return False
    if header.format.seconds(size - header.audio.body, header.fact) == 0:
        return False
    before = header.audio.body - header.start
    counted = {CHUNK_HEADER_BYTES, 36, before - CHUNK_HEADER_BYTES, before}
    return not counted.isdisjoint({end - size, end - size + header.audio.length % 2})


def _open_ended(file: BinaryIO, header: Header, size: int, available: int) -> Audio:
    """Check a file whose header lacks the size of the audio. All that follows is audio, unless it is chunks."""
    if not available:
        raise InvalidWavError(Flaw.EMPTY, "a header without audio")
    rest = _rest(file, header.audio.body, size, header.order)
    more = next((chunk for chunk in rest.chunks if chunk.name == b"data" and chunk.has_length), None)
    if more is not None:  # an empty chunk precedes the audio
        return _check(file, replace(header, audio=more), size)
    if rest.chunks and (not rest.other or rest.chunks[0].is_known):
        raise InvalidWavError(Flaw.NO_AUDIO, "no audio in the file, only other chunks")
    audio = _audio(header, available, frozenset({Flag.SIZE_UNKNOWN}) | _flags_of_header(header), None, is_open_ended=True)
    file.seek(header.audio.body)
    if audio.seconds == 0 or (available <= _MAX_BLANK_INSTEAD_OF_AUDIO and not file.read(available).strip(_BLANK)):
        raise InvalidWavError(Flaw.NO_AUDIO, "no audio in the file")
    return audio


def _audio(header: Header, length: int, flags: frozenset[Flag], declared: int | None, *, is_open_ended: bool = False) -> Audio:
    seconds = header.format.seconds(length, header.fact)
    return Audio(seconds, header.format.channels, header.format.sample_rate, flags, declared, is_open_ended)


def _flags_of_header(header: Header) -> frozenset[Flag]:
    flags = {Flag.LEADING_BYTES: header.start > 0, Flag.CHUNK_SIZES: header.is_searched}
    return frozenset(flag for flag, is_set in flags.items() if is_set)


def _flags(header: Header, rest: _Rest, size: int) -> frozenset[Flag]:
    """Return what is unusual about a file with whole audio. The pad byte at the end may be missing, or not counted."""
    ends = {size, size - rest.other} if rest.other or rest.is_cut else {size}
    if rest.is_cut:
        ends = {size, *(chunk.end for chunk in rest.chunks), header.audio.end}
    declared_end = header.declared_end
    flags = {
        Flag.RIFF_SIZE: declared_end is not None and all(abs(declared_end - end) > 1 for end in ends),
        Flag.SIZE_UNKNOWN: declared_end is None,
        Flag.TRAILING_BYTES: rest.other > 0 or rest.is_cut,
        Flag.MORE_AUDIO: any(chunk.name == b"data" for chunk in rest.chunks),
    }
    return frozenset(flag for flag, is_set in flags.items() if is_set) | _flags_of_header(header)


def _rest(file: BinaryIO, position: int, size: int, order: str) -> _Rest:
    """Return what follows the audio, which ends at `position`."""
    chunks = _run(parse_chunks(position, order), file)
    end = chunks[-1].end if chunks else position
    if end <= size:
        return _Rest(chunks, 0 if _is_pad(file, end, size) else size - end)
    # Without a known name, these are hardly the size and name of a chunk.
    return _Rest(chunks, 0, is_cut=True) if chunks[-1].is_known else _Rest(chunks[:-1], size - (chunks[-1].body - 8))


def _is_pad(file: BinaryIO, position: int, size: int) -> bool:
    """Return whether nothing but a pad byte is left."""
    file.seek(position)
    return size == position or (size - position == 1 and file.read(1) == b"\0")


def _may_be_audio(file: BinaryIO, rest: _Rest, size: int) -> bool:
    """Return whether the bytes behind the last chunk may be audio that the header does not count yet."""
    if not rest.other:
        return False
    file.seek(size - rest.other)
    beginning = file.read(min(rest.other, _MAX_BLANK_BYTES + 1))
    is_blank = len(beginning) <= _MAX_BLANK_BYTES and not beginning.strip(_BLANK)
    return not is_blank and not beginning.lstrip(_BLANK).startswith(_TAGS)


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
