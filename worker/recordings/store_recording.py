"""Stores one recording: encrypts it if its source has a recipient, writes its file, and describes it in the sidecar.

The sidecar says what is about to be stored before the file is written, so an attempt after a crash knows what it finds. No file
is overwritten. A file that is in no sidecar, because its sidecar was lost, is listed as soon as a worker finds it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import orjson

from shared.archive.deadlines import ArchiveUnavailableError
from shared.archive.encryption import SCHEME
from shared.archive.local_disk import Confirm, TakenError
from shared.archive.sidecar import ENCRYPTED_SUFFIX, Sidecar
from shared.archive.storage import Archive
from shared.clock import utc_now
from shared.domain.event_types import Encryption
from shared.domain.recording import RecordingState
from shared.domain.recording_info import HASH_DIGITS, OTHER_CONTENT, SCHEMA, UNLISTED, RecordingInfo
from shared.retention.recording_lock import confirm_unchanged
from worker.download.inspection import Recording
from worker.recordings.attempt import Attempt
from worker.recordings.stored_form import StoredForm, stored_form

_NAMES = 4
# The name of a further recording of a leg ends in a prefix of its SHA-256.
_FURTHER = re.compile(rf"((?:[0-9a-f]{{{HASH_DIGITS}}}){{1,{_NAMES}}})\.wav(?:\.age)?")


@dataclass(slots=True)
class RecordingWriter:
    """Writes one recording to the archive, under the lock that `confirm` checks.

    Attributes:
        directory: place of the encrypted copy until it is stored.
        seen: the sidecar in the archive as it was last read or written.
        form: the content of the file if it is ready to be stored, encrypted or not.
    """

    archive: Archive
    directory: Path
    attempt: Attempt
    recording: Recording
    recipient: str | None
    confirm: Confirm
    seen: Sidecar | None
    form: StoredForm | None = None

    async def write(self, sidecar: Sidecar) -> RecordingInfo:
        """Store the recording unless the archive has it; return its description, which its event repeats.

        Raises:
            ArchiveUnavailableError: the recording could not be stored.
            BusyError: another worker wrote the sidecar since it was read.
        """
        same = next((info for info in (sidecar.recording, *sidecar.others) if info.sha256 == self.recording.sha256), None)
        if same is not None and same in sidecar.contents and await self.archive.has_file(sidecar, same):
            await self._put_sidecar(sidecar)
            return same
        suspects = await self._suspects(sidecar)
        if same is not None:
            suspects.append(sidecar.file(same))
        refused: set[str] = set()
        for _ in range(_NAMES):
            unlisted = await self._describe_unlisted(sidecar, suspects, same)
            equal = next((info for info in unlisted if info.sha256 == self.recording.sha256), None)
            if equal is not None:
                return await self._adopt(sidecar, unlisted, equal)
            path = self._free_path(sidecar, same, {sidecar.file(info) for info in unlisted} | refused)
            try:
                return await self._store(sidecar, same, unlisted, path)
            except TakenError:
                suspects.append(path)
                refused.add(path)  # what is there may be nothing that can be listed for this leg, like a damaged file
        raise ArchiveUnavailableError(f"{sidecar.path}: every candidate file name is taken")

    async def _suspects(self, sidecar: Sidecar) -> list[str]:
        """List paths of files of this leg that may be missing in its sidecar, because it was lost and written again."""
        if sidecar.state is RecordingState.STORED:
            return []
        paths = _first_paths(sidecar)
        is_lost = any([await self.archive.size(path) is not None for path in paths])
        if is_lost or self.attempt.is_again:  # not for every recording: the directory of a day can be large
            paths += await self._further_files(sidecar)
        return paths

    async def _further_files(self, sidecar: Sidecar) -> list[str]:
        """List files whose names are those of further recordings of this leg, unless another leg has that name."""
        day, stem = sidecar.path.rpartition("/")[0], sidecar.sibling("")
        listed = {entry.path async for entry in self.archive.entries(day) if entry.path.startswith(stem)}
        named = {path: match[1] for path in listed if (match := _FURTHER.fullmatch(path.removeprefix(stem)))}
        return [path for path, digits in named.items() if f"{stem}{digits}.json" not in listed]

    async def _describe_unlisted(
        self, sidecar: Sidecar, suspects: Sequence[str], same: RecordingInfo | None
    ) -> list[RecordingInfo]:
        """Describe the files that this sidecar does not list, or not as they are."""
        listed = {sidecar.file(info) for info in sidecar.contents if info is not same}
        unlisted = []
        for path in sorted(set(suspects) - listed):
            size = await self.archive.size(path)
            if size is not None:
                info = await self._describe(path, size)
                further = _FURTHER.fullmatch(path.removeprefix(sidecar.sibling("")))
                if further is None or info.sha256 is None or info.sha256.startswith(further[1]):
                    unlisted.append(info)
        return unlisted

    async def _describe(self, path: str, size: int) -> RecordingInfo:
        sha256, sha512 = await self.archive.checksums(path)
        at, uri = utc_now(), self.archive.uri(path)
        info = RecordingInfo(RecordingState.STORED, at, uri, reason=UNLISTED, schema=SCHEMA, is_complete=True)
        if path.endswith(ENCRYPTED_SUFFIX):
            encryption: Encryption = {"scheme": SCHEME, "recipient": None}
            return replace(info, encryption=encryption, stored_bytes=size, stored_sha256=sha256, stored_sha512=sha512)
        return replace(info, bytes=size, sha256=sha256, sha512=sha512)

    async def _adopt(self, sidecar: Sidecar, unlisted: Sequence[RecordingInfo], equal: RecordingInfo) -> RecordingInfo:
        """List a file in the sidecar that is there already, and is this recording."""
        info = self._info(sidecar.file(equal), RecordingState.STORED)
        rest = tuple(other for other in unlisted if other is not equal)
        if sidecar.state is RecordingState.STORED or sidecar.file(equal) not in _first_paths(sidecar):
            info = replace(info, reason=OTHER_CONTENT)
        if sidecar.state is RecordingState.STORED:
            sidecar = replace(sidecar, others=(*sidecar.others, *rest, info))
        else:
            sidecar = replace(sidecar, recording=info, others=(*sidecar.others, *rest), asked=self.attempt.asked)
        await self._put_sidecar(sidecar)
        return info

    def _free_path(self, sidecar: Sidecar, same: RecordingInfo | None, occupied: set[str]) -> str:
        """Choose a path: the leg's own name if no recording of the leg has it, else one that ends in the SHA-256."""
        end = ENCRYPTED_SUFFIX if self.recipient else ""
        if same is not None and bool(same.encryption) == bool(self.recipient):
            paths = [sidecar.file(same)]
        else:
            paths = [] if sidecar.contents else [sidecar.sibling(f"wav{end}")]
        paths += [sidecar.sibling(f"{self.recording.sha256[: HASH_DIGITS * more]}.wav{end}") for more in range(1, _NAMES + 1)]
        taken = occupied | {sidecar.file(info) for info in sidecar.contents if info is not same}
        return next(path for path in paths if path not in taken)

    async def _store(
        self, sidecar: Sidecar, same: RecordingInfo | None, unlisted: Sequence[RecordingInfo], path: str
    ) -> RecordingInfo:
        with ExitStack() as closing:
            info, content = await self._prepare(closing, path)
            if same is not None:
                info = _repeating(info, same)
            elif sidecar.state is RecordingState.STORED or unlisted:
                info = replace(info, reason=OTHER_CONTENT)
            sidecar = replace(sidecar, others=(*sidecar.others, *unlisted))
            begun = self._with(sidecar, same, info)
            await self._put_sidecar(begun)
            try:
                await self.archive.put(path, content, confirm=self.confirm, is_new=True)
            except TakenError:
                # Without this, another worker may have stored and listed the file while this process stood still.
                await self._confirm(sidecar.path)
                # An object store may have created the file although its answer was lost. The retry then finds the name taken.
                if (await self.archive.checksums(path)).sha256 != info.file_sha256:
                    raise
        info = replace(info, state=RecordingState.STORED)
        await self._put_sidecar(self._with(sidecar, same, info))
        return info

    def _with(self, sidecar: Sidecar, same: RecordingInfo | None, info: RecordingInfo) -> Sidecar:
        """Put `info` into a sidecar: it replaces the entry of the same content, else it is `recording`, or one of `others`."""
        if same is not None and same is not sidecar.recording:
            return replace(sidecar, others=tuple(info if other is same else other for other in sidecar.others))
        if same is None and sidecar.state is RecordingState.STORED:
            return replace(sidecar, others=(*sidecar.others, info))
        return replace(sidecar, recording=info, asked=self.attempt.asked)

    async def _confirm(self, path: str) -> None:
        await confirm_unchanged(self.confirm, self.archive, path, self.seen)

    async def _put_sidecar(self, sidecar: Sidecar) -> None:
        await self._confirm(sidecar.path)  # the search for files and the encryption can have taken long
        await self.archive.put(sidecar.path, sidecar.encode())
        self.seen = sidecar

    def _info(self, path: str, state: RecordingState) -> RecordingInfo:
        return RecordingInfo(
            state=state,
            at=utc_now(),
            uri=self.archive.uri(path),
            bytes=self.recording.bytes,
            sha256=self.recording.sha256,
            sha512=self.recording.sha512,
            seconds=self.recording.audio.seconds,
            channels=self.recording.audio.channels,
            sample_rate=self.recording.audio.sample_rate,
            attempts=self.attempt.number,
            flags=tuple(sorted(self.recording.audio.flags)),
            schema=SCHEMA,
            is_complete=True,
        )

    async def _prepare(self, closing: ExitStack, path: str) -> tuple[RecordingInfo, BinaryIO]:
        """Return the description of the recording and the content of its file, encrypted if it has a recipient."""
        info = self._info(path, RecordingState.STORING)
        form = self.form or await stored_form(closing, self.recording.file, self.directory, self.recipient)
        info = replace(
            info,
            encryption=form.encryption,
            stored_bytes=form.stored_bytes,
            stored_sha256=form.stored_sha256,
            stored_sha512=form.stored_sha512,
        )
        return info, form.content


def _first_paths(sidecar: Sidecar) -> list[str]:
    return [sidecar.sibling(f"wav{end}") for end in ("", ENCRYPTED_SUFFIX)]


def _repeating(info: RecordingInfo, same: RecordingInfo) -> RecordingInfo:
    """Return `info` with the event of `same`, so that a restored recording repeats it; otherwise with a new event."""
    uri = same.uri if str(same.uri).rpartition("/")[2] == str(info.uri).rpartition("/")[2] else info.uri
    info = replace(info, at=same.at, attempts=same.attempts, reason=same.reason, uri=uri)
    if same.reason != UNLISTED:  # a previous release may have measured it, or another attempt flagged it
        measured = {name: getattr(same, name) for name in ("seconds", "channels", "sample_rate", "flags", "sha512")}
        info = replace(info, **measured)
    if info.event_data() == same.event_data():
        return replace(info, suffix=same.suffix, schema=same.schema)
    info = replace(info, at=utc_now())
    digest = hashlib.sha256(orjson.dumps([info.at, *info.event_data().values()])).hexdigest()
    return replace(info, suffix=f"/{digest[:HASH_DIGITS]}")
