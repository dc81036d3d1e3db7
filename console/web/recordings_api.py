"""`GET /recordings/{source}/{guid}`: the audio, in ranges if requested, and its waveform."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import BinaryIO

from aiohttp import web
from pydantic import ValidationError

from console.lookup.sidecar_search import RecordingSearch
from console.missing_recordings import why_missing
from console.page.waveform import PeakReader, waveform_svg
from console.web.keys import IDENTITY
from console.web.models import RecordingQuery
from console.web.open_responses import OpenResponses
from console.web.parameters import read_parameters
from console.web.problems import invalid, problem
from console.web.range_requests import Range, matches_etag, read_range
from console.web.slots import Slots
from shared.archive.encryption import decrypt
from shared.archive.sidecar import Sidecar
from shared.archive.storage import Archive
from shared.config.settings import Settings
from shared.config.sources import Sources
from shared.domain.ids import SourceName
from shared.runtime.audit import Action, Audit

_CACHE = "private, no-store"
_SAME_DOWNLOAD_S = 600
_MAX_DOWNLOADS = 1000
_CHUNK_BYTES = 1 << 20
_MAX_WAVEFORMS = 200
# A download holds a chunk in memory and, of an encrypted recording, a temporary file, for as long as its reader is slow.
_MAX_OPEN = 100
_MAX_OPEN_PER_KEY = 50


@dataclass(frozen=True, slots=True)
class _Audio:
    """A recording that can be sent: a path in the archive, or a temporary file with the decrypted audio."""

    size: int
    etag: str
    path: str
    decrypted: BinaryIO | None = None


class RecordingsApi:
    """Sends recordings from the archive, and decrypts them if the console has the identity."""

    def __init__(self, archive: Archive, search: RecordingSearch, sources: Sources, settings: Settings, audit: Audit) -> None:
        self._archive = archive
        self._search = search
        self._sources = sources
        self._settings = settings
        self._audit = audit
        self._waveforms: OrderedDict[str, str] = OrderedDict()
        self._downloads: OrderedDict[tuple[str, str], float] = OrderedDict()
        # To find a recording can take a read for each day of the archive. To decrypt or draw it takes reading all of it.
        self._preparing = Slots.of("recordings")
        self._drawing = Slots.of("waveforms")
        self._open = OpenResponses("downloads", per_key=_MAX_OPEN_PER_KEY, total=_MAX_OPEN)

    async def get(self, request: web.Request) -> web.StreamResponse:
        """Send a recording or the requested range of it."""
        who = request[IDENTITY].name
        refusal = self._open.refuse_beyond(who)
        if refusal is not None:
            return refusal
        with self._open.one(who), tempfile.TemporaryFile() as scratch:
            async with self._preparing.one(who):
                prepared = await self._prepare(request, scratch)
            if isinstance(prepared, web.Response):
                return prepared
            sidecar, audio = prepared
            if matches_etag(request.headers.get("If-None-Match", ""), audio.etag):
                return web.Response(status=304, headers={"ETag": audio.etag, "Cache-Control": _CACHE})
            is_same = request.headers.get("If-Range", audio.etag) == audio.etag
            bytes_range = read_range(request.headers.get("Range") if is_same else None, audio.size)
            if bytes_range is None:
                title = f"The range is outside the recording, which has {audio.size} bytes. Request a range within it."
                return problem(416, title, {"Content-Range": f"bytes */{audio.size}"})
            if request.method == "GET":
                await self._audit_download(who, sidecar, is_beginning=bytes_range.first == 0)
            return await self._send(request, audio, bytes_range)

    async def _prepare(self, request: web.Request, scratch: BinaryIO) -> tuple[Sidecar, _Audio] | web.Response:
        sidecar = await self._find(request)
        if isinstance(sidecar, web.Response):
            return sidecar
        audio = await self._audio(sidecar, scratch)
        return audio if isinstance(audio, web.Response) else (sidecar, audio)

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
        async with self._drawing.one(request[IDENTITY].name):
            return await self._draw(request)

    async def _draw(self, request: web.Request) -> web.Response:
        sidecar = await self._find(request)
        if isinstance(sidecar, web.Response):
            return sidecar
        etag = _fingerprint(sidecar)
        if etag not in self._waveforms:
            with tempfile.TemporaryFile() as scratch:
                audio = await self._audio(sidecar, scratch)
                if isinstance(audio, web.Response):
                    return audio
                reader = PeakReader()
                async for chunk in self._chunks(audio, 0, audio.size - 1):
                    await asyncio.to_thread(reader.feed, chunk)
            peaks = reader.peaks()
            if peaks is None:
                return problem(404, "The audio format of this recording cannot be drawn. Download the recording instead.")
            self._waveforms[etag] = waveform_svg(peaks)
            while len(self._waveforms) > _MAX_WAVEFORMS:
                self._waveforms.popitem(last=False)
        headers = {"Cache-Control": "private, max-age=86400", "ETag": f'"{etag}"'}
        return web.Response(text=self._waveforms[etag], content_type="image/svg+xml", headers=headers)

    async def _find(self, request: web.Request) -> Sidecar | web.Response:
        """Find the sidecar of the requested recording, which must be stored. The parameter `call` speeds up the search."""
        source, name = request.match_info["source"], request.match_info["guid"]
        try:
            query = read_parameters(request, RecordingQuery)
        except ValidationError as error:
            return invalid(error, RecordingQuery)
        sidecar = None
        if SourceName(source) in self._sources:
            sidecar = await self._search.find(source, name, query.call)
        if sidecar is None:
            return problem(404, f"Source {source} has no recording {name}. Find it with GET /calls/{{source}}/{{call}}.")
        if sidecar.state != "stored":
            return problem(404, f"This recording is not stored: {why_missing(sidecar)}", state=sidecar.state)
        return sidecar

    async def _audio(self, sidecar: Sidecar, scratch: BinaryIO) -> _Audio | web.Response:
        path, etag = sidecar.file(sidecar.recording), f'"{_fingerprint(sidecar)}"'
        if not sidecar.recording.encryption:
            size = await self._archive.size(path)
            if size is None:
                return problem(404, "The file of this recording is missing from the archive. Run callfold recordings verify.")
            return _Audio(size, etag, path)
        identity = self._settings.archive_identity
        if identity is None:
            title = "This recording is encrypted and the console cannot decrypt it. Set CALLFOLD_ARCHIVE_IDENTITY."
            return problem(409, title)
        with tempfile.TemporaryFile() as encrypted:
            async for chunk in self._archive.stream(path):
                await asyncio.to_thread(encrypted.write, chunk)
            encrypted.seek(0)
            await asyncio.to_thread(decrypt, encrypted, scratch, identity)
        return _Audio(scratch.seek(0, 2), etag, path, scratch)

    async def _send(self, request: web.Request, audio: _Audio, bytes_range: Range) -> web.StreamResponse:
        first, last, is_partial = bytes_range
        response = web.StreamResponse(status=206 if is_partial else 200)
        response.content_type = "audio/wav"
        response.content_length = last - first + 1
        response.headers.update({"Accept-Ranges": "bytes", "ETag": audio.etag, "Cache-Control": _CACHE})
        response.headers["Content-Disposition"] = f'inline; filename="{request.match_info["guid"]}.wav"'
        if is_partial:
            response.headers["Content-Range"] = f"bytes {first}-{last}/{audio.size}"
        await response.prepare(request)
        if request.method != "HEAD":
            async for chunk in self._chunks(audio, first, last):
                await response.write(chunk)
        return response

    async def _chunks(self, audio: _Audio, first: int, last: int) -> AsyncIterator[bytes]:
        for start in range(first, last + 1, _CHUNK_BYTES):
            size = min(_CHUNK_BYTES, last + 1 - start)
            if audio.decrypted is None:
                yield await self._archive.read_range(audio.path, start, size)
            else:
                audio.decrypted.seek(start)
                yield await asyncio.to_thread(audio.decrypted.read, size)


def _fingerprint(sidecar: Sidecar) -> str:
    """Identify the content. An encrypted recording whose sidecar was lost has no SHA-256."""
    return str(sidecar.recording.sha256 or sidecar.recording.at)
