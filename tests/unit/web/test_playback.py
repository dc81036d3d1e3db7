"""What the page offers for each kind of recording, decoded by the real libsndfile in its own process."""

from __future__ import annotations

import array
import io
import json
import struct
import subprocess
import sys
import tempfile
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import pyrage
import pytest
import soundfile

from console import decode_audio
from console.page.call_models import RecordingRow
from console.page.playback import Playback, Player
from console.page.waveform import Peaks
from console.web.native_audio import copy_for_decoder, read_peaks, to_pcm
from console.web.playback import Presenter, _file_of
from console.web.stored_audio import Audio, AudioArchive
from console.web.waveforms import Waveforms
from shared.archive.encryption import DecryptionError, decrypt, decrypt_start, encrypt
from shared.archive.storage import Archive
from simulator.audio import recording
from tests.helpers.pace import LIMIT_S

SECONDS = 1.5
FILES = "acme/monitor/2026-UTC/11/23"


def sound(subtype: str, *, kind: str = "WAV", channels: int = 1, rate: int = 8000) -> bytes:
    """Return a tone that swells, in any format that libsndfile writes."""
    times = np.arange(int(SECONDS * rate)) / rate
    tone = 0.8 * times / SECONDS * np.sin(2 * np.pi * 400 * times)
    file = io.BytesIO()
    soundfile.write(file, np.stack([tone] * channels, axis=1), rate, subtype=subtype, format=kind)
    return file.getvalue()


def wav(encoding: int, audio: bytes, *, rate: int = 8000, bits: int = 16, more: bytes = b"") -> bytes:
    frame = bits // 8 or 1
    fmt = struct.pack("<HHIIHH", encoding, 1, rate, rate * frame, frame, bits) + more
    chunks = struct.pack("<4sI", b"fmt ", len(fmt)) + fmt + struct.pack("<4sI", b"data", len(audio)) + audio
    return struct.pack("<4sI4s", b"RIFF", 4 + len(chunks), b"WAVE") + chunks


def _unsized(content: bytes) -> bytes:
    """Return a file as a recorder that was killed leaves it."""
    body = content.index(b"data") + 8
    return content[:4] + bytes(4) + content[8 : body - 4] + bytes(4) + content[body:]


ORIGINAL, PREVIEW = Player.ORIGINAL, Player.PREVIEW
KINDS: dict[str, tuple[bytes, Player | None, str]] = {
    "16 bits": (recording("7", SECONDS), ORIGINAL, ""),
    "8 bits, stereo": (sound("PCM_U8", channels=2), ORIGINAL, ""),
    "A-law": (sound("ALAW"), ORIGINAL, ""),
    "mu-law": (sound("ULAW"), ORIGINAL, ""),
    "GSM": (sound("GSM610"), PREVIEW, "GSM 6.10, converted for this player."),
    "IMA": (sound("IMA_ADPCM"), PREVIEW, "IMA ADPCM, converted"),
    "MS": (sound("MS_ADPCM", channels=2), PREVIEW, "Microsoft ADPCM, converted"),
    "24 bits": (sound("PCM_24"), PREVIEW, "PCM with 24 bits, converted"),
    "32 bits": (sound("PCM_32"), PREVIEW, "PCM with 32 bits, converted"),
    "float": (sound("FLOAT"), PREVIEW, "Floating-point PCM, converted"),
    "double": (sound("DOUBLE"), PREVIEW, "Floating-point PCM, converted"),
    "extensible": (sound("PCM_16", kind="WAVEX"), PREVIEW, "PCM with 16 bits, converted for this player."),
    "RF64": (sound("PCM_16", kind="RF64"), PREVIEW, "PCM with 16 bits, converted for this player."),
    "GSM behind blanks, without sizes": (b"\r\n" + _unsized(sound("GSM610")), PREVIEW, "GSM 6.10, converted"),
    "24 bits behind blanks, without sizes": (b"\r\n" + _unsized(sound("PCM_24")), PREVIEW, "PCM with 24 bits, converted"),
    "six channels": (sound("PCM_16", channels=6), PREVIEW, "converted"),
    "G.721": (sound("G721_32"), PREVIEW, "G.721 ADPCM, converted"),
    "a wrong byte rate": (recording("7", SECONDS)[:28] + struct.pack("<I", 1) + recording("7", SECONDS)[32:], PREVIEW, ""),
    "no length": (recording("7", SECONDS)[:40] + b"\xff" * 4 + recording("7", SECONDS)[44:], PREVIEW, ""),
    "G.722": (wav(0x028F, bytes(8000)), None, "G.722 cannot be played here. Download the recording instead."),
    "G.729": (wav(0x0083, bytes(8000), bits=8), None, "G.729 cannot be played here."),
    "an unknown format": (wav(0x7777, bytes(8000)), None, "Audio format 0x7777 cannot be played here."),
    "a web page": (b"<html>" * 1000, None, "This recording is damaged or has an unknown format. It cannot be played here."),
    "nothing": (b"", None, "This recording is damaged or has an unknown format."),
    "a header": (recording("7", SECONDS)[:44], None, "This recording is damaged or has an unknown format."),
    "half a header": (recording("7", SECONDS)[:30], None, "This recording is damaged or has an unknown format."),
    "a slow clock": (wav(1, bytes(8000), rate=100), None, "A sample rate of 100 Hz cannot be played here."),
}


def presenter(directory: Path, identity: Path | None = None) -> tuple[Presenter, Waveforms]:
    audio = AudioArchive(Archive(f"file://{directory}"), identity)
    waveforms = Waveforms(audio)
    return Presenter(audio, waveforms), waveforms


def stored(directory: Path, content: bytes | None, name: str = "a.wav", **more: Any) -> RecordingRow:  # noqa: ANN401
    file = directory / FILES / name
    file.parent.mkdir(parents=True, exist_ok=True)
    if content is not None:
        file.write_bytes(content)
    return RecordingRow("a", "agent", "7", "stored", uri=f"file:///elsewhere/{FILES}/{name}", sha256=name, **more)


async def test_each_kind_of_recording_is_played_converted_or_said_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("console.web.playback._DRAW_S", LIMIT_S)
    rows = [stored(tmp_path, content, f"{number}.wav") for number, (content, _, _) in enumerate(KINDS.values())]
    present, waveforms = presenter(tmp_path)
    for row, (kind, (content, player, note)) in zip(rows, KINDS.items(), strict=True):
        (shown,) = await present.present("key", "acme", [row])
        assert shown.playback.player is player, kind
        assert note in (shown.playback.note or ""), kind
        assert shown.playback.can_download, kind
        file = _file_of("acme", row)
        assert file
        if shown.playback.is_drawn:
            assert await waveforms.draw("key", file), kind
        if player is PREVIEW:
            samples = np.array(await _converted(content))
            assert len(samples) / 8000 == pytest.approx(SECONDS, abs=0.1), kind
            assert max(np.abs(samples)) > 15000, kind


async def test_what_is_missing_or_encrypted_is_said_and_cannot_be_downloaded(tmp_path: Path) -> None:
    present, _ = presenter(tmp_path)
    rows = [
        stored(tmp_path, None),
        stored(tmp_path, b"age-encryption.org/v1", "b.wav.age", encryption={"scheme": "age"}),
        replace(stored(tmp_path, None), state="failed"),
    ]
    missing, encrypted, failed = await present.present("key", "acme", rows)
    assert missing.playback.note == "The file of this recording is missing from the archive. Run callfold recordings verify."
    assert "Set CALLFOLD_ARCHIVE_IDENTITY." in (encrypted.playback.note or "")
    for row in (missing, encrypted):
        assert (row.playback.player, row.playback.is_drawn, row.playback.can_download) == (None, False, False)
    assert failed.playback == Playback()


async def test_an_encrypted_recording_is_presented_like_any_other(tmp_path: Path) -> None:
    identity = pyrage.x25519.Identity.generate()
    keys = tmp_path / "key.txt"
    keys.write_text(str(identity), "utf-8")
    files = {}
    for name, content in {"plain": recording("7", 60), "gsm": sound("GSM610"), "damaged": recording("7", 1)}.items():
        encrypted = io.BytesIO()
        encrypt(io.BytesIO(content), encrypted, str(identity.to_public()))
        files[name] = encrypted.getvalue()
    damaged = files["damaged"] = files["damaged"][:-1] + bytes([files["damaged"][-1] ^ 1])
    rows = [stored(tmp_path, content, f"{name}.wav.age", encryption={"scheme": "age"}) for name, content in files.items()]
    present, _ = presenter(tmp_path, keys)
    plain, gsm, broken = await present.present("key", "acme", rows)
    assert plain.playback.player is ORIGINAL
    assert gsm.playback.player is PREVIEW
    assert "cannot be decrypted" in (broken.playback.note or "")
    with pytest.raises(DecryptionError):
        decrypt(io.BytesIO(damaged), io.BytesIO(), keys)
    assert decrypt_start(files["plain"][: 128 << 10], keys) == recording("7", 60)[: 64 << 10]


async def test_peaks_of_libsndfile_have_the_shape_of_the_sound() -> None:
    peaks = await _peaks(sound("MS_ADPCM", channels=2))
    assert peaks
    assert peaks.seconds == pytest.approx(SECONDS, abs=0.1)
    assert len(peaks.channels) == 2
    lane = peaks.channels[0]
    assert lane[len(lane) // 4] == pytest.approx(0.2, abs=0.05)
    assert lane[-len(lane) // 10] == pytest.approx(0.75, abs=0.08)
    assert len(lane) <= decode_audio.BINS


def test_the_decoder_can_open_nothing_and_start_nothing() -> None:
    tries = (
        "import os, socket, sys; sys.path.insert(0, os.path.dirname(sys.argv[1])); import decode_audio; decode_audio._limit()\n"
        "def refused(act):\n"
        "    try: act()\n"
        "    except (OSError, MemoryError): return True\n"
        "    return False\n"
        "acts = [lambda: open('/dev/null'), socket.socket, lambda: bytearray(1 << 30), lambda: os.dup(0)]\n"
        "print(*map(refused, acts))\n"
    )
    command = [sys.executable, "-I", "-c", tries, decode_audio.__file__]
    tried = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert tried.stdout.split() == ["True"] * 4


@pytest.mark.parametrize(
    "output",
    [
        "",
        "{",
        '{"seconds": 1, "channels": []}',
        '{"seconds": NaN, "channels": [[1]]}',
        json.dumps({"seconds": 1, "channels": [[0.5]] * 3}),
        json.dumps({"seconds": 1, "channels": [["<script>"]]}),
    ],
)
async def test_what_a_broken_decoder_writes_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text(f"import sys; sys.stdout.write({output!r})", "utf-8")
    monkeypatch.setattr(decode_audio, "__file__", str(broken))
    assert await _peaks(sound("GSM610")) is None


async def test_a_decoder_that_does_not_end_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = tmp_path / "slow.py"
    slow.write_text("import time; time.sleep(600)", "utf-8")
    monkeypatch.setattr(decode_audio, "__file__", str(slow))
    monkeypatch.setattr("console.web.native_audio._TIMEOUT_S", 0.05)
    assert await _peaks(sound("GSM610")) is None


async def _peaks(content: bytes) -> Peaks | None:
    with opened(content) as file:
        return await read_peaks(file)


@contextmanager
def opened(content: bytes) -> Iterator[BinaryIO]:
    with tempfile.TemporaryFile() as file:
        file.write(content)
        yield file


async def _converted(content: bytes) -> array.array[int]:
    """Return the samples of a preview, which must be mono or stereo PCM of 16 bits at 8000 Hz."""
    with opened(content) as file, tempfile.TemporaryFile() as copy, tempfile.TemporaryFile() as target:
        archive = AudioArchive(cast("Archive", None), None)  # of which nothing is read
        await copy_for_decoder(archive, Audio(len(content), "", file), copy)
        assert await to_pcm(copy, target)
        target.seek(0)
        with wave.open(target, "rb") as audio:
            assert (audio.getsampwidth(), audio.getframerate()) == (2, 8000)
            samples = array.array("h", audio.readframes(audio.getnframes()))
            return samples[:: audio.getnchannels()]
