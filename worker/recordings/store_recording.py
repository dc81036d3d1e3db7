"""Storing one recording: sealed where its source wants it, told of in its sidecar, beside others of its leg that differ.

The sidecar says what is about to be stored before it is, so that a try after a crash knows what it finds. No file is ever
written over, and none forgotten: one that no sidecar tells of, since its sidecar was lost, is told of from then on.
"""

from __future__ import annotations

import asyncio
import os
import re
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from shared.archive.archive import Archive
from shared.archive.deadlines import ArchiveUnavailableError
from shared.archive.encryption import SCHEME, encrypt
from shared.archive.local_disk import Last, TakenError
from shared.archive.sidecar import ENCRYPTED_SUFFIX, HASH_DIGITS, Sidecar, Told, fingerprint_of
from shared.clock import utc_now
from shared.domain.recording import RECORDING_FIELDS, RecordingState
from shared.retention.recording_lock import confirm_unchanged
from worker.download.inspection import Recording, sha256_of
from worker.recordings.attempt import Attempt

OTHER_CONTENT = "other_content"
FOUND = "found"
_NAMES = 4
# A file that is named by its fingerprint.
_FURTHER = re.compile(rf"((?:[0-9a-f]{{{HASH_DIGITS}}}){{1,{_NAMES}}})\.wav(?:\.age)?")

Words = dict[str, Any]  # JSON to be


def event_suffix(told: Told) -> str:
    """Tell the event of a recording from others of its leg: one id never has two bodies."""
    other = f"/{str(told['sha256'])[:HASH_DIGITS]}" if told["reason"] == OTHER_CONTENT else ""
    return str(told.get("suffix", other))


@dataclass(slots=True)
class RecordingWriter:
    """A recording on its way into the archive, under the lock that `confirm` makes sure of.

    Attributes:
        seen: what the sidecar in the archive said when it was last read or written.
    """

    archive: Archive
    directory: Path
    attempt: Attempt
    recording: Recording
    recipient: str | None
    confirm: Last
    seen: Sidecar | None

    async def into(self, sidecar: Sidecar) -> Told:
        """Store it where it is not stored yet, and return what is to be told of it.

        Raises:
            ArchiveUnavailableError: it could not be stored.
            BusyError: another wrote the sidecar meanwhile.
        """
        told = (sidecar.recording, *sidecar.others)
        same = next((words for words in told if words.get("sha256") == self.recording.sha256), None)
        if same in sidecar.contents and await self.archive.has(sidecar, same):
            await self._put_sidecar(sidecar)
            return same
        suspected = await self._suspected(sidecar)
        if same is not None:
            suspected.append(sidecar.file(same))
        refused: set[str] = set()
        for _ in range(_NAMES):
            found = await self._found(sidecar, suspected, same)
            equal = next((words for words in found if words["sha256"] == self.recording.sha256), None)
            if equal is not None:
                return await self._adopt(sidecar, found, equal)
            path = self._free(sidecar, same, {sidecar.file(words) for words in found} | refused)
            try:
                return await self._file(sidecar, same, found, path)
            except TakenError:
                suspected.append(path)
                refused.add(path)  # what lies there may be nothing of this leg that can be told of, like a damaged file
        raise ArchiveUnavailableError(f"{sidecar.path}: there are files of every name that could be used")

    async def _suspected(self, sidecar: Sidecar) -> list[str]:
        """List where there may be files of this leg that its sidecar does not tell of, since it was lost and written anew."""
        if sidecar.state is RecordingState.STORED:
            return []
        paths = _first_names(sidecar)
        is_lost = any([await self.archive.size(path) is not None for path in paths])
        if is_lost or self.attempt.is_again:  # a day can be large, and is not listed for every recording
            paths += await self._beside(sidecar)
        return paths

    async def _beside(self, sidecar: Sidecar) -> list[str]:
        """List the files that are named as further recordings of this leg, and are not those of a leg of that name."""
        day, stem = sidecar.path.rpartition("/")[0], sidecar.beside("")
        listed = {entry.path async for entry in self.archive.entries(day) if entry.path.startswith(stem)}
        named = {path: found[1] for path in listed if (found := _FURTHER.fullmatch(path.removeprefix(stem)))}
        return [path for path, digits in named.items() if f"{stem}{digits}.json" not in listed]

    async def _found(self, sidecar: Sidecar, suspected: Sequence[str], same: Told | None) -> list[Words]:
        """Describe the files that this sidecar does not tell of, or not as they are."""
        explained = {sidecar.file(told) for told in sidecar.contents if told is not same}
        found = []
        for path in sorted(set(suspected) - explained):
            size = await self.archive.size(path)
            if size is not None:
                words = await self._stray(path, size)
                further = _FURTHER.fullmatch(path.removeprefix(sidecar.beside("")))
                if further is None or words["sha256"] is None or words["sha256"].startswith(further[1]):
                    found.append(words)
        return found

    async def _stray(self, path: str, size: int) -> Words:
        digest = await self.archive.sha256(path)
        words: Words = dict.fromkeys(RECORDING_FIELDS)
        words |= {"at": utc_now(), "uri": self.archive.uri(path), "reason": FOUND, "state": RecordingState.STORED}
        if path.endswith(ENCRYPTED_SUFFIX):
            return words | {"encryption": {"scheme": SCHEME, "recipient": None}, "stored_bytes": size, "stored_sha256": digest}
        return words | {"bytes": size, "sha256": digest}

    async def _adopt(self, sidecar: Sidecar, found: Sequence[Words], equal: Words) -> Told:
        """Tell of a file that is there already, and is this recording."""
        words = self._words(sidecar.file(equal)) | {"state": RecordingState.STORED}
        rest = tuple(other for other in found if other is not equal)
        if sidecar.state is RecordingState.STORED or sidecar.file(equal) not in _first_names(sidecar):
            words["reason"] = OTHER_CONTENT
        if sidecar.state is RecordingState.STORED:
            sidecar = replace(sidecar, others=(*sidecar.others, *rest, words))
        else:
            sidecar = replace(sidecar, recording=words, others=(*sidecar.others, *rest), asked=self.attempt.asked)
        await self._put_sidecar(sidecar)
        return words

    def _free(self, sidecar: Sidecar, same: Told | None, occupied: set[str]) -> str:
        """Choose a name: that of the recording, if it has none of its leg yet, else one by its fingerprint."""
        end = ENCRYPTED_SUFFIX if self.recipient else ""
        if same is not None and bool(same.get("encryption")) == bool(self.recipient):
            names = [sidecar.file(same)]
        else:
            names = [] if sidecar.contents else [sidecar.beside(f"wav{end}")]
        names += [sidecar.beside(f"{self.recording.sha256[: HASH_DIGITS * more]}.wav{end}") for more in range(1, _NAMES + 1)]
        taken = occupied | {sidecar.file(told) for told in sidecar.contents if told is not same}
        return next(name for name in names if name not in taken)

    async def _file(self, sidecar: Sidecar, same: Told | None, found: Sequence[Words], path: str) -> Told:
        with ExitStack() as closing:
            words, content = await self._prepare(closing, path)
            if same is not None:
                _told_before(words, same)
            elif sidecar.state is RecordingState.STORED or found:
                words["reason"] = OTHER_CONTENT
            sidecar = replace(sidecar, others=(*sidecar.others, *found))
            begun = self._with(sidecar, same, words | {"state": RecordingState.STORING})
            await self._put_sidecar(begun)
            try:
                await self.archive.put(path, content, last=self.confirm, is_new=True)
            except TakenError:
                await self._confirm(sidecar.path)  # else taken by who stored it as we slept, and told of it
                # An object store can have given the name, and its answer been lost: asked again, it says that it is taken.
                if await self.archive.sha256(path) != fingerprint_of(words):
                    raise
        words["state"] = RecordingState.STORED
        await self._put_sidecar(self._with(sidecar, same, words))
        return words

    def _with(self, sidecar: Sidecar, same: Told | None, words: Words) -> Sidecar:
        """Put words into a sidecar: in the place of those of the same content, or as the recording, or beside it."""
        if same is not None and same is not sidecar.recording:
            return replace(sidecar, others=tuple(words if other is same else other for other in sidecar.others))
        if same is None and sidecar.state is RecordingState.STORED:
            return replace(sidecar, others=(*sidecar.others, words))
        return replace(sidecar, recording=words, asked=self.attempt.asked)

    async def _confirm(self, path: str) -> None:
        await confirm_unchanged(self.confirm, self.archive, path, self.seen)

    async def _put_sidecar(self, sidecar: Sidecar) -> None:
        await self._confirm(sidecar.path)  # looking for files and sealing can have taken long
        await self.archive.put(sidecar.path, sidecar.encode())
        self.seen = sidecar

    def _words(self, path: str) -> Words:
        return {
            "at": utc_now(),
            "uri": self.archive.uri(path),
            "bytes": self.recording.bytes,
            "sha256": self.recording.sha256,
            "seconds": self.recording.audio.seconds,
            "channels": self.recording.audio.channels,
            "sample_rate": self.recording.audio.sample_rate,
            "encryption": None,
            "attempts": self.attempt.number,
            "reason": None,
        }

    async def _prepare(self, closing: ExitStack, path: str) -> tuple[Words, BinaryIO]:
        """Write the words about the recording, and seal it where it has a recipient."""
        words = self._words(path)
        if self.recipient is None:
            return words, self.recording.file
        self.directory.mkdir(parents=True, exist_ok=True)
        sealed: BinaryIO = closing.enter_context(tempfile.TemporaryFile(dir=self.directory))  # noqa: SIM115 - entered
        await asyncio.to_thread(encrypt, self.recording.file, sealed, self.recipient)
        sealed.seek(0)
        words["encryption"] = {"scheme": SCHEME, "recipient": self.recipient}
        words["stored_sha256"] = await asyncio.to_thread(sha256_of, sealed)
        words["stored_bytes"] = sealed.seek(0, os.SEEK_END)
        sealed.seek(0)
        return words, sealed


def _first_names(sidecar: Sidecar) -> list[str]:
    return [sidecar.beside(f"wav{end}") for end in ("", ENCRYPTED_SUFFIX)]


def _told_before(words: Words, same: Told) -> None:
    """Have words that restore a recording repeat its event; where they cannot, they have an event of their own."""
    words |= {name: same[name] for name in ("at", "attempts", "reason")}
    if str(same["uri"]).rpartition("/")[2] == str(words["uri"]).rpartition("/")[2]:
        words["uri"] = same["uri"]
    if any(words[name] != same[name] for name in RECORDING_FIELDS):
        words["at"] = utc_now()
        told = orjson.dumps([words["at"], *(words[name] for name in RECORDING_FIELDS)])
        words["suffix"] = f"/{sha256(told).hexdigest()[:HASH_DIGITS]}"
    elif "suffix" in same:
        words["suffix"] = same["suffix"]
