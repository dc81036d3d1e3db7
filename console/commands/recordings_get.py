"""`callfold recordings get`: download recordings from the archive, decrypt them and verify their checksums."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import orjson

from console.commands.audit_trail import open_audit
from console.commands.common import cli_user, select_sources
from console.lookup.sidecar_search import find_sidecars
from console.missing_recordings import why_missing
from console.safe_text import plain_line
from shared.archive.checksum import checksums_of
from shared.archive.encryption import decrypt
from shared.archive.sidecar import Sidecar
from shared.archive.storage import Archive
from shared.config.settings import Settings
from shared.domain.recording import RecordingState
from shared.domain.recording_info import RecordingInfo
from shared.errors import CallfoldError, ConfigError
from shared.runtime.audit import Action, Audit

_PIECE_BYTES = 1 << 20
_STDOUT = Path("-")


@dataclass(frozen=True, slots=True)
class Target:
    """The output file or directory, and the age identity that decrypts recordings."""

    output: Path | None
    identity: Path | None
    force: bool


async def get(settings: Settings, source: str, what: str, target: Target, *, as_json: bool) -> int:
    """Get the recordings of a call, or one by its GUID.

    Raises:
        CallfoldError: none is stored, or one cannot be written.
    """
    select_sources(settings, source)
    archive = Archive(settings.archive_url)
    target = replace(target, identity=target.identity or settings.archive_identity)
    sidecars = await find_sidecars(settings, archive, source, what)
    if not sidecars:
        raise CallfoldError(
            f"No recording of {source} {what} in the archive. Check the id with `callfold calls --source {source}`."
        )
    missing = [
        plain_line(f"{sidecar.leg.capitalize()} leg {sidecar.call_id}: {why_missing(sidecar)}")
        for sidecar in sidecars
        if sidecar.state is not RecordingState.STORED
    ]
    if len(missing) == len(sidecars):
        raise CallfoldError(f"No recording of {source} {what} is stored. {' '.join(missing)}")
    _check_output(sidecars, target)
    sys.stderr.writelines(f"{line}\n" for line in missing)
    async with open_audit(settings) as audit:
        await _get_each(sidecars, archive, target, audit, as_json=as_json)
    return 0


async def _get_each(sidecars: Sequence[Sidecar], archive: Archive, target: Target, audit: Audit, *, as_json: bool) -> None:
    """Write the stored recordings."""
    for sidecar in sidecars:
        if sidecar.state is not RecordingState.STORED:
            continue
        for info in sidecar.contents:
            stored = sidecar.file(info)
            path = _path(stored, target)
            async with _open_recording(archive, stored, info, target) as content:
                # The audit line comes first, so that no recording is written without one, even if this command is killed.
                fields = {"source": sidecar.source, "call": sidecar.call, "recording": sidecar.name}
                await audit.record(Action.DOWNLOAD, cli_user(), **fields)
                await asyncio.to_thread(_write, content, path)
            result = {"file": str(path), "leg": sidecar.leg, "call_id": sidecar.call_id, "sha256": info.sha256}
            if path != _STDOUT:
                sys.stdout.write((orjson.dumps(result).decode() if as_json else plain_line(f"{path}  {sidecar.leg} leg")) + "\n")


def _check_output(sidecars: Sequence[Sidecar], target: Target) -> None:
    """Check that the output can hold the recordings.

    Raises:
        CallfoldError: there are several recordings, but the output is one file.
    """
    several = [sidecar for sidecar in sidecars if sidecar.state is RecordingState.STORED]
    count = sum(len(sidecar.contents) for sidecar in several)
    if count > 1 and target.output is not None and not target.output.is_dir():
        guids = ", ".join(f"{sidecar.name} ({sidecar.leg})" for sidecar in several)
        choice = f", or get one by its GUID: {guids}" if len(several) > 1 else ""
        raise CallfoldError(f"Cannot write {count} recordings to one file. Give an existing directory to --output{choice}.")


@asynccontextmanager
async def _open_recording(archive: Archive, stored: str, info: RecordingInfo, target: Target) -> AsyncIterator[BinaryIO]:
    """Open one recording, downloaded, decrypted and verified.

    Raises:
        CallfoldError: it is missing or damaged, the output file exists, or it cannot be decrypted.
    """
    path = _path(stored, target)
    if path != _STDOUT and path.exists() and not target.force:
        raise CallfoldError(f"{path} exists. Choose another with --output, or overwrite it with --force.")
    directory = None if path == _STDOUT else path.parent
    with tempfile.TemporaryFile(dir=directory) as raw, tempfile.TemporaryFile(dir=directory) as decrypted:
        try:
            async for piece in archive.stream(stored):
                raw.write(piece)
        except FileNotFoundError:
            raise CallfoldError(
                f"{stored} is missing from the archive. `callfold recordings verify` lists everything that is missing."
            ) from None
        raw.seek(0)
        content: BinaryIO = raw
        if info.encryption:
            if target.identity is None:
                raise ConfigError(
                    f"{stored} is encrypted. Give the age identity file with --identity or CALLFOLD_ARCHIVE_IDENTITY."
                )
            await asyncio.to_thread(decrypt, raw, decrypted, target.identity)
            content = decrypted
        await asyncio.to_thread(_check, content, info, stored)
        yield content


def _path(stored: str, target: Target) -> Path:
    name = stored.rpartition("/")[2].removesuffix(".age")
    output = target.output or Path()
    return output / name if output != _STDOUT and output.is_dir() else output


def _check(content: BinaryIO, info: RecordingInfo, stored: str) -> None:
    """Verify the SHA-256 of a recording. An encrypted one whose sidecar was lost has none, but decryption has verified it."""
    if checksums_of(content).sha256 != info.sha256 and not (info.sha256 is None and info.encryption):
        raise CallfoldError(f"{stored} is damaged: its SHA-256 differs from the one in its sidecar.")


def _write(content: BinaryIO, path: Path) -> None:
    """Write a recording; the output file appears only once it is complete."""
    content.seek(0)
    if path == _STDOUT:
        shutil.copyfileobj(content, sys.stdout.buffer, _PIECE_BYTES)
        return
    unfinished = path.with_name(f".{path.name}.part")
    try:
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            shutil.copyfileobj(content, file, _PIECE_BYTES)
        unfinished.rename(path)
    finally:
        unfinished.unlink(missing_ok=True)
