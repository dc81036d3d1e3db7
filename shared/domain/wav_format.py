"""The format chunk of a WAV file, and how long its audio plays.

The duration comes from frames: the bytes of the audio and the size of a frame or block. The byte rate is only a witness, because
many recorders write a wrong one.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

_BASE_BYTES = 14  # WAVEFORMAT; the bits of a sample follow
_BITS, _EXTRA = 14, 18
_SUBFORMAT = 24  # of WAVEFORMATEXTENSIBLE: the first two bytes of its GUID are an encoding
_MP3_BLOCK = 24  # of MPEGLAYER3WAVEFORMAT: bytes of a block, then its frames

PCM, MS_ADPCM, FLOAT, A_LAW, MU_LAW, IMA_ADPCM, GSM_610, MP3, EXTENSIBLE = 1, 2, 3, 6, 7, 0x11, 0x31, 0x55, 0xFFFE
# A WAVEFORMATEXTENSIBLE too short for its subformat is nearly always PCM, but not certainly.
_LINEAR = frozenset({PCM, FLOAT, EXTENSIBLE})
_G711 = frozenset({A_LAW, MU_LAW})
_G722 = frozenset({0x65, 0x28F})
_G722_BYTES_PER_S = 8000  # 64 kbit/s, also where the header has the 8,000 Hz of its RTP clock
# Encodings with a fixed number of bits for each sample. The header may say which; 4 is usual.
_BITS_A_SAMPLE = frozenset({0x10, 0x14, 0x17, 0x20, 0x40, 0x45, 0x64, 0x140, 0x200})
_MAX_BITS_A_SAMPLE = 8
_USUAL_BITS_A_SAMPLE = 4
_MAX_SAMPLE_BYTES = 8
# Frames of one MP3 frame; half as many at the low sample rates of MPEG-2.
_MP3_SAMPLES, _MP3_LOW_RATE = 1152, 32_000
# A `fact` chunk of an unknown encoding counts if the audio would have a rate between these.
_BYTES_PER_S = (50, 2_000_000)
_MAX_CHANNELS, _MAX_RATE = 256, 1_000_000


class Block(NamedTuple):
    """A block of compressed audio: its bytes, and the samples of each channel in it."""

    size: int
    samples: int


# Encodings whose blocks have one size for each channel, whatever the header says.
_BLOCKS: Mapping[int, Block] = {
    0x22: Block(32, 240),  # TrueSpeech
    0x42: Block(24, 240),  # G.723.1
    0x83: Block(10, 80),  # G.729
    GSM_610: Block(65, 320),
}
_GSM_PLAIN = Block(33, 160)
_NMS, _NMS_SAMPLES = 0x38, 160


@dataclass(frozen=True, slots=True)
class Format:
    """Content of the format chunk.

    Attributes:
        encoding: the format tag; that of the subformat if the chunk is WAVEFORMATEXTENSIBLE.
        bits: bits of a sample; 0 if the chunk does not contain them.
        block_align: declared size of a frame or block, which can be wrong.
        samples_per_block: declared samples of a block of compressed audio; 0 if unknown.
        is_extensible: the chunk is a WAVEFORMATEXTENSIBLE.
    """

    encoding: int
    channels: int
    sample_rate: int
    byte_rate: int
    bits: int
    block_align: int = 0
    samples_per_block: int = 0
    mp3_block: tuple[int, int] = (0, 0)
    is_extensible: bool = False

    @property
    def frame_bytes(self) -> int | None:
        """Return the bytes of a frame: one sample of each channel. None: the audio is compressed, or this is unknown."""
        if self.encoding in _G711:
            return self.channels
        return self._linear_frame_bytes() if self.encoding in _LINEAR else None

    @property
    def block_bytes(self) -> int:
        """Return the bytes of a frame, or of a block of compressed audio; 1 if it has neither."""
        block = self._block()
        return self.frame_bytes or (block.size if block else 1)

    def seconds(self, audio_bytes: int, fact: int | None = None) -> float | None:
        """Return the duration of the audio. None if the header does not show it.

        Args:
            audio_bytes: size of the audio.
            fact: number of frames in the `fact` chunk, which counts only if it fits the audio.
        """
        if self.encoding in _G722:
            return audio_bytes / (_G722_BYTES_PER_S * self.channels)
        frames = self._frames(audio_bytes, fact)
        return None if frames is None else frames / self.sample_rate

    def _frames(self, audio_bytes: int, fact: int | None) -> int | None:
        if frame := self.frame_bytes:
            return audio_bytes // frame
        if self.encoding in _BITS_A_SAMPLE:
            bits = self.bits if 0 < self.bits <= _MAX_BITS_A_SAMPLE else _USUAL_BITS_A_SAMPLE
            return audio_bytes * 8 // (bits * self.channels)
        if block := self._block():
            whole, rest = divmod(audio_bytes, block.size)
            frames = whole * block.samples + rest * block.samples // block.size
            # The last block may be padded, and the `fact` chunk says how much of it is audio.
            return fact if fact is not None and frames - block.samples < fact <= frames else frames
        return self._frames_of_unknown(audio_bytes, fact)

    def _linear_frame_bytes(self) -> int | None:
        """Return what two of three witnesses say: the bits of a sample, the block, and the byte rate."""
        by_bits = self.channels * -(-self.bits // 8)
        by_rate = self.byte_rate // self.sample_rate
        is_usable = self.channels <= by_bits <= _MAX_SAMPLE_BYTES * self.channels
        if self.channels <= self.block_align == by_rate or not is_usable:
            return max(self.block_align, 0 if self.block_align else by_rate) or None
        return by_bits

    def _block(self) -> Block | None:
        if self.encoding == IMA_ADPCM:
            return self._adpcm_block(header=4, first=1)
        if self.encoding == MS_ADPCM:
            return self._adpcm_block(header=7, first=2)
        if self.encoding == GSM_610 and self.block_align == _GSM_PLAIN.size:
            return _GSM_PLAIN
        if self.encoding == _NMS and self.block_align:
            return Block(self.block_align, _NMS_SAMPLES)
        block = _BLOCKS.get(self.encoding)
        return block and Block(block.size * self.channels, block.samples)

    def _adpcm_block(self, *, header: int, first: int) -> Block:
        """Return a block of ADPCM with 4 bits. For each channel it begins with `header` bytes, which have `first` samples."""
        begin = header * self.channels
        if self.block_align > begin:
            return Block(self.block_align, (self.block_align - begin) * 2 // self.channels + first)
        if self.samples_per_block > first:
            return Block(begin + -(-(self.samples_per_block - first) * self.channels // 2), self.samples_per_block)
        return Block(self.channels, 2)

    def _frames_of_unknown(self, audio_bytes: int, fact: int | None) -> int | None:
        size, frames = self.mp3_block
        if size and frames:
            samples = _MP3_SAMPLES if self.sample_rate >= _MP3_LOW_RATE else _MP3_SAMPLES // 2
            by_block = audio_bytes * frames * samples // size
            return fact if fact and abs(fact - by_block) <= by_block // 10 + samples else by_block
        if fact and _BYTES_PER_S[0] <= audio_bytes * self.sample_rate / fact <= _BYTES_PER_S[1]:
            return fact
        return None


def read_format(content: bytes, order: str) -> Format | None:
    """Read the content of a format chunk; `order` is `<` or `>`. None: it is too short, or says nothing that can be played."""
    if len(content) < _BASE_BYTES:
        return None
    encoding, channels, sample_rate, byte_rate, block_align = struct.unpack_from(f"{order}HHIIH", content)
    if not 0 < channels <= _MAX_CHANNELS or not 0 < sample_rate <= _MAX_RATE:
        return None
    bits = _number(content, _BITS, order)
    is_extensible = encoding == EXTENSIBLE
    if is_extensible:
        encoding = _number(content, _SUBFORMAT, order) or EXTENSIBLE
    mp3_block = (_number(content, _MP3_BLOCK, order), _number(content, _MP3_BLOCK + 2, order)) if encoding == MP3 else (0, 0)
    samples = 0 if is_extensible else _number(content, _EXTRA, order)
    return Format(encoding, channels, sample_rate, byte_rate, bits, block_align, samples, mp3_block, is_extensible)


def _number(content: bytes, position: int, order: str) -> int:
    """Read 16 bits; 0 if the content ends before them."""
    piece = content[position : position + 2]
    return int(struct.unpack(f"{order}H", piece)[0]) if len(piece) == 2 else 0  # noqa: PLR2004 - 16 bits
