"""The waveform of a recording as an SVG picture, computed while its bytes arrive. Memory holds only peaks and one bin of audio.

It draws what telephone systems usually record: PCM of 8 or 16 bits, A-law and mu-law (ITU-T G.711), mono or stereo.
`console.web.native_audio` computes the peaks of other formats.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

from shared.domain.wav import Header, InvalidWavError, parse_header
from shared.domain.wav_format import A_LAW, MU_LAW, PCM, Format

BINS = 300
_MAX_CHANNELS = 2
_FIRST_BIN_FRAMES = 64
_LANE_HEIGHT = 40


@dataclass(frozen=True, slots=True)
class Peaks:
    """The loudest moment of each bin of a recording: one row per channel, each value from 0 to 1."""

    channels: tuple[tuple[float, ...], ...]
    seconds: float


class _UnsupportedError(Exception):
    """The audio has a format that is not drawn."""


@dataclass(slots=True)
class _Lane:
    """The peaks of one channel. Its bins grow with the recording, so that there are never more than twice `BINS`."""

    peaks: list[float] = field(default_factory=list)

    def add(self, peak: float, limit: int) -> bool:
        """Add a peak. Return whether the lane has reached the limit."""
        self.peaks.append(peak)
        return len(self.peaks) >= limit

    def halve(self) -> None:
        self.peaks = [max(self.peaks[index : index + 2]) for index in range(0, len(self.peaks), 2)]


class PeakReader:
    """Computes the peaks of a WAV file that arrives in pieces of any size.

    Example: `reader.feed(piece)` for each piece, then `reader.peaks()`.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._position = 0  # of the buffer in the file
        self._parser = parse_header()
        self._span = next(self._parser)
        self._format: Format | None = None
        self._left: int | None = None
        self._is_done = False
        self._lanes: list[_Lane] = []
        self._bin_frames = _FIRST_BIN_FRAMES
        self._frames = 0

    @property
    def is_undrawable(self) -> bool:
        """Return whether the pieces so far show that the rest cannot be drawn."""
        return self._is_done and self._format is None

    def feed(self, piece: bytes) -> None:
        """Process the next piece. After the audio, or if it cannot be drawn, pieces are ignored."""
        if self._is_done:
            return
        self._buffer += piece
        self._parse_all()
        self._take_bins()

    def peaks(self) -> Peaks | None:
        """Return the peaks of what has arrived. None: there is no audio that can be drawn."""
        self._parse_all(at_end=True)
        self._take_bins(at_end=True)
        if self._format is None or not self._frames:
            return None
        for lane in self._lanes:
            while len(lane.peaks) > BINS:
                lane.halve()
        return Peaks(tuple(tuple(lane.peaks) for lane in self._lanes), self._frames / self._format.sample_rate)

    def _parse_all(self, *, at_end: bool = False) -> None:
        try:
            while self._format is None and not self._is_done and self._parse(at_end=at_end):
                pass
        except (InvalidWavError, _UnsupportedError):
            self._is_done = True
            self._buffer.clear()

    def _parse(self, *, at_end: bool) -> bool:
        """Send the parser of the header the bytes that it needs. Return False if they have not arrived, unless none will."""
        position, size = self._span
        skipped = min(position - self._position, len(self._buffer))
        del self._buffer[:skipped]
        self._position += skipped
        if not at_end and (self._position < position or len(self._buffer) < size):
            return False
        try:
            self._span = self._parser.send(bytes(self._buffer[:size]))
        except StopIteration as stop:
            header: Header = stop.value
            _check_drawable(header.format, header.order)
            if header.audio.body < self._position:
                raise _UnsupportedError from None  # the audio precedes its format, and has passed
            del self._buffer[: header.audio.body - self._position]
            self._format = header.format
            self._left = header.audio.length if header.audio.has_length else None
            self._lanes = [_Lane() for _ in range(header.format.channels)]
        return True

    def _take_bins(self, *, at_end: bool = False) -> None:
        """Convert the audio in the buffer to peaks. Only at the end, this includes the last bin, which is shorter."""
        if self._format is None:
            return
        frame = _frame_bytes(self._format)
        available = len(self._buffer) if self._left is None else min(len(self._buffer), self._left)
        start = 0
        while (frames := min(self._bin_frames, (available - start) // frame)) and (at_end or frames == self._bin_frames):
            stop = start + frames * frame
            self._add_bin(bytes(self._buffer[start:stop]), self._format)
            self._frames += frames
            start = stop
        del self._buffer[:start]
        if self._left is not None:
            self._left -= start
            self._is_done = self._left < frame or at_end

    def _add_bin(self, audio: bytes, audio_format: Format) -> None:
        is_full = [lane.add(_peak(audio, audio_format, index), 2 * BINS) for index, lane in enumerate(self._lanes)]
        if any(is_full):
            self._bin_frames *= 2
            for lane in self._lanes:
                lane.halve()


def waveform_svg(peaks: Peaks) -> str:
    """Draw peaks, one lane per channel. The colour is readable on light and dark backgrounds."""
    width = max(len(lane) for lane in peaks.channels)
    height = _LANE_HEIGHT * len(peaks.channels)
    paths = "".join(
        f'<path fill="#5b8def" d="{_outline(lane, _LANE_HEIGHT * index + _LANE_HEIGHT / 2)}"/>'
        for index, lane in enumerate(peaks.channels)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width * 2}" height="{height}" '
        f'preserveAspectRatio="none">{paths}</svg>'
    )


def _outline(lane: Sequence[float], middle: float) -> str:
    """Return the path along the top from left to right, and back along the bottom. Silence is a thin line."""
    heights = [max(peak * (_LANE_HEIGHT / 2 - 1), 0.4) for peak in lane]
    top = [f"{x} {middle - height:.1f}H{x + 1}" for x, height in enumerate(heights)]
    bottom = [f"{x + 1} {middle + height:.1f}H{x}" for x, height in reversed(list(enumerate(heights)))]
    return "M" + "L".join([*top, *bottom]) + "Z"


def _frame_bytes(audio_format: Format) -> int:
    return audio_format.channels * audio_format.bits // 8


def _check_drawable(audio_format: Format, order: str) -> None:
    encoding, bits = audio_format.encoding, audio_format.bits
    is_known = (encoding == PCM and bits in (8, 16)) or (encoding in (A_LAW, MU_LAW) and bits == 8)  # noqa: PLR2004 - bits of a sample
    is_plain = audio_format.frame_bytes == _frame_bytes(audio_format) and order == "<"
    if not is_known or not is_plain or audio_format.channels > _MAX_CHANNELS:
        raise _UnsupportedError


def _peak(audio: bytes, audio_format: Format, channel: int) -> float:
    """Return the largest distance from silence, 0 to 1."""
    if audio_format.bits == 8:  # noqa: PLR2004 - as above
        ranks, amplitudes = _TABLES[audio_format.encoding]
        return amplitudes[max(audio.translate(ranks)[channel :: audio_format.channels])]
    samples = array("h", audio)
    if sys.byteorder == "big":
        samples.byteswap()
    lane = samples[channel :: audio_format.channels]
    highest, lowest = max(lane), min(lane)
    return max(highest, -lowest) / 32768


def _mu_law(rank: int) -> float:
    return ((((rank & 0x0F) << 3) + 0x84 << (rank >> 4)) - 0x84) / 32768


def _a_law(rank: int) -> float:
    exponent, mantissa = rank >> 4, rank & 0x0F
    return ((mantissa << 4) + 8 if exponent == 0 else ((mantissa << 4) + 0x108) << (exponent - 1)) / 32768


# For each encoding with 8 bits: the rank in loudness of each sample, and the amplitude of each rank.
_TABLES = {
    PCM: (bytes(abs(sample - 128) for sample in range(256)), tuple(rank / 128 for rank in range(129))),
    A_LAW: (bytes((sample ^ 0x55) & 0x7F for sample in range(256)), tuple(_a_law(rank) for rank in range(128))),
    MU_LAW: (bytes(~sample & 0x7F for sample in range(256)), tuple(_mu_law(rank) for rank in range(128))),
}
