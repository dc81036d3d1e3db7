"""Pictures of recordings, a few at a time, and the last ones kept."""

from __future__ import annotations

import asyncio
import tempfile
from collections import OrderedDict

from console.page.waveform import PeakReader, Peaks, waveform_svg
from console.web.native_audio import MAX_BYTES, copy_for_decoder, read_peaks
from console.web.slots import Slots
from console.web.stored_audio import Audio, AudioArchive, StoredFile

_MAX_KEPT = 200


class Waveforms:
    """Draws recordings."""

    def __init__(self, audio: AudioArchive) -> None:
        self._audio = audio
        self._kept: OrderedDict[tuple[str, int], str] = OrderedDict()
        self._drawing = Slots.of("waveforms")

    async def draw(self, who: str, stored: StoredFile) -> str | None:
        """Return the picture as SVG; None if the recording cannot be drawn. `who` waits for a slot if others draw.

        Raises:
            NoAudioError: the file is missing, or cannot be decrypted.
            CallfoldError: the archive cannot be read, or too many pictures are wanted at once.
        """
        content = (stored.fingerprint, await self._audio.file_size(stored))  # a damaged file usually has another size
        if (kept := self._kept.get(content)) is not None:
            return kept
        async with self._drawing.one(who):
            peaks = await self._peaks(stored)
        if peaks is None:
            return None
        picture = self._kept[content] = waveform_svg(peaks)
        while len(self._kept) > _MAX_KEPT:
            self._kept.popitem(last=False)
        return picture

    async def _peaks(self, stored: StoredFile) -> Peaks | None:
        with tempfile.TemporaryFile() as scratch:
            audio = await self._audio.open(stored, scratch)
            return await self._simple_peaks(audio) or await self._native_peaks(audio)

    async def _simple_peaks(self, audio: Audio) -> Peaks | None:
        """Compute the peaks of a recording as telephone systems usually write it, in this process."""
        reader = PeakReader()
        async for chunk in self._audio.chunks(audio, 0, audio.size - 1):
            await asyncio.to_thread(reader.feed, chunk)
            if reader.is_undrawable:
                return None
        return reader.peaks()

    async def _native_peaks(self, audio: Audio) -> Peaks | None:
        if audio.size > MAX_BYTES:
            return None
        with tempfile.TemporaryFile() as copy:
            await copy_for_decoder(self._audio, audio, copy)
            return await read_peaks(copy)
