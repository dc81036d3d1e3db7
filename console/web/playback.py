"""How the page presents each recording of a call: with a player and a picture that certainly work, or with words."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from console.page.call_models import RecordingRow
from console.page.playback import (
    Playback,
    Player,
    capitalized,
    format_name,
    has_playable_rate,
    may_be_converted,
    plays_everywhere,
    read_header,
)
from console.web.native_audio import MAX_BYTES
from console.web.stored_audio import AudioArchive, NoAudioError, StoredFile
from console.web.waveforms import Waveforms
from shared.domain.wav import Header
from shared.errors import CallfoldError

_DRAW_S = 3.0  # a page waits so long for its pictures; later ones are drawn when the browser asks for them
_NOT_HERE = "cannot be played here. Download the recording instead."


class Presenter:
    """Looks at stored recordings. What only libsndfile reads is drawn now, because only that shows whether it can be."""

    def __init__(self, audio: AudioArchive, waveforms: Waveforms) -> None:
        self._audio = audio
        self._waveforms = waveforms

    async def present(self, who: str, source: str, rows: Sequence[RecordingRow]) -> list[RecordingRow]:
        """Add to each stored recording how it is presented. `who` waits for slots of drawings."""
        return await asyncio.gather(*(self._presented(who, source, row) for row in rows))

    async def _presented(self, who: str, source: str, row: RecordingRow) -> RecordingRow:
        if row.state != "stored":
            return row
        stored = _file_of(source, row)
        if stored is None:  # the archive was laid out by hand
            return row
        try:
            return replace(row, playback=await self._playback(who, stored))
        except NoAudioError as error:
            return replace(row, playback=Playback(None, is_drawn=False, note=str(error), can_download=False))
        except CallfoldError as error:
            return replace(row, playback=Playback(None, is_drawn=False, note=str(error)))

    async def _playback(self, who: str, stored: StoredFile) -> Playback:
        head, size = await self._audio.head(stored)
        header = read_header(head)
        if header is not None and plays_everywhere(header, head, size):
            return Playback()
        is_convertible = size <= MAX_BYTES and (header is None or may_be_converted(header))
        if not is_convertible or not await self._is_drawn(who, stored):
            return Playback(None, is_drawn=False, note=_why_silent(header, size))
        if header is not None and not has_playable_rate(header):
            return Playback(None, note=f"A sample rate of {header.format.sample_rate} Hz {_NOT_HERE}")
        name = f"{capitalized(format_name(header))}, converted" if header else "Converted"
        return Playback(Player.PREVIEW, note=f"{name} for this player. The download is the original.")

    async def _is_drawn(self, who: str, stored: StoredFile) -> bool:
        try:
            async with asyncio.timeout(_DRAW_S):
                return await self._waveforms.draw(who, stored) is not None
        except TimeoutError:
            return True


def _why_silent(header: Header | None, size: int) -> str:
    if size > MAX_BYTES:
        return f"A recording of this size {_NOT_HERE}"
    if header is None or header.audio.body >= size:
        return f"This recording is damaged or has an unknown format. It {_NOT_HERE}"
    return f"{capitalized(format_name(header))} {_NOT_HERE}"


def _file_of(source: str, row: RecordingRow) -> StoredFile | None:
    """Return the file of a recording by its URI. Its path in the archive begins with the source."""
    _, separator, rest = str(row.uri).rpartition(f"/{source}/monitor/")
    if not separator or ".." in rest:
        return None
    return StoredFile(f"{source}/monitor/{rest}", str(row.sha256 or row.at), bool(row.encryption))
