"""Pictures and previews of recordings that only libsndfile reads. Each is decoded by a process of its own that is limited.

See `console.decode_audio` for its limits. Here the time is limited, and what comes back is checked like any foreign input.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from typing import BinaryIO

from pydantic import BaseModel, Field, ValidationError

from console import decode_audio
from console.page.waveform import Peaks
from shared.log import get_logger

log = get_logger(__name__)

MAX_BYTES = 256 << 20
_TIMEOUT_S = 60
_MAX_PEAKS_BYTES = 64 << 10
_MIN_PCM_BYTES = 45  # a header and a byte
# Nothing of the console's own: it has credentials. One thread, because each takes memory.
_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1"}


class _Peaks(BaseModel):
    """The output of the decoder in the mode `peaks`."""

    seconds: float = Field(gt=0, allow_inf_nan=False)
    channels: list[list[float]] = Field(min_length=1, max_length=2)


async def read_peaks(recording: BinaryIO) -> Peaks | None:
    """Compute the peaks of a recording. None: libsndfile cannot decode it within the limits."""
    with tempfile.TemporaryFile() as output:
        if not await _decode(decode_audio.PEAKS, recording, output):
            return None
        try:
            peaks = _Peaks.model_validate_json(output.read(_MAX_PEAKS_BYTES))
        except ValidationError:
            log.exception("audio_decoder_output_invalid")
            return None
    lanes = [tuple(min(max(peak, 0), 1) for peak in lane[: decode_audio.BINS]) for lane in peaks.channels]
    return Peaks(tuple(lanes), peaks.seconds) if all(lanes) else None


async def to_pcm(recording: BinaryIO, target: BinaryIO) -> bool:
    """Write a recording as 16-bit PCM into an empty file. False: libsndfile cannot decode it within the limits."""
    return await _decode(decode_audio.PCM, recording, target) and target.seek(0, os.SEEK_END) >= _MIN_PCM_BYTES


async def _decode(mode: str, recording: BinaryIO, output: BinaryIO) -> bool:
    recording.flush()
    recording.seek(0)
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            decode_audio.__file__,
            mode,
            stdin=recording,
            stdout=output,
            stderr=asyncio.subprocess.DEVNULL,
            env=_ENVIRONMENT,
            cwd="/",
        )
    except OSError as error:  # no memory or descriptors for a process
        log.warning("recording_not_decoded", mode=mode, status=str(error))
        return False
    status = None
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            status = await process.wait()
    except TimeoutError:
        pass
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    output.seek(0)
    if status == 0:
        return True
    log.warning("recording_not_decoded", mode=mode, status=status)
    return False
