"""Recordings as FocalScope serves them: WAV files with a tone. The same call always has the same bytes."""

from __future__ import annotations

import array
import io
import math
import wave

SAMPLE_RATE = 8000
_AMPLITUDE = 8000
_PERIODS_PER_S = 10  # all pitches are multiples of it, so a tenth of a second can be repeated


def recording(call_id: str, seconds: float) -> bytes:
    """Return a mono 16-bit WAV file of a tone. The id of the call determines its pitch."""
    pitch_hz = _PERIODS_PER_S * (30 + int(call_id) % 40)
    period = array.array(
        "h",
        (round(_AMPLITUDE * math.sin(2 * math.pi * pitch_hz * n / SAMPLE_RATE)) for n in range(SAMPLE_RATE // _PERIODS_PER_S)),
    )
    frames = round(seconds * SAMPLE_RATE)
    samples = (period * (frames // len(period) + 1))[:frames]
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(samples.tobytes())
    return buffer.getvalue()
