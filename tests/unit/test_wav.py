"""The audio of a recording decides whether it is stored. Wrong sizes, and bytes around the audio, are only flagged."""

from __future__ import annotations

import io
import struct
from contextlib import suppress

import pytest
import soundfile
from hypothesis import assume, given
from hypothesis import strategies as st

from shared.domain.recording_flags import Flag
from shared.domain.wav import Flaw, InvalidWavError
from tests.helpers.wav_files import FMT, KINDS, LIST, SAMPLES, Kind, chunk, riff
from worker.download.wav_check import Audio, read_audio


class Counting(io.BytesIO):
    """Counts how often it is read."""

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        return super().read(size)


def audio_of(content: bytes) -> Audio:
    return read_audio(io.BytesIO(content), len(content))


def flaw_of(content: bytes) -> Flaw:
    with pytest.raises(InvalidWavError) as refused:
        audio_of(content)
    return refused.value.flaw


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_file_is_stored_if_its_audio_is_whole(kind: Kind) -> None:
    if kind.flaw is not None:
        assert flaw_of(kind.content) == kind.flaw
        return
    audio = audio_of(kind.content)
    assert (audio.flags, audio.is_open_ended) == (kind.flags, kind.looks == 2)
    assert audio.seconds == pytest.approx(kind.seconds, abs=0.02)  # the last block of ADPCM may be padded


def frames_of(kind: Kind) -> float | None:
    """Return the frames that libsndfile decodes; None if it does not read the file, or as something else than it is."""
    if kind.flaw is not None or kind.looks > 1 or kind.name == "24 bits in 32":
        return None
    try:
        return float(soundfile.info(io.BytesIO(kind.content)).frames)
    except soundfile.LibsndfileError:
        return None


DECODED = [(kind, frames) for kind in KINDS if (frames := frames_of(kind)) is not None]


@pytest.mark.parametrize(("kind", "frames"), DECODED, ids=lambda value: getattr(value, "name", ""))
def test_seconds_are_those_that_libsndfile_decodes(kind: Kind, frames: float) -> None:
    audio = audio_of(kind.content)
    assert audio.sample_rate
    assert audio.seconds == pytest.approx(frames / audio.sample_rate, abs=0.07)  # it counts a pad byte of GSM as a block


def test_audio_that_is_not_counted_yet_takes_two_looks() -> None:
    """A recorder that writes the size every second is still writing."""
    for counted in (2, 100, len(SAMPLES) - 4000):
        assert audio_of(riff(FMT, chunk(b"data", SAMPLES, counted))).is_open_ended


@given(st.data())
def test_no_cut_is_taken_for_the_whole(data: st.DataObject) -> None:
    """Whatever the sizes in it are, a file that lacks audio is refused, unless its header does not tell how much there is."""
    kind = data.draw(st.sampled_from([kind for kind in KINDS if kind.flaw is None]), label="kind")
    size = data.draw(st.integers(0, len(kind.content) - 1), label="size")
    try:
        audio = audio_of(kind.content[:size])
    except InvalidWavError:
        return
    whole = audio_of(kind.content)
    is_whole = audio.seconds == whole.seconds or audio.declared_bytes == whole.declared_bytes is not None
    assert is_whole or audio.is_open_ended


@given(st.data())
def test_whole_audio_is_stored_whatever_the_sizes_around_it_are(data: st.DataObject) -> None:
    """Sizes of the file and of other chunks are wrong, and bytes are added between and behind the chunks."""
    bodies = st.binary(max_size=40).filter(lambda body: b"data" not in body)
    before = data.draw(st.lists(st.sampled_from([b"JUNK", b"LIST", b"bext", b"\xa9x\0y"]), max_size=3), label="before")
    chunks = [chunk(name, data.draw(bodies), data.draw(st.none() | st.integers(0, 1 << 32 - 1))) for name in before]
    filler = data.draw(st.sampled_from([b"", bytes(3), b"\r\n"]), label="filler")
    behind = data.draw(st.binary(max_size=5000) | st.sampled_from([b"", LIST, LIST[:9], b"\r\n", bytes(600)]), label="behind")
    declared = data.draw(st.none() | st.integers(0, (1 << 32) - 1), label="total")
    content = riff(*chunks[:1], FMT, *chunks[1:], filler, chunk(b"data", SAMPLES), declared=declared) + behind
    assume(declared is None or abs(8 + declared - len(content)) > 1)  # else the bytes behind the audio count as audio
    audio = audio_of(content)
    assert audio.declared_bytes == len(SAMPLES)
    assert audio.seconds == 0.5


@given(
    content=st.binary(max_size=200) | st.binary(max_size=200).map(lambda rest: b"RIFF" + rest[:4].ljust(4) + b"WAVE" + rest[4:])
)
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    with suppress(InvalidWavError):
        assert audio_of(content).channels


@pytest.mark.parametrize("filler", [bytes(8), struct.pack("<4sI", b"JUNK", 0)])
def test_a_file_of_empty_chunks_is_no_recording_and_is_not_read_to_its_end(filler: bytes) -> None:
    content = riff(filler * (1 << 20))
    file = Counting(content)
    with pytest.raises(InvalidWavError) as refused:
        read_audio(file, len(content))
    assert refused.value.flaw is Flaw.NOT_A_RECORDING
    assert file.reads < 2000


def test_chunks_behind_the_audio_are_not_read_to_their_end() -> None:
    content = riff(FMT, chunk(b"data", SAMPLES), struct.pack("<4sI", b"JUNK", 0) * (1 << 20))
    file = Counting(content)
    assert read_audio(file, len(content)).flags == {Flag.TRAILING_BYTES}
    assert file.reads < 2000
