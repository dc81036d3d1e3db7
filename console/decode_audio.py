"""A program that decodes one recording with libsndfile: to the peaks of its picture, or to 16-bit PCM that every browser plays.

libsndfile is native code, and a recording may be hostile. So `console.web.native_audio` runs this as a separate process, without
the console's environment. It limits its CPU time, memory and output before it reads the first byte. From then on it can neither
open a file or a connection nor start a process. It reads descriptor 0 and writes to descriptor 1.
"""

from __future__ import annotations

import json
import os
import resource
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

PEAKS, PCM = "peaks", "pcm"
CPU_S = 20
MEMORY_BYTES = 512 << 20
OUTPUT_BYTES = 512 << 20
BINS = 300
_MAX_CHANNELS, _MAX_LANES = 16, 2
_BLOCK_FRAMES = 1 << 16
_PEAK_FRAMES = 64
_HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")


def main() -> int:
    """Decode the recording. The exit code is 0, or 1 if it cannot be decoded."""
    import soundfile  # noqa: PLC0415 - only here: it is loaded before the limits, and slow

    _limit()
    try:
        with soundfile.SoundFile(0, closefd=False) as audio:
            if not 0 < audio.channels <= _MAX_CHANNELS:
                return 1
            _write_peaks(audio) if sys.argv[1] == PEAKS else _write_pcm(audio)
    except (RuntimeError, OSError, MemoryError, ValueError, TypeError):  # libsndfile's own errors are RuntimeErrors
        return 1
    return 0


def _limit() -> None:
    """Limit this process for good. Files and processes come last, because nothing can be opened afterwards."""
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_CPU: CPU_S,
        resource.RLIMIT_FSIZE: OUTPUT_BYTES,
        resource.RLIMIT_AS: MEMORY_BYTES,
        resource.RLIMIT_NPROC: 0,
        resource.RLIMIT_NOFILE: 0,
    }
    for limit, most in limits.items():
        with suppress(ValueError, OSError):  # macOS has no limit of memory
            resource.setrlimit(limit, (most, most))


def _blocks(audio: Any) -> Iterator[np.ndarray]:  # noqa: ANN401 - soundfile has no types
    """Read the audio as frames of samples from -1 to 1. Its own count of frames is not believed."""
    import numpy  # noqa: ICN001, PLC0415 - as above

    while len(block := audio.read(_BLOCK_FRAMES, dtype="float32", always_2d=True)):
        yield numpy.clip(numpy.nan_to_num(block), -1, 1)


def _write_peaks(audio: Any) -> None:  # noqa: ANN401
    """Write the loudest moments as JSON: `{"seconds": 1.5, "channels": [[0.1, 0.9]]}`, up to `BINS` for each of two channels."""
    import numpy  # noqa: ICN001, PLC0415

    parts, frames = [], 0
    for block in _blocks(audio):
        frames += len(block)
        loud = numpy.abs(block[:, :_MAX_LANES])
        loud = numpy.pad(loud, ((0, -len(loud) % _PEAK_FRAMES), (0, 0)))
        parts.append(loud.reshape(-1, _PEAK_FRAMES, loud.shape[1]).max(axis=1))
    if not frames:
        raise ValueError("no audio")
    peaks = numpy.concatenate(parts)
    width = -(-len(peaks) // BINS)
    peaks = numpy.pad(peaks, ((0, -len(peaks) % width), (0, 0))).reshape(-1, width, peaks.shape[1]).max(axis=1)
    channels = [[round(float(peak), 4) for peak in lane] for lane in peaks.T]
    _write(json.dumps({"seconds": frames / audio.samplerate, "channels": channels}).encode())


def _write_pcm(audio: Any) -> None:  # noqa: ANN401
    """Write a WAV file of 16-bit PCM, mono or stereo. More channels are mixed into one."""
    import numpy  # noqa: ICN001, PLC0415

    channels, length = audio.channels if audio.channels <= _MAX_LANES else 1, 0
    _write(bytes(_HEADER.size))
    for block in _blocks(audio):
        mixed = block if channels == block.shape[1] else block.mean(axis=1)
        samples = numpy.clip(numpy.rint(mixed * 32768), -32768, 32767).astype("<i2").tobytes()
        _write(samples)
        length += len(samples)
    if not length:
        raise ValueError("no audio")
    rate, frame = audio.samplerate, 2 * channels
    header = _HEADER.pack(b"RIFF", length + 36, b"WAVE", b"fmt ", 16, 1, channels, rate, rate * frame, frame, 16, b"data", length)
    os.lseek(1, 0, os.SEEK_SET)
    _write(header)


def _write(content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(1, rest) :]


if __name__ == "__main__":
    sys.exit(main())
