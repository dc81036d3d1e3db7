"""The parser of RIFF/WAVE headers (RIFF MCI 1991, IBM/Microsoft) and of RF64 (EBU Tech 3306). It does no I/O.

A parser is a generator. It yields the `Span` that it needs next and is sent the bytes of that span. Spans only move forward in
a file, so a caller can seek in a file or skip in a stream. The first span is the beginning of the file, which nearly always has
the whole header. There the parser can also look for chunks that a wrong size hides.
"""

from __future__ import annotations

import struct
from collections.abc import Generator
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, TypeVar

from shared.domain.wav_format import Format, read_format

HEAD_BYTES = 64 << 10
CHUNK_HEADER_BYTES = 8
_FORM_BYTES = 12
_HEADER_BYTES = 44  # the smallest header
FORMS = {b"RIFF": "<", b"RIFX": ">", b"RF64": "<", b"BW64": "<"}
"""Names of the forms, and the byte order of their numbers."""
_FORMS_64 = frozenset({b"RF64", b"BW64"})
_MIN_FORMAT_BYTES, _MAX_FORMAT_BYTES = 16, 4096
_MAX_LEADING_BYTES = 64
LEADING = b"\xef\xbb\xbf\xff\xfe\0 \t\r\n\f\v"
"""Bytes that servers put before a recording: white space, a byte order mark, zeros."""
_ID3_HEADER_BYTES = 10
# Far more than any recorder writes. It limits how many reads a file of empty chunks can cause.
_MAX_CHUNKS = 1000
# Lengths, besides 0, in the headers of recorders that cannot seek back, or have not yet done so. They are the largest that fit
# in 31, 32 or 64 bits, give or take a header. Some recorders subtract a buffer.
_UNKNOWN_LENGTHS = (range(0x7FFE0000, 0x80010000), range(0xFFFE0000, 1 << 32), range(1 << 62, 1 << 64))
_KNOWN_NAMES = frozenset(
    b"fmt ,data,fact,ds64,LIST,INFO,JUNK,junk,PAD ,FLLR,bext,iXML,aXML,axml,cart,chna,cue ,plst,smpl,inst,id3 ,ID3 ,DISP,PEAK,"
    b"afsp,umid,minf,elm1,regn,labl,note,ltxt,acid,strc,_PMX,link,MD5 ,slnt,wavl,mext,dbmd,ovwf,tlst,LGWV,ResU".split(b",")
)


class Flaw(StrEnum):
    """A reason to reject a file."""

    NOT_A_RECORDING = "not_a_recording"
    TRUNCATED = "truncated"
    NO_AUDIO = "no_audio"
    EMPTY = "empty"


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
class Chunk:
    """A chunk, whose content starts at `body`."""

    name: bytes
    body: int
    length: int

    @property
    def end(self) -> int:
        """Return where the content ends. A pad byte may follow if the length is odd."""
        return self.body + self.length

    @property
    def has_length(self) -> bool:
        """Return whether the length is one, and not a placeholder of a recorder that could not fill it in."""
        return self.length != 0 and not any(self.length in unknown for unknown in _UNKNOWN_LENGTHS)

    @property
    def is_known(self) -> bool:
        return self.name in _KNOWN_NAMES


@dataclass(frozen=True, slots=True)
class Header:
    """All that precedes the audio.

    Attributes:
        start: position of the RIFF header.
        declared_end: position where the file ends according to the RIFF header; None if it does not say so.
        audio: the chunk with the audio.
        fact: number of frames in the `fact` chunk.
        order: byte order of numbers, `<` or `>`.
        is_searched: sizes of chunks are wrong, and the parser had to look for the audio.
    """

    start: int
    declared_end: int | None
    format: Format
    audio: Chunk
    fact: int | None
    order: str
    is_searched: bool = False


_T = TypeVar("_T")
Parser = Generator[Span, bytes, _T]


@dataclass(slots=True)
class _HeaderParts:
    """The parts of the header that the parser has read so far."""

    head: bytes
    order: str
    format: Format | None = None
    audio: Chunk | None = None
    fact: int | None = None
    sizes_64: tuple[int, int] | None = None
    is_searched: bool = False
    walked: int = 0  # where the chunks lead to nothing
    is_unusable: bool = False  # the format chunk describes nothing that can be played
    has_others: bool = False  # chunks that are neither format nor audio


def parse_header(size: int | None = None) -> Parser[Header]:
    """Parse a file up to its audio. The audio can precede the end of the last span only if it precedes its format chunk.

    With `size`, the size of the file, an error distinguishes a file that was cut in its header from one that never had audio.

    Raises:
        InvalidWavError: not RIFF/WAVE, or no audio.
    """
    head = yield Span(0, HEAD_BYTES)
    start = _start(head)
    name, length, _ = struct.unpack_from("<4sI4s", head, start)
    parts = _HeaderParts(head, FORMS[name])
    yield from _walk(parts, start + _FORM_BYTES)
    if parts.format is None or parts.audio is None:
        _search(parts, start + _FORM_BYTES)
    length = parts.sizes_64[0] if parts.sizes_64 and name in _FORMS_64 else _swapped(length, parts.order)
    riff = Chunk(name, start + CHUNK_HEADER_BYTES, length)
    declared_end = riff.end if riff.has_length else None
    if parts.format is None or parts.audio is None:
        raise _without_audio(parts, declared_end, size)
    audio = parts.audio
    if parts.sizes_64 and name in _FORMS_64 and audio.length == 0xFFFFFFFF:  # noqa: PLR2004 - EBU Tech 3306
        audio = Chunk(audio.name, audio.body, parts.sizes_64[1])
    return Header(start, declared_end, parts.format, audio, parts.fact, parts.order, parts.is_searched)


def parse_chunks(position: int, order: str) -> Parser[list[Chunk]]:
    """Parse chunks from `position`, where one ends, until the end of the file or something else than a chunk.

    The last one may end past the end of the file.
    """
    chunks: list[Chunk] = []
    for _ in range(_MAX_CHUNKS):
        previous = chunks[-1].length if chunks else 1  # the first one may follow a pad byte
        chunk = yield from _parse_chunk(b"", position, order, is_odd=previous % 2 == 1)
        if chunk is None or not _is_printable(chunk.name):
            break
        chunks.append(chunk)
        position = chunk.end
    return chunks


def _start(head: bytes) -> int:
    """Return the position of the RIFF header. White space, a byte order mark or an ID3 tag may precede it."""
    start = 0
    if head[:3] == b"ID3" and len(head) > _ID3_HEADER_BYTES:
        first, second, third, last = head[6:_ID3_HEADER_BYTES]
        start = _ID3_HEADER_BYTES + (first << 21 | second << 14 | third << 7 | last)
    elif head[:4] not in FORMS:
        start = len(head) - len(head.lstrip(LEADING))
        start = start if start <= _MAX_LEADING_BYTES else 0
    if head[start : start + 4] not in FORMS or head[start + 8 : start + _FORM_BYTES] != b"WAVE":
        raise InvalidWavError(Flaw.NOT_A_RECORDING, "not a RIFF/WAVE file")
    return start


def _without_audio(parts: _HeaderParts, declared_end: int | None, size: int | None) -> InvalidWavError:
    if parts.audio is not None or parts.is_unusable:
        return InvalidWavError(Flaw.NOT_A_RECORDING, "the file has no usable format chunk")
    if size is not None and declared_end is not None and declared_end > size + 1:
        return InvalidWavError(Flaw.TRUNCATED, f"truncated: the header declares {declared_end} bytes, the file has {size}")
    if parts.format is None and (parts.has_others or len(parts.head) > _HEADER_BYTES):
        return InvalidWavError(Flaw.NOT_A_RECORDING, "neither a format chunk nor audio")
    return InvalidWavError(Flaw.NO_AUDIO if parts.has_others else Flaw.EMPTY, "no audio in the file")


def _walk(parts: _HeaderParts, position: int) -> Parser[None]:
    """Follow the chunks to the audio, or to the format if it comes later."""
    previous = 0
    for _ in range(_MAX_CHUNKS):
        parts.walked = position
        chunk = yield from _parse_chunk(parts.head, position, parts.order, is_odd=previous % 2 == 1)
        if chunk is None or not (_is_printable(chunk.name) or _leads_on(parts.head, chunk)):
            return
        if chunk.name == b"data":
            parts.audio = parts.audio or chunk
            if parts.format is not None or not chunk.has_length:
                return
        elif chunk.name == b"fmt ":
            content = yield from _read(parts.head, chunk.body, min(chunk.length, _MAX_FORMAT_BYTES))
            parts.format = parts.format or read_format(content, parts.order)
            parts.is_unusable = parts.format is None and len(content) >= _MIN_FORMAT_BYTES
            if parts.audio is not None:
                return
        else:
            yield from _read_other(parts, chunk)
        position, previous = chunk.end, chunk.length


def _read_other(parts: _HeaderParts, chunk: Chunk) -> Parser[None]:
    if chunk.name == b"ds64" and chunk.length >= 16:  # noqa: PLR2004 - two sizes
        content = yield from _read(parts.head, chunk.body, 16)
        parts.sizes_64 = struct.unpack("<QQ", content) if len(content) == 16 else None  # noqa: PLR2004 - as above
    elif chunk.name == b"fact" and chunk.length >= 4:  # noqa: PLR2004 - one number
        content = yield from _read(parts.head, chunk.body, 4)
        parts.fact = int.from_bytes(content, "little" if parts.order == "<" else "big")
    else:
        parts.has_others = True


def _search(parts: _HeaderParts, position: int) -> None:
    """Find the format and the audio by their names, because a wrong size of a chunk hides them."""
    head = parts.head
    audio_format = None
    begin = head.find(b"fmt ", position)
    while begin >= 0:
        chunk = _chunk(head[begin : begin + CHUNK_HEADER_BYTES], begin, parts.order)
        audio_format = None if chunk is None else read_format(head[chunk.body : chunk.body + _MAX_FORMAT_BYTES], parts.order)
        if audio_format is not None:
            break
        begin = head.find(b"fmt ", begin + 1)
    else:
        return
    # The content of a chunk before that place may have the name in it.
    position = head.find(b"data", max(parts.walked, begin + CHUNK_HEADER_BYTES))
    position = head.find(b"data", begin + CHUNK_HEADER_BYTES) if position < 0 else position
    audio = _chunk(head[position : position + CHUNK_HEADER_BYTES], position, parts.order) if position >= 0 else None
    if audio is not None:
        parts.format, parts.audio, parts.is_searched = audio_format, audio, True
        fact = head.find(struct.pack(f"{parts.order}4sI", b"fact", 4), begin, position)
        if parts.fact is None and fact >= 0:
            parts.fact = int(struct.unpack_from(f"{parts.order}I", head, fact + CHUNK_HEADER_BYTES)[0])


def _parse_chunk(head: bytes, position: int, order: str, *, is_odd: bool) -> Parser[Chunk | None]:
    """Parse a chunk at `position`, or one byte later if a pad byte precedes it. Some recorders omit the pad byte."""
    content = yield from _read(head, position, CHUNK_HEADER_BYTES + is_odd)
    plain = _chunk(content[:CHUNK_HEADER_BYTES], position, order)
    padded = _chunk(content[1:], position + 1, order) if is_odd else None
    candidates = [chunk for chunk in (padded, plain) if chunk is not None]
    return max(candidates, key=lambda chunk: (chunk.is_known, _is_printable(chunk.name)), default=None)


def _chunk(content: bytes, position: int, order: str) -> Chunk | None:
    if len(content) < CHUNK_HEADER_BYTES:
        return None
    name, length = struct.unpack(f"{order}4sI", content)
    return Chunk(name, position + CHUNK_HEADER_BYTES, length)


def _leads_on(head: bytes, chunk: Chunk) -> bool:
    """Return whether a chunk of a strange name is one: another chunk of a known name follows."""
    return any(head[end : end + 4] in _KNOWN_NAMES for end in {chunk.end, chunk.end + chunk.length % 2})


def _read(head: bytes, position: int, size: int) -> Parser[bytes]:
    if position + size <= len(head) or 0 < len(head) < HEAD_BYTES:
        return head[position : position + size]
    return (yield Span(position, size))


def _is_printable(name: bytes) -> bool:
    return all(0x20 <= byte < 0x7F for byte in name)  # noqa: PLR2004 - printable ASCII


def _swapped(number: int, order: str) -> int:
    return number if order == "<" else int.from_bytes(number.to_bytes(4, "little"), "big")
