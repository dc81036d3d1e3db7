"""A recording's header is believed only where it accounts for every byte."""

from __future__ import annotations

import io
import struct

import pytest

from shared.domain.wav import Flaw, InvalidWavError
from simulator.audio import recording
from worker.download.wav_check import read_audio

WAV = recording("7", 1.5)
SAMPLES = WAV[44:]
FORMAT = WAV[12:36]
UNKNOWN, NOT_YET = b"\xff\xff\xff\xff", b"\0\0\0\0"


def chunk(name: bytes, body: bytes, told: int | None = None) -> bytes:
    return struct.pack("<4sI", name, len(body) if told is None else told) + body


def riff(*chunks: bytes, told: bytes | None = None) -> bytes:
    content = b"WAVE" + b"".join(chunks)
    return b"RIFF" + (told or struct.pack("<I", len(content))) + content


class Counting(io.BytesIO):
    """Counts how often it is read."""

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        return super().read(size)


def flaw_of(content: bytes) -> Flaw:
    with pytest.raises(InvalidWavError) as refused:
        read_audio(io.BytesIO(content), len(content))
    return refused.value.flaw


@pytest.mark.parametrize("told", [None, UNKNOWN, NOT_YET])
@pytest.mark.parametrize("samples", [SAMPLES, bytes(len(SAMPLES)), b"\x55" * len(SAMPLES), SAMPLES[:111]])
def test_audio_that_the_header_does_not_count_is_a_mismatch(told: bytes | None, samples: bytes) -> None:
    assert flaw_of(riff(FORMAT, chunk(b"data", samples, 100), told=told)) in {Flaw.LENGTH_MISMATCH, Flaw.TRUNCATED}


@pytest.mark.parametrize(
    "content",
    [
        riff(FORMAT, chunk(b"data", SAMPLES)),
        riff(FORMAT, chunk(b"data", SAMPLES) + b"\0"),
        riff(chunk(b"JUNK", bytes(5000)), FORMAT, chunk(b"fact", bytes(4)), chunk(b"data", SAMPLES)),
        riff(FORMAT, chunk(b"data", SAMPLES), chunk(b"LIST", b"INFOxyz1"), chunk(b"id3 ", bytes(10))),
        riff(FORMAT, chunk(b"data", SAMPLES), chunk(b"LIST", b"odd") + b"\0"),
        riff(FORMAT, chunk(b"data", SAMPLES), chunk(b"LIST", b"odd")),
        riff(FORMAT, chunk(b"data", SAMPLES[:-1]) + b"\0", chunk(b"LIST", b"even")),
        riff(FORMAT, chunk(b"data", SAMPLES[:-1]), chunk(b"LIST", b"even")),
        riff(FORMAT, chunk(b"data", SAMPLES[:-1])),
        riff(FORMAT, chunk(b"data", SAMPLES, 0), told=NOT_YET),
        riff(FORMAT, chunk(b"data", SAMPLES, 0xFFFFFFFF), told=UNKNOWN),
        riff(FORMAT, chunk(b"data", SAMPLES), told=UNKNOWN),
        riff(FORMAT, chunk(b"data", SAMPLES), chunk(b"LIST", b"even"), told=NOT_YET),
    ],
)
def test_what_recorders_write_passes(content: bytes) -> None:
    assert read_audio(io.BytesIO(content), len(content)).seconds == pytest.approx(1.5, abs=0.001)


def test_a_chunk_behind_the_audio_that_is_cut_off_is_truncated() -> None:
    assert flaw_of(riff(FORMAT, chunk(b"data", SAMPLES), chunk(b"LIST", bytes(10), 5000))) is Flaw.TRUNCATED


@pytest.mark.parametrize("filler", [bytes(8), struct.pack("<4sI", b"JUNK", 0)])
def test_a_file_of_empty_chunks_is_no_recording_and_is_not_read_to_its_end(filler: bytes) -> None:
    content = riff(filler * (1 << 20))
    file = Counting(content)
    with pytest.raises(InvalidWavError) as refused:
        read_audio(file, len(content))
    assert refused.value.flaw is Flaw.NOT_A_RECORDING
    assert file.reads < 2000
