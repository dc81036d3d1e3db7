"""Recordings as FocalScope serves them: WAV files that sound and look like speech. The same call always has the same bytes."""

from __future__ import annotations

import array
import io
import math
import random
import wave
from collections.abc import Iterator
from functools import cache

SAMPLE_RATE = 8000
_AMPLITUDE = 24000
_SYLLABLES_PER_S = 10  # all pitches are multiples of it, so every syllable begins and ends in a zero
_LOUDNESS = (0.01, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 1.0)
_PAUSE = 0
_PATTERN_S = 12  # repeated in a longer recording


def recording(call_id: str, seconds: float) -> bytes:
    """Return a mono 16-bit WAV file of a tone in syllables and phrases. The id of the call determines them and the pitch."""
    pitch_hz = _SYLLABLES_PER_S * (30 + int(call_id) % 40)
    syllables = [_syllable(pitch_hz, loudness) for loudness in _LOUDNESS]
    frames = round(seconds * SAMPLE_RATE)
    pattern = array.array("h")
    for level in _levels(int(call_id), min(_PATTERN_S, math.ceil(seconds)) * _SYLLABLES_PER_S):
        pattern.extend(syllables[level])
    samples = (pattern * (frames // max(len(pattern), 1) + 1))[:frames]
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(samples.tobytes())
    return buffer.getvalue()


@cache
def _syllable(pitch_hz: int, loudness: float) -> array.array[int]:
    amplitude = _AMPLITUDE * loudness
    step = 2 * math.pi * pitch_hz / SAMPLE_RATE
    return array.array("h", (round(amplitude * math.sin(step * n)) for n in range(SAMPLE_RATE // _SYLLABLES_PER_S)))


def _levels(seed: int, count: int) -> Iterator[int]:
    """Yield the loudness of each syllable: phrases that rise and fall, and a pause after each."""
    chance = random.Random(seed)  # noqa: S311 - makes audio, no secret
    levels: list[int] = []
    while len(levels) < count:
        length = chance.randint(6, 18)
        for index in range(length):
            swell = math.sin(math.pi * (index + 1) / (length + 1))
            levels.append(max(1, round(swell * chance.uniform(0.4, 1.0) * (len(_LOUDNESS) - 1))))
        levels += [_PAUSE] * chance.randint(2, 8)
    yield from levels[:count]
