"""Audio without a header is not taken for a text or a page, and these are not taken for audio."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest
import soundfile

from shared.domain.wav import LEADING
from tests.helpers.wav_files import RATE, WAV
from worker.download.sniffing import is_page, is_text, starts_like_audio

NOISE = random.Random(7)  # noqa: S311 - no secret


def _quiet(subtype: str, offset: float = 0.0) -> bytes:
    """Return the audio of a silent line, without a header: noise of a few steps around a level."""
    level = np.array([offset + NOISE.gauss(0, 0.0004) for _ in range(RATE)])
    file = io.BytesIO()
    soundfile.write(file, level, RATE, format="RAW", subtype=subtype)
    return file.getvalue()


def _loud(subtype: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, 0.3 * np.sin(np.arange(RATE) * 0.3), RATE, format="RAW", subtype=subtype)
    return file.getvalue()


AUDIO = {
    "A-law of silence": b"\xd5" * 512,
    "A-law of silence below zero": b"\x55" * 512,
    "A-law of silence around zero": b"\xd5\x55" * 256,
    "mu-law of silence": b"\xff" * 512,
    "mu-law of silence below zero": b"\x7f" * 512,
    "mu-law of silence around zero": b"\xff\x7e" * 256,
    "mu-law like a byte order mark": b"\xff\xfe" + b"\xff\x7e\xfe" * 200,
    "PCM of silence": bytes(512),
    "PCM of silence, then a small sample": bytes(8) + b"<\0a\0" * 100,
    "MP3": b"\xff\xfb\x90\x64" + bytes(400),
    "a recording": WAV,
    **{f"{subtype}, quiet, offset {offset}": _quiet(subtype, offset) for subtype in ("ALAW", "ULAW", "PCM_16", "PCM_U8") for offset in (0, 0.001, -0.001)},
    **{f"{subtype}, loud": _loud(subtype) for subtype in ("ALAW", "ULAW", "PCM_16", "PCM_U8")},
}  # fmt: skip
TEXTS = {
    "JSON": b'{"error":"no recording","code":404}',
    "one word": b"error",
    "ASCII": b"The recording that you look for does not exist on this server.\n" * 20,
    "UTF-8": "Die Aufnahme wurde gelöscht: für Kunde Müller. ".encode() * 30,
    "UTF-8, the last character cut": ("Nicht gefunden, unbekannt: 12345 " * 20).encode()[:511] + b"\xc3\xbc",
    "UTF-8, cyrillic": "Запись не найдена: проверьте, пожалуйста, номер звонка. ".encode() * 9,
    "UTF-8 with byte order mark": b"\xef\xbb\xbfnot found",
    "Latin-1": "Die Aufnahme wurde gelöscht: für Kunde Müller. ".encode("latin-1") * 30,
    "UTF-16": '{"error": "no recording"}'.encode("utf-16"),
    "after many blank lines": b"\r\n  " * 200 + b'{"error": "no recording of this call"}',
}
PAGES = {
    "HTML": b"<!DOCTYPE html><html>",
    "HTML in Latin-1": "<html><title>Für Müller nicht zulässig: größer".encode("latin-1") * 20,
    "XML": b'<?xml version="1.0"?><error/>',
    "after white space": b"\r\n \t<html>",
    "UTF-8 with byte order mark": b"\xef\xbb\xbf\r\n<html>",
    **{f"{encoding}": "\r\n<html><body>log in".encode(encoding) for encoding in ("utf-16", "utf-16-le", "utf-16-be")},
    "UTF-16 with the other byte order mark": b"\xfe\xff" + "<html>".encode("utf-16-be"),
}


@pytest.mark.parametrize("name", AUDIO)
def test_audio_is_neither_a_text_nor_a_page(name: str) -> None:
    assert [length for length in (64, 512, 4096) if is_text(AUDIO[name][:length])] == []
    assert not is_page(AUDIO[name])


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_is_one_in_every_encoding(name: str) -> None:
    assert is_text(TEXTS[name])
    assert not starts_like_audio(TEXTS[name])


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_one_in_every_encoding(name: str) -> None:
    assert is_page(PAGES[name])


@pytest.mark.parametrize("before", [bytes([byte]) for byte in LEADING])
def test_bytes_before_a_recording_hide_it_from_no_check(before: bytes) -> None:
    assert starts_like_audio(before + WAV)
