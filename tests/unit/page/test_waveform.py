"""Waveforms of generated recordings, in pieces of any size."""

from __future__ import annotations

import math
import struct
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from console.page.waveform import BINS, PeakReader, Peaks, waveform_svg

RATE = 8000


def wav(
    audio: bytes, *, encoding: int = 1, channels: int = 1, bits: int = 16, length: int | None = None, before: bytes = b""
) -> bytes:
    frame = channels * bits // 8
    fmt = struct.pack("<4sIHHIIHH", b"fmt ", 16, encoding, channels, RATE, RATE * frame, frame, bits)
    data = struct.pack("<4sI", b"data", len(audio) if length is None else length)
    return struct.pack("<4sI4s", b"RIFF", 0, b"WAVE") + before + fmt + data + audio


def tone(seconds: float, loudness: float) -> list[float]:
    return [loudness * math.sin(2 * math.pi * 400 * index / RATE) for index in range(int(RATE * seconds))]


def pcm16(*lanes: list[float]) -> bytes:
    return b"".join(struct.pack("<h", round(sample * 32767)) for frame in zip(*lanes, strict=True) for sample in frame)


def pcm8(*lanes: list[float]) -> bytes:
    return bytes(128 + round(sample * 127) for frame in zip(*lanes, strict=True) for sample in frame)


def peaks(pieces: Iterable[bytes]) -> Peaks | None:
    reader = PeakReader()
    for piece in pieces:
        reader.feed(piece)
    return reader.peaks()


def pieces(body: bytes, size: int) -> Iterator[bytes]:
    return (body[start : start + size] for start in range(0, len(body), size))


@pytest.mark.parametrize(("encode", "bits"), [(pcm16, 16), (pcm8, 8)])
def test_a_tone_that_grows_louder_is_drawn_so(encode: type, bits: int) -> None:
    drawn = peaks([wav(encode(tone(2, 0.2) + tone(2, 0.8)), bits=bits)])
    assert drawn
    (lane,) = drawn.channels
    assert drawn.seconds == 4
    assert lane[len(lane) // 4] == pytest.approx(0.2, abs=0.02)
    assert lane[3 * len(lane) // 4] == pytest.approx(0.8, abs=0.02)
    assert BINS / 2 <= len(lane) <= BINS


@pytest.mark.parametrize(("encode", "bits"), [(pcm16, 16), (pcm8, 8)])
def test_stereo_has_a_lane_for_each_party(encode: type, bits: int) -> None:
    drawn = peaks([wav(encode(tone(1, 0.9), tone(1, 0.1)), bits=bits, channels=2)])
    assert drawn
    left, right = drawn.channels
    assert max(left) == pytest.approx(0.9, abs=0.02)
    assert max(right) == pytest.approx(0.1, abs=0.02)
    assert drawn.seconds == 1


@pytest.mark.parametrize("encoding", [6, 7], ids=["A-law", "mu-law"])
def test_telephone_encodings_are_drawn(encoding: int) -> None:
    quietest, loudest = {6: (b"\xd5", b"\xaa"), 7: (b"\xff", b"\x80")}[encoding]
    silent, loud = (peaks([wav(code * RATE, encoding=encoding, bits=8)]) for code in (quietest, loudest))
    assert silent
    assert loud
    assert max(silent.channels[0]) < 0.001
    assert min(loud.channels[0]) == pytest.approx(0.98, abs=0.02)


def test_silence_is_a_thin_line() -> None:
    drawn = peaks([wav(pcm16([0.0] * RATE))])
    assert drawn
    assert set(drawn.channels[0]) == {0.0}
    assert ET.fromstring(waveform_svg(drawn))[0].get("d", "").startswith("M0 19.6H1")  # noqa: S314 - our own picture


def test_the_loudest_sample_does_not_overflow() -> None:
    drawn = peaks([wav(struct.pack("<hh", -32768, 0))])
    assert drawn
    assert drawn.channels[0] == (1.0,)


@settings(deadline=None)
@given(st.integers(1, 5000), st.integers(1, 2000))
def test_the_size_of_the_pieces_does_not_matter(frames: int, size: int) -> None:
    body = wav(pcm16(tone(1, 0.7)[:frames]), before=struct.pack("<4sI5sx", b"LIST", 5, b"notes"))
    assert peaks(pieces(body, size)) == peaks([body])


def test_a_truncated_recording_is_drawn_as_far_as_it_goes() -> None:
    body = wav(pcm16(tone(2, 0.5)))
    drawn = peaks([body[: len(body) // 2 + 1]])
    assert drawn
    assert drawn.seconds == pytest.approx(1, abs=0.01)


def test_a_header_without_lengths_is_read_to_the_end_and_what_follows_audio_is_not_drawn() -> None:
    streamed = peaks([wav(pcm16(tone(1, 0.5)), length=0xFFFFFFFF)])
    assert streamed
    assert streamed.seconds == 1
    audio = pcm16(tone(1, 0.1))
    trailed = peaks(pieces(wav(audio + b"\xff\x7f" * 1000, length=len(audio)), 333))
    assert trailed
    assert max(trailed.channels[0]) < 0.11


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"RIFF",
        b"<html>please log in</html>" * 10,
        wav(b""),
        wav(b"\0" * 99, bits=24),
        wav(b"\0" * 99, encoding=3, bits=32),
        wav(b"\0" * 99, encoding=0xFFFE),
        wav(b"\0" * 99, channels=6),
        wav(b"\0"),
        wav(b"\0\0", encoding=17, bits=4),
        struct.pack("<4sI4s4sI", b"RIFF", 0, b"WAVE", b"data", 9) + b"\0" * 9,
        struct.pack("<4sI4s4sI", b"RIFF", 0, b"WAVE", b"fmt ", 0x7FFFFFFF) + b"\0" * 99,
    ],
)
def test_what_is_no_drawable_recording_has_no_picture(body: bytes) -> None:
    assert peaks(pieces(body, 7)) is None


def test_a_long_recording_is_read_in_little_memory() -> None:
    header, minute = wav(b"", length=0xFFFFFFFF), pcm16(tone(60, 0.5))
    reader = PeakReader()
    reader.feed(header)
    kept = 0
    for _ in range(30):
        for piece in pieces(minute, 65536):
            reader.feed(piece)
            kept = max(kept, len(reader._buffer))
    drawn = reader.peaks()
    assert drawn
    assert drawn.seconds == 1800
    assert len(drawn.channels[0]) <= BINS
    assert kept < 65536


def test_the_picture_is_xml_of_numbers_only() -> None:
    root = ET.fromstring(waveform_svg(Peaks(((0.5, 1.0), (0.0, 0.2)), 2.0)))  # noqa: S314 - our own picture
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.get("viewBox") == "0 0 2 80"
    assert [path.tag.rpartition("}")[2] for path in root] == ["path", "path"]
    assert all(set(path.get("d", "")) <= set("MLHZ 0123456789.") for path in root)
