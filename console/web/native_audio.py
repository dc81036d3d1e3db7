"""Pictures and previews of recordings that only libsndfile reads. A limited, separate process decodes each.

See `console.decode_audio` for its limits. Here the time is limited, and what comes back is checked like any foreign input.
"""

from __future__ import annotations

import asyncio
import os
import struct
import sys
import tempfile
from typing import BinaryIO

from pydantic import BaseModel, Field, ValidationError

from console import decode_audio
from console.page.playback import read_header
from console.page.waveform import Peaks
from console.web.stored_audio import Audio, AudioArchive
from shared.domain.wav import HEAD_BYTES
from shared.domain.wav_format import A_LAW, FLOAT, MU_LAW, PCM, Format
from shared.log import get_logger

log = get_logger(__name__)

MAX_BYTES = 256 << 20
_TIMEOUT_S = 60
_MAX_PEAKS_BYTES = 64 << 10
_UNCOMPRESSED = frozenset({PCM, FLOAT, A_LAW, MU_LAW})
_RIFF, _FORMAT, _CHUNK = struct.Struct("<4sI4s4sI"), struct.Struct("<HHIIHH"), struct.Struct("<4sI")
_MIN_PCM_BYTES = 45  # a header and a byte
# Nothing of the console's own: it has credentials. One thread, because each takes memory.
_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1"}


class _Peaks(BaseModel):
    """The output of the decoder in the mode `peaks`."""

    seconds: float = Field(gt=0, allow_inf_nan=False)
    channels: list[list[float]] = Field(min_length=1, max_length=2)


async def copy_for_decoder(archive: AudioArchive, audio: Audio, target: BinaryIO) -> None:
    """Copy a recording into an empty file. Its sizes are corrected, and one without compression gets a new header.

    Raises:
        CallfoldError: the archive cannot be read.
    """
    start = await archive.read(audio, 0, HEAD_BYTES)
    header, first, last = read_header(start), 0, audio.size - 1
    if header is not None and header.order == "<" and header.audio.body <= len(start):
        first = header.audio.body
        if header.audio.has_length:
            last = min(last, header.audio.end - 1)
        length = max(last + 1 - first, 0)
        is_plain = header.format.encoding in _UNCOMPRESSED and header.format.frame_bytes
        content = _plain_header(header.format, length) if is_plain else _corrected(start[header.start : first], length)
        await asyncio.to_thread(target.write, content)
    async for chunk in archive.chunks(audio, first, last):
        await asyncio.to_thread(target.write, chunk)


def _corrected(header: bytes, length: int) -> bytes:
    """Return a header, up to the audio, with the true sizes of file and audio."""
    return b"RIFF" + struct.pack("<I", len(header) + length - 8) + header[8:-4] + struct.pack("<I", length)


def _plain_header(audio: Format, length: int) -> bytes:
    frame = audio.frame_bytes or 1
    bits = 8 * frame // audio.channels
    content = _FORMAT.pack(audio.encoding, audio.channels, audio.sample_rate, audio.sample_rate * frame, frame, bits)
    riff = _RIFF.pack(b"RIFF", length + _RIFF.size + len(content) + 8, b"WAVE", b"fmt ", len(content))
    return riff + content + _CHUNK.pack(b"data", length)


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
