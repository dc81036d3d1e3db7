"""The waveform of a recording as an SVG picture, read while its bytes pass by: memory holds peaks and one stretch of audio.

Telephone recordings: PCM of 8 or 16 bit, A-law and mu-law (ITU-T G.711), mono or stereo. Any other format has no picture.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

BINS = 300
_HEAD = struct.Struct("<4s4x4s")
_CHUNK = struct.Struct("<4sI")
_FORMAT = struct.Struct("<HHIIHH")
_PCM, _A_LAW, _MU_LAW = 1, 6, 7
_MAX_CHANNELS = 2
_MAX_FORMAT_BYTES = 1024  # a format chunk has 40 at most
_FIRST_BIN_FRAMES = 64
_STREAMED = (0, 0xFFFFFFFF)  # lengths of writers that could not seek back to fill them in
_LANE = 40


@dataclass(frozen=True, slots=True)
class Peaks:
    """The loudest moment of each stretch of a recording: one row a channel, each value from 0 to 1."""

    channels: tuple[tuple[float, ...], ...]
    seconds: float


class UnsupportedError(Exception):
    """No format that is drawn."""


@dataclass(slots=True)
class _Lane:
    """One channel. Its bins grow as the audio goes on, so that there are never more than twice `BINS`."""

    peaks: list[float] = field(default_factory=list)

    def add(self, peak: float, limit: int) -> bool:
        self.peaks.append(peak)
        return len(self.peaks) >= limit

    def halve(self) -> None:
        self.peaks = [max(self.peaks[index : index + 2]) for index in range(0, len(self.peaks), 2)]


@dataclass(frozen=True, slots=True)
class _Format:
    encoding: int
    channels: int
    sample_rate: int
    bits: int

    @property
    def frame_bytes(self) -> int:
        return self.channels * self.bits // 8


class PeakReader:
    """Takes a WAV file in pieces of any size and keeps only peaks: for bytes that come asynchronously.

    Example: `reader.feed(piece)` for each piece, then `reader.peaks()`.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._position = "head"
        self._skip = 0
        self._left: int | None = None
        self._format: _Format | None = None
        self._lanes: list[_Lane] = []
        self._bin_frames = _FIRST_BIN_FRAMES
        self._frames = 0
        self._unsupported = False

    def feed(self, piece: bytes) -> None:
        """Take the next piece; after what cannot be drawn, pieces are only let pass."""
        if self._unsupported or self._position == "after":
            return
        self._buffer += piece
        try:
            while self._step():
                pass
        except UnsupportedError:
            self._unsupported = True
            self._buffer.clear()

    def peaks(self) -> Peaks | None:
        """Tell what was read so far; None where there is no audio of a format that can be drawn."""
        if self._unsupported or self._format is None:
            return None
        self._take_bins(at_end=True)
        if not self._frames:
            return None
        for lane in self._lanes:
            while len(lane.peaks) > BINS:
                lane.halve()
        return Peaks(tuple(tuple(lane.peaks) for lane in self._lanes), self._frames / self._format.sample_rate)

    def _step(self) -> bool:
        """Read one more part of the file; False where more bytes are needed."""
        if self._skip:
            skipped = min(self._skip, len(self._buffer))
            del self._buffer[:skipped]
            self._skip -= skipped
            if self._skip:
                return False
        if self._position == "head":
            return self._read_head()
        if self._position == "chunks":
            return self._read_chunk()
        if self._position == "audio":
            self._take_bins()
        return False

    def _read_head(self) -> bool:
        if len(self._buffer) < _HEAD.size:
            return False
        if _HEAD.unpack_from(self._buffer) != (b"RIFF", b"WAVE"):
            raise UnsupportedError
        del self._buffer[: _HEAD.size]
        self._position = "chunks"
        return True

    def _read_chunk(self) -> bool:
        if len(self._buffer) < _CHUNK.size:
            return False
        name, length = _CHUNK.unpack_from(self._buffer)
        if name == b"data":
            if self._format is None:
                raise UnsupportedError
            self._left = None if length in _STREAMED else length
            self._position = "audio"
            del self._buffer[: _CHUNK.size]
            return True
        if name == b"fmt ":
            if not _FORMAT.size <= length <= _MAX_FORMAT_BYTES:
                raise UnsupportedError
            if len(self._buffer) < _CHUNK.size + length:
                return False
            self._format = _read_format(bytes(self._buffer[_CHUNK.size : _CHUNK.size + _FORMAT.size]))
            self._lanes = [_Lane() for _ in range(self._format.channels)]
        self._skip = _CHUNK.size + length + length % 2
        return True

    def _take_bins(self, *, at_end: bool = False) -> None:
        """Turn the audio in the buffer into peaks; the last, shorter stretch only at the end."""
        if self._format is None or self._position not in ("audio", "after"):
            return
        frame = self._format.frame_bytes
        there = len(self._buffer) if self._left is None else min(len(self._buffer), self._left)
        start = 0
        while (frames := min(self._bin_frames, (there - start) // frame)) and (at_end or frames == self._bin_frames):
            stop = start + frames * frame
            self._add_bin(bytes(self._buffer[start:stop]), self._format)
            self._frames += frames
            start = stop
        del self._buffer[:start]
        if self._left is not None:
            self._left -= start
            if self._left < frame or at_end:
                self._position = "after"

    def _add_bin(self, audio: bytes, told: _Format) -> None:
        full = [lane.add(_loudest(audio, told, index), 2 * BINS) for index, lane in enumerate(self._lanes)]
        if any(full):
            self._bin_frames *= 2
            for lane in self._lanes:
                lane.halve()


def peaks(pieces: Iterable[bytes]) -> Peaks | None:
    """Read the peaks of a WAV file that comes in pieces; None where it is none, or of a format that is not drawn."""
    reader = PeakReader()
    for piece in pieces:
        reader.feed(piece)
    return reader.peaks()


def waveform_svg(told: Peaks) -> str:
    """Draw peaks as a picture of its own, one lane a channel. Its colour is readable on light and on dark."""
    width = max(len(lane) for lane in told.channels)
    height = _LANE * len(told.channels)
    paths = "".join(
        f'<path fill="#5b8def" d="{_outline(lane, _LANE * index + _LANE / 2)}"/>' for index, lane in enumerate(told.channels)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width * 2}" height="{height}" '
        f'preserveAspectRatio="none">{paths}</svg>'
    )


def _outline(lane: Sequence[float], middle: float) -> str:
    """Go along the top from left to right and back along the bottom; silence stays a thin line."""
    heights = [max(peak * (_LANE / 2 - 1), 0.4) for peak in lane]
    top = [f"{x} {middle - height:.1f}H{x + 1}" for x, height in enumerate(heights)]
    bottom = [f"{x + 1} {middle + height:.1f}H{x}" for x, height in reversed(list(enumerate(heights)))]
    return "M" + "L".join([*top, *bottom]) + "Z"


def _read_format(chunk: bytes) -> _Format:
    encoding, channels, sample_rate, _, _, bits = _FORMAT.unpack(chunk)
    is_drawn = (encoding == _PCM and bits in (8, 16)) or (encoding in (_A_LAW, _MU_LAW) and bits == 8)  # noqa: PLR2004 - bits of a sample
    if not is_drawn or not 1 <= channels <= _MAX_CHANNELS or not sample_rate:
        raise UnsupportedError
    return _Format(encoding, channels, sample_rate, bits)


def _loudest(audio: bytes, told: _Format, channel: int) -> float:
    """Find the largest distance from silence, 0 to 1."""
    if told.bits == 8:  # noqa: PLR2004 - as above
        ranks, sizes = _TABLES[told.encoding]
        return sizes[max(audio.translate(ranks)[channel :: told.channels])]
    samples = array("h", audio)
    if sys.byteorder == "big":
        samples.byteswap()
    lane = samples[channel :: told.channels]
    highest, lowest = max(lane), min(lane)
    return max(highest, -lowest) / 32768


def _mu_law(rank: int) -> float:
    return ((((rank & 0x0F) << 3) + 0x84 << (rank >> 4)) - 0x84) / 32768


def _a_law(rank: int) -> float:
    exponent, mantissa = rank >> 4, rank & 0x0F
    return ((mantissa << 4) + 8 if exponent == 0 else ((mantissa << 4) + 0x108) << (exponent - 1)) / 32768


# For each encoding of 8 bit: from a sample to its rank in loudness, and from the rank to the size.
_TABLES = {
    _PCM: (bytes(abs(sample - 128) for sample in range(256)), tuple(rank / 128 for rank in range(129))),
    _A_LAW: (bytes((sample ^ 0x55) & 0x7F for sample in range(256)), tuple(_a_law(rank) for rank in range(128))),
    _MU_LAW: (bytes(~sample & 0x7F for sample in range(256)), tuple(_mu_law(rank) for rank in range(128))),
}
