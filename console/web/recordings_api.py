"""`GET /recordings/{source}/{guid}`: the audio, a preview that every browser plays, and the waveform."""

from __future__ import annotations

import tempfile
import time
from collections import OrderedDict
from typing import BinaryIO

from aiohttp import web
from pydantic import ValidationError

from console.counts import counted
from console.lookup.sidecar_search import RecordingSearch
from console.missing_recordings import why_missing
from console.web.keys import IDENTITY
from console.web.models import RecordingQuery
from console.web.native_audio import MAX_BYTES, copy_for_decoder, to_pcm
from console.web.open_responses import OpenResponses
from console.web.parameters import read_parameters
from console.web.problems import invalid, problem
from console.web.range_requests import Range, matches_etag, read_range
from console.web.slots import Slots
from console.web.stored_audio import Audio, AudioArchive, NoAudioError, StoredFile
from console.web.waveforms import Waveforms
from shared.archive.sidecar import Sidecar
from shared.config.live_sources import LiveSources
from shared.domain.ids import SourceName
from shared.runtime.audit import Action, Audit

_CACHE = "private, no-store"
_SAME_DOWNLOAD_S = 600
_MAX_DOWNLOADS = 1000
# A download holds a chunk in memory for as long as its reader is slow. An encrypted recording and a preview hold temporary files.
_MAX_OPEN = 100
_MAX_OPEN_PER_KEY = 50
_NOT_DRAWN = "This recording cannot be drawn: it has an unknown audio format, is damaged, or is too large. Download it instead."
_NOT_PLAYED = (
    "This recording cannot be converted: it has an unknown audio format, is damaged, or is too large. Download it instead."
)


class RecordingsApi:
    """Sends recordings from the archive, and decrypts them if the console has the identity."""

    def __init__(
        self, search: RecordingSearch, sources: LiveSources, audio: AudioArchive, waveforms: Waveforms, audit: Audit
    ) -> None:
        self._search = search
        self._sources = sources
        self._audio = audio
        self._waveforms = waveforms
        self._audit = audit
        self._downloads: OrderedDict[tuple[str, str], float] = OrderedDict()
        # To find a recording can take a read for each day of the archive. To decrypt or convert it takes reading all of it.
        self._preparing = Slots.of("recordings")
        self._converting = Slots.of("previews")
        self._open = OpenResponses("downloads", per_key=_MAX_OPEN_PER_KEY, total=_MAX_OPEN)

    async def get(self, request: web.Request) -> web.StreamResponse:
        """Send a recording or the requested range of it."""
        return await self._get(request, is_preview=False)

    async def preview(self, request: web.Request) -> web.StreamResponse:
        """Send a recording as 16-bit PCM, or the requested range of that."""
        return await self._get(request, is_preview=True)

    async def _get(self, request: web.Request, *, is_preview: bool) -> web.StreamResponse:
        who = request[IDENTITY].name
        refusal = self._open.refuse_beyond(who)
        if refusal is not None:
            return refusal
        with self._open.one(who), tempfile.TemporaryFile() as scratch, tempfile.TemporaryFile() as converted:
            async with self._preparing.one(who):
                sidecar = await self._find(request)
                if isinstance(sidecar, web.Response):
                    return sidecar
                stored = StoredFile.of(sidecar)
                try:
                    audio: Audio | None = await self._audio.open(stored, scratch)
                except NoAudioError as error:
                    return problem(error.status, str(error))
            etag = f'"{stored.fingerprint}{"-preview" if is_preview else ""}"'
            if matches_etag(request.headers.get("If-None-Match", ""), etag):
                return web.Response(status=304, headers={"ETag": etag, "Cache-Control": _CACHE})
            if is_preview and audio is not None:
                async with self._converting.one(who):
                    audio = await self._convert(audio, converted)
            if audio is None:
                return problem(404, _NOT_PLAYED)
            return await self._answer(request, sidecar, audio, etag)

    async def _convert(self, audio: Audio, converted: BinaryIO) -> Audio | None:
        if audio.size > MAX_BYTES:
            return None
        with tempfile.TemporaryFile() as copy:
            await copy_for_decoder(self._audio, audio, copy)
            if not await to_pcm(copy, converted):
                return None
        return Audio(converted.seek(0, 2), audio.path, converted)

    async def _answer(self, request: web.Request, sidecar: Sidecar, audio: Audio, etag: str) -> web.StreamResponse:
        is_same = request.headers.get("If-Range", etag) == etag
        bytes_range = read_range(request.headers.get("Range") if is_same else None, audio.size)
        if bytes_range is None:
            title = f"The range is outside the recording, which has {counted(audio.size, 'byte')}. Request a range within it."
            return problem(416, title, {"Content-Range": f"bytes */{audio.size}"})
        if request.method == "GET":
            await self._audit_download(request[IDENTITY].name, sidecar, is_beginning=bytes_range.first == 0)
        return await self._send(request, audio, bytes_range, etag)

    async def _audit_download(self, who: str, sidecar: Sidecar, *, is_beginning: bool) -> None:
        """Audit a download once, even if a player fetches it in many ranges and starts in the middle."""
        now, download = time.monotonic(), (who, sidecar.path)
        is_new = now - self._downloads.get(download, -_SAME_DOWNLOAD_S) >= _SAME_DOWNLOAD_S
        if is_beginning or is_new:
            await self._audit.record(Action.DOWNLOAD, who, source=sidecar.source, call=sidecar.call, recording=sidecar.name)
        self._downloads[download] = now
        self._downloads.move_to_end(download)
        while len(self._downloads) > _MAX_DOWNLOADS:
            self._downloads.popitem(last=False)

    async def waveform(self, request: web.Request) -> web.Response:
        """Draw the recording as SVG."""
        who = request[IDENTITY].name
        async with self._preparing.one(who):
            sidecar = await self._find(request)
        if isinstance(sidecar, web.Response):
            return sidecar
        stored = StoredFile.of(sidecar)
        try:
            picture = await self._waveforms.draw(who, stored)
        except NoAudioError as error:
            return problem(error.status, str(error))
        if picture is None:
            return problem(404, _NOT_DRAWN)
        headers = {"Cache-Control": "private, max-age=86400", "ETag": f'"{stored.fingerprint}"'}
        return web.Response(text=picture, content_type="image/svg+xml", headers=headers)

    async def _find(self, request: web.Request) -> Sidecar | web.Response:
        """Find the sidecar of the requested recording, which must be stored. The parameter `call` speeds up the search."""
        source, name = request.match_info["source"], request.match_info["guid"]
        try:
            query = read_parameters(request, RecordingQuery)
        except ValidationError as error:
            return invalid(error, RecordingQuery)
        sidecar = None
        if SourceName(source) in self._sources.current:
            sidecar = await self._search.find(source, name, query.call)
        if sidecar is None:
            return problem(404, f"Source {source} has no recording {name}. Find it with GET /calls/{{source}}/{{call}}.")
        if sidecar.state != "stored":
            return problem(404, f"This recording is not stored: {why_missing(sidecar)}", state=sidecar.state)
        return sidecar

    async def _send(self, request: web.Request, audio: Audio, bytes_range: Range, etag: str) -> web.StreamResponse:
        first, last, is_partial = bytes_range
        response = web.StreamResponse(status=206 if is_partial else 200)
        response.content_type = "audio/wav"
        response.content_length = last - first + 1
        response.headers.update({"Accept-Ranges": "bytes", "ETag": etag, "Cache-Control": _CACHE})
        response.headers["Content-Disposition"] = f'inline; filename="{request.match_info["guid"]}.wav"'
        if is_partial:
            response.headers["Content-Range"] = f"bytes {first}-{last}/{audio.size}"
        await response.prepare(request)
        if request.method != "HEAD":
            async for chunk in self._audio.chunks(audio, first, last):
                await response.write(chunk)
        return response
