"""Files that were downloaded and refused. They are kept next to the recordings, until a person accepts them or they expire.

`<source>/refused/<call>.<name>.<CallID>.json` describes the refused file of a leg, which has the name `...<8 digits>.wav`. It
ends in `.age` if encrypted. A leg has one. Nothing else in the archive refers to this directory.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from types import NoneType
from typing import BinaryIO

import orjson

from shared.archive.deadlines import ArchiveUnavailableError
from shared.archive.sidecar import ENCRYPTED_SUFFIX, day_of
from shared.archive.storage import Archive, Entry
from shared.domain.event_types import Encryption
from shared.domain.ids import CALL_ID, CALL_REF, RECORDING_NAME, SOURCE_NAME
from shared.domain.recording_info import HASH_DIGITS
from shared.log import get_logger

log = get_logger(__name__)

_DESCRIPTION = ".json"
MAX_FILES = 1000
"""Refused files that are kept of a source."""


@dataclass(frozen=True, slots=True)
class RefusedFile:
    """A refused file, and the recording that it may be.

    Attributes:
        call: key of the call within its source: `513` or `call-<CallID>`.
        started_at: time that decides when it expires.
        sidecar: path of the sidecar of its leg.
        at: time at which it was refused, `reason` and `detail` say why.
        bytes, sha256, sha512: of the file; `stored_bytes` and `stored_sha256` of the encrypted one. A previous release computed
            no SHA-512.
        seconds, channels, sample_rate: of the audio that is there, None if it could not be read.
        file: path of the file in the archive.
    """

    source: str
    call: str
    call_id: str
    guid: str | None
    name: str
    leg: str
    started_at: str
    sidecar: str
    at: str
    reason: str
    detail: str
    attempts: int
    bytes: int
    sha256: str
    seconds: float | None
    channels: int | None
    sample_rate: int | None
    flags: tuple[str, ...]
    encryption: Encryption | None
    stored_bytes: int | None
    stored_sha256: str | None
    sha512: str | None = None

    @property
    def path(self) -> str:
        """Return the path of the description."""
        return path_of_refused(self.source, self.call, self.name, self.call_id)

    @property
    def file(self) -> str:
        suffix = ENCRYPTED_SUFFIX if self.encryption else ""
        return f"{self.path.removesuffix('json')}{self.sha256[:HASH_DIGITS]}.wav{suffix}"

    @property
    def lock(self) -> str:
        """Return the name of the lock of its recording."""
        return f"{day_of(self.source, self.started_at)}/{self.name}.json"


def refused_json(refused: RefusedFile) -> bytes:
    return orjson.dumps({"v": 1} | asdict(refused), option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)


_TEXT_OR_NONE = (str, NoneType)
_WHOLE_OR_NONE = (int, NoneType)
_FIELD_TYPES: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("source", "call", "call_id", "name", "leg", "started_at", "sidecar", "at", "reason", "detail"), (str,)),
    **dict.fromkeys(("guid", "stored_sha256"), _TEXT_OR_NONE),
    **dict.fromkeys(("attempts", "bytes"), (int,)),
    **dict.fromkeys(("channels", "sample_rate", "stored_bytes"), _WHOLE_OR_NONE),
    "seconds": (float, int, NoneType),
    "sha256": (str,),
    "flags": (list,),
    "encryption": (dict, NoneType),
}
# Values that become part of a path, or are compared as text.
_FIELD_FORMS: Mapping[str, re.Pattern[str]] = {
    "source": SOURCE_NAME,
    "call": CALL_REF,
    "call_id": CALL_ID,
    "name": RECORDING_NAME,
    "sha256": re.compile("[0-9a-f]{64}"),
    "started_at": re.compile(r"\d{4}-\d\d-\d\dT[0-9:.]{8,15}Z", re.ASCII),
    "sidecar": re.compile(rf"{SOURCE_NAME.pattern}/monitor/\d{{4}}-UTC/\d\d/\d\d/[^/]+\.json", re.ASCII),
}


def decode_refused(body: bytes, path: str) -> RefusedFile:
    """Read the description at a path. It may have been edited.

    Raises:
        ValueError: it is no description of version 1, or that of another file.
    """
    data = orjson.loads(body)
    if not isinstance(data, dict) or data.get("v") != 1:
        raise ValueError("not the description of a refused file of version 1")
    wrong = [name for name, types in _FIELD_TYPES.items() if name not in data or type(data[name]) not in types]
    wrong = wrong or [name for name, form in _FIELD_FORMS.items() if not form.fullmatch(data[name])]
    if wrong:
        raise ValueError(f"not the description of a refused file of version 1: {', '.join(wrong)}")
    datetime.fromisoformat(data["started_at"])
    known = {name: data[name] for name in _FIELD_TYPES}
    sha512 = data.get("sha512")
    known["sha512"] = sha512 if isinstance(sha512, str) else None
    refused = RefusedFile(**known | {"flags": tuple(map(str, known["flags"]))})
    if refused.path != path or not refused.sidecar.startswith(f"{refused.source}/"):
        raise ValueError(f"the description of another file: {refused.path}")
    return refused


def directory_of(source: str) -> str:
    return f"{source}/refused"


def path_of_refused(source: str, call: str, name: str, call_id: str) -> str:
    """Return the path of a description. A PBX that was reset uses a CallID again, so the name has the call as well."""
    begin = "" if call == name else f"{call}."
    return f"{directory_of(source)}/{begin}{name}.{call_id}.json"


async def read_refused(archive: Archive, path: str) -> RefusedFile | None:
    """Read a description. None: it does not exist, or is damaged.

    Raises:
        ArchiveUnavailableError: it could not be read.
    """
    body = await archive.read(path)
    if body is None:
        return None
    try:
        return decode_refused(body, path)
    except ValueError as error:
        log.warning("refused_file_damaged", path=path, detail=str(error))
        return None


async def paths_of_refused(archive: Archive, source: str) -> AsyncIterator[str]:
    """List the descriptions of a source's refused files.

    Raises:
        ArchiveUnavailableError: they could not be listed.
    """
    async for entry in archive.entries(directory_of(source)):
        if entry.path.endswith(_DESCRIPTION):
            yield entry.path


async def refused_files(archive: Archive, source: str) -> AsyncIterator[RefusedFile]:
    """List the refused files of a source. A description that cannot be read is logged, and hides no other.

    Raises:
        ArchiveUnavailableError: they could not be listed.
    """
    async for path in paths_of_refused(archive, source):
        try:
            refused = await read_refused(archive, path)
        except ArchiveUnavailableError as error:
            log.warning("refused_file_damaged", path=path, detail=str(error))
            continue
        if refused is not None:
            yield refused


async def keep_refused(
    archive: Archive, refused: RefusedFile, content: BinaryIO, max_bytes: int, max_files: int = MAX_FILES
) -> list[str]:
    """Keep a refused file instead of the one that was kept for its leg before.

    If the files of the source exceed a limit, the oldest are deleted, but not this one. Return their legs.

    Raises:
        ArchiveUnavailableError: it could not be stored.
    """
    await archive.put(refused.file, content)
    await archive.put(refused.path, refused_json(refused))
    groups = await _files_by_leg(archive, refused.source)
    for entry in groups.pop(_stem(refused.path), []):
        if entry.path not in {refused.file, refused.path}:  # of an earlier attempt
            await archive.delete(entry.path)
    oldest_last = sorted(groups.values(), key=lambda files: max(entry.modified for entry in files), reverse=True)
    dropped: list[str] = []
    total = refused.stored_bytes or refused.bytes
    for count, files in enumerate(oldest_last, 1):
        total += sum(entry.size for entry in files)
        if total > max_bytes or count >= max_files:
            await _delete(archive, files)
            dropped.append(_stem(files[0].path).rpartition("/")[2])
    return dropped


async def delete_refused(archive: Archive, refused: RefusedFile) -> None:
    """Delete the refused file of a leg, with what a killed worker may have left of an earlier one.

    Raises:
        ArchiveUnavailableError: it could not be deleted.
    """
    await delete_refused_of(archive, refused.source, [refused.path])


async def delete_refused_of(archive: Archive, source: str, paths: Iterable[str]) -> None:
    """Delete refused files by the paths of their descriptions, which a killed worker may not have written yet.

    Raises:
        ArchiveUnavailableError: they could not be listed or deleted.
    """
    groups = await _files_by_leg(archive, source)
    for path in paths:
        await _delete(archive, groups.get(_stem(path), []))


async def delete_undescribed(archive: Archive, source: str, before: datetime) -> None:
    """Delete files that a killed worker left without a description, if they are older than a time.

    Raises:
        ArchiveUnavailableError: they could not be listed or deleted.
    """
    for files in (await _files_by_leg(archive, source)).values():
        if all(entry.modified < before and not entry.path.endswith(_DESCRIPTION) for entry in files):
            await _delete(archive, files)


async def _files_by_leg(archive: Archive, source: str) -> dict[str, list[Entry]]:
    groups: dict[str, list[Entry]] = {}
    async for entry in archive.entries(directory_of(source)):
        groups.setdefault(_stem(entry.path), []).append(entry)
    return groups


async def _delete(archive: Archive, files: Iterable[Entry]) -> None:
    """Delete the files of a leg, the description last, so that it names whatever is left."""
    for entry in sorted(files, key=lambda entry: entry.path.endswith(_DESCRIPTION)):
        await archive.delete(entry.path)


def _stem(path: str) -> str:
    """Return what the files of a leg have in common: `acme/refused/<call>.<name>.<CallID>`."""
    stem = path.removesuffix(ENCRYPTED_SUFFIX).rpartition(".")[0]
    return stem if path.endswith(_DESCRIPTION) else stem.rpartition(".")[0]
