"""Recordings over HTTP: the audio with ranges (RFC 9110, section 14), and a picture of it."""

from __future__ import annotations

import asyncio
import re
import tempfile
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

from aiohttp import web
from pydantic import ValidationError

from console.lookup.sidecar_search import find_recording
from console.page.waveform import PeakReader, waveform_svg
from console.web.access import WHO
from console.web.models import RecordingQuery
from console.web.problems import invalid, problem, read_parameters
from shared.archive.archive import Archive
from shared.archive.encryption import decrypt
from shared.archive.sidecar import Sidecar
from shared.config.settings import Settings
from shared.config.sources import Sources
from shared.domain.ids import SourceName
from shared.runtime.audit import Action, Audit

_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")
_CACHE = "private, no-store"
_ONE_DOWNLOAD_S = 600
_TOLD_KEPT = 1000
_PIECE_BYTES = 1 << 20
_WAVEFORMS_KEPT = 200


@dataclass(frozen=True, slots=True)
class _Audio:
    """A recording that can be sent: where it lies, or a temporary file that holds it opened."""

    size: int
    etag: str
    path: str
    opened: BinaryIO | None = None


class RecordingsApi:
    """Sends recordings out of the archive; sealed ones where the console has the identity that opens them."""

    def __init__(self, archive: Archive, sources: Sources, settings: Settings, audit: Audit) -> None:
        self._archive = archive
        self._sources = sources
        self._settings = settings
        self._audit = audit
        self._waveforms: OrderedDict[str, str] = OrderedDict()
        self._told: OrderedDict[tuple[str, str], float] = OrderedDict()

    async def get(self, request: web.Request) -> web.StreamResponse:
        """Send a recording, or the part of it that is asked for."""
        sidecar = await self._find(request)
        if isinstance(sidecar, web.Response):
            return sidecar
        with tempfile.TemporaryFile() as scratch:
            audio = await self._audio(sidecar, scratch)
            if isinstance(audio, web.Response):
                return audio
            if is_known(request.headers.get("If-None-Match", ""), audio.etag):
                return web.Response(status=304, headers={"ETag": audio.etag, "Cache-Control": _CACHE})
            is_same = request.headers.get("If-Range", audio.etag) == audio.etag
            wanted = read_range(request.headers.get("Range") if is_same else None, audio.size)
            if wanted is None:
                return problem(416, "The range is outside the recording.", {"Content-Range": f"bytes */{audio.size}"})
            if request.method == "GET":
                await self._tell(request[WHO].who, sidecar, is_beginning=wanted.first == 0)
            return await self._send(request, audio, wanted)

    async def _tell(self, who: str, sidecar: Sidecar, *, is_beginning: bool) -> None:
        """Tell of a download: once of what a player fetches in many ranges, from wherever it begins."""
        now, what = time.monotonic(), (who, sidecar.path)
        is_new = now - self._told.get(what, -_ONE_DOWNLOAD_S) >= _ONE_DOWNLOAD_S
        if is_beginning or is_new:
            await self._audit.record(Action.DOWNLOAD, who, source=sidecar.source, call=sidecar.call, recording=sidecar.name)
        self._told[what] = now
        self._told.move_to_end(what)
        while len(self._told) > _TOLD_KEPT:
            self._told.popitem(last=False)

    async def waveform(self, request: web.Request) -> web.Response:
        """Draw the recording as SVG."""
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
                async for piece in self._pieces(audio, 0, audio.size - 1):
                    await asyncio.to_thread(reader.feed, piece)
            peaks = reader.peaks()
            if peaks is None:
                return problem(404, "This recording is in a format that cannot be drawn.")
            self._waveforms[etag] = waveform_svg(peaks)
            while len(self._waveforms) > _WAVEFORMS_KEPT:
                self._waveforms.popitem(last=False)
        headers = {"Cache-Control": "private, max-age=86400", "ETag": f'"{etag}"'}
        return web.Response(text=self._waveforms[etag], content_type="image/svg+xml", headers=headers)

    async def _find(self, request: web.Request) -> Sidecar | web.Response:
        """Find the sidecar of the recording that is asked for, stored; `call` says of which call it is, which is quicker."""
        source, name = request.match_info["source"], request.match_info["guid"]
        try:
            query = read_parameters(request, RecordingQuery)
        except ValidationError as error:
            return invalid(error, RecordingQuery)
        if SourceName(source) not in self._sources:
            return problem(404, "There is no such recording.")
        sidecar = await find_recording(self._settings, self._archive, source, name, query.call)
        if sidecar is None:
            return problem(404, "There is no such recording.")
        if sidecar.state != "stored":
            reason = sidecar.recording.reason
            return problem(404, f"This recording is {sidecar.state}{f': {reason}' if reason else ''}.", state=sidecar.state)
        return sidecar

    async def _audio(self, sidecar: Sidecar, scratch: BinaryIO) -> _Audio | web.Response:
        path, etag = sidecar.file(sidecar.recording), f'"{_fingerprint(sidecar)}"'
        if not sidecar.recording.encryption:
            size = await self._archive.size(path)
            return problem(404, "The archive has lost this recording.") if size is None else _Audio(size, etag, path)
        identity = self._settings.archive_identity
        if identity is None:
            return problem(409, "This recording is sealed, and the console has no CALLFOLD_ARCHIVE_IDENTITY to open it.")
        with tempfile.TemporaryFile() as sealed:
            async for piece in self._archive.stream(path):
                await asyncio.to_thread(sealed.write, piece)
            sealed.seek(0)
            await asyncio.to_thread(decrypt, sealed, scratch, identity)
        return _Audio(scratch.seek(0, 2), etag, path, scratch)

    async def _send(self, request: web.Request, audio: _Audio, wanted: Range) -> web.StreamResponse:
        response = web.StreamResponse(status=206 if wanted.is_part else 200)
        response.content_type = "audio/wav"
        response.content_length = wanted.last - wanted.first + 1
        response.headers.update({"Accept-Ranges": "bytes", "ETag": audio.etag, "Cache-Control": _CACHE})
        response.headers["Content-Disposition"] = f'inline; filename="{request.match_info["guid"]}.wav"'
        if wanted.is_part:
            response.headers["Content-Range"] = f"bytes {wanted.first}-{wanted.last}/{audio.size}"
        await response.prepare(request)
        if request.method != "HEAD":
            async for piece in self._pieces(audio, wanted.first, wanted.last):
                await response.write(piece)
        return response

    async def _pieces(self, audio: _Audio, first: int, last: int) -> AsyncIterator[bytes]:
        for start in range(first, last + 1, _PIECE_BYTES):
            size = min(_PIECE_BYTES, last + 1 - start)
            if audio.opened is None:
                yield await self._archive.read_range(audio.path, start, size)
            else:
                audio.opened.seek(start)
                yield await asyncio.to_thread(audio.opened.read, size)


def _fingerprint(sidecar: Sidecar) -> str:
    """Name the content; one that lost its sidecar while it was sealed has no SHA-256."""
    return str(sidecar.recording.sha256 or sidecar.recording.at)


class Range(NamedTuple):
    """The first and the last byte; `is_part`: asked for as a range, be it the whole."""

    first: int
    last: int
    is_part: bool


def is_known(if_none_match: str, etag: str) -> bool:
    """Tell whether the one who asks has it already (RFC 9110, section 13.1.2)."""
    return any(known.strip().removeprefix("W/") in {etag, "*"} for known in if_none_match.split(","))


def read_range(header: str | None, size: int) -> Range | None:
    """Read a Range header; the whole where there is none that we know, None where nothing of it is there."""
    found = _RANGE.fullmatch(header.strip()) if header else None
    if found is None or found.groups() == ("", ""):
        return Range(0, size - 1, is_part=False)
    first, last = found.groups()
    if not first:
        return Range(max(0, size - int(last)), size - 1, is_part=True) if int(last) and size else None
    if int(first) >= size or (last and int(last) < int(first)):
        return None
    return Range(int(first), min(int(last), size - 1) if last else size - 1, is_part=True)
