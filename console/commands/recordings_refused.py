"""`callfold recordings refused` and `accept`: list the files that workers refused to store, and store one of them."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import orjson

from console.commands.common import cli_user, select_sources
from console.counts import counted
from console.safe_text import plain_line
from shared.amqp.publisher import Publisher
from shared.archive.local_disk import Confirm
from shared.archive.refused import RefusedFile, refused_files
from shared.archive.storage import Archive
from shared.config.settings import Settings
from shared.domain.recording_flags import Flag
from shared.errors import BusyError, CallfoldError, ConfigError, leaf_errors
from shared.retention.recording_lock import locked
from shared.runtime.audit import Action, Audit
from shared.runtime.broker import create_publisher
from shared.runtime.process import background
from shared.runtime.store import open_store
from shared.state.store import Store
from shared.streams.connections import wait_until_connected
from worker.download.failures import Result
from worker.recordings.attempt import Attempt
from worker.recordings.outcomes import OutcomePublisher
from worker.recordings.refused_recordings import RefusedRecordings
from worker.recordings.sidecars import Sidecars


class _Acceptance:
    """Stores refused files under the lock of their recording."""

    def __init__(self, settings: Settings, archive: Archive, publisher: Publisher, store: Store) -> None:
        self._archive = archive
        self._audit = Audit(publisher)
        directory = Path(tempfile.gettempdir())  # the directory of downloads is that of workers
        sidecars = Sidecars(archive, directory)
        self._outcomes = OutcomePublisher(publisher, store, sidecars)
        self._refused = RefusedRecordings(archive, sidecars, directory, settings.recording_refused_bytes)

    async def accept(self, refused: RefusedFile, confirm: Confirm) -> dict[str, object]:
        """Store a file, publish that, then delete the refused copy. After an interruption, this may be repeated.

        Raises:
            CallfoldError: the sidecar of its leg is missing, or the archive has this recording.
        """
        sidecar = await self._archive.sidecar(refused.sidecar)
        if sidecar is None:
            raise CallfoldError(f"{refused.sidecar} is missing. Request the recording again with `callfold recordings backfill`.")
        same = next((info for info in sidecar.contents if info.sha256 == refused.sha256), None)
        if same is not None and Flag.ACCEPTED not in (same.flags or ()):
            raise CallfoldError(f"The archive already has this content: {same.uri}. Nothing was accepted.")
        job = sidecar.job
        who, detail = cli_user(), {"recording": refused.name, "reason": refused.reason, "sha256": refused.sha256}
        await self._audit.record_or_raise(Action.ACCEPT, who, source=refused.source, call=refused.call, **detail)
        attempt = Attempt(job, job.encode(), refused.attempts, refused.at, round=max(sidecar.asked[1], 1))
        info = await self._refused.store(attempt, refused, Flag.ACCEPTED, confirm)
        await self._outcomes.publish(job, Result.STORED, info, info.event_suffix)
        await self._refused.forget(refused)
        return {"call": f"{refused.source}/{refused.call}", "recording": refused.name, "uri": info.uri, "flags": info.flags or ()}


async def list_refused(settings: Settings, source: str | None, *, as_json: bool) -> int:
    """Print the refused files, the newest first."""
    archive = Archive(settings.archive_url)
    count = 0
    for name in select_sources(settings, source):
        listed = [refused async for refused in refused_files(archive, name)]
        count += len(listed)
        for refused in sorted(listed, key=lambda one: one.at, reverse=True):
            fields = asdict(refused) | {"uri": archive.uri(refused.file)}
            sys.stdout.write((orjson.dumps(fields).decode() if as_json else _line(refused)) + "\n")
    if not as_json:
        sys.stderr.write(f"{counted(count, 'refused file')}\n")
    return 0


def _line(refused: RefusedFile) -> str:
    name = f"{refused.source}/{refused.name}"
    size = counted(refused.bytes, "byte")
    return plain_line(f"{name}  {refused.call}  {refused.leg} leg  {refused.at}  {refused.reason}  {size}  {refused.detail}")


async def accept(settings: Settings, what: str, *, as_json: bool) -> int:
    """Store a refused file as a recording, and publish that.

    Raises:
        CallfoldError: there is no such file, or it cannot be stored now.
        ConfigError: the source is unknown, or `what` is no `<source>/<guid>`.
    """
    source, _, name = what.partition("/")
    if not name:
        raise ConfigError(f"Invalid recording {what!r}. Expected <source>/<guid>, as `callfold recordings refused` prints it.")
    select_sources(settings, source)
    archive = Archive(settings.archive_url)
    listed = [refused async for refused in refused_files(archive, source) if name in _names(refused)]
    refused = _only(listed, source, name)
    publisher = create_publisher(settings, "accept")
    busy = ""
    result: dict[str, object] = {}
    try:
        async with open_store(settings) as store, background(publisher.run()):
            await wait_until_connected(publisher)
            async with locked(store, refused.lock) as lock:
                result = await _Acceptance(settings, archive, publisher, store).accept(refused, lock.confirm)
    except* BusyError as group:
        busy = str(leaf_errors(group)[0])
    if busy:
        raise CallfoldError(f"{what} was not accepted: {busy}. Try again soon.")
    text = f"{source}/{refused.call}: accepted as {result['uri']}"
    sys.stdout.write((orjson.dumps(result).decode() if as_json else plain_line(text)) + "\n")
    return 0


def _names(refused: RefusedFile) -> set[str | None]:
    return {refused.name, refused.guid, f"call-{refused.call_id}", _of_leg(refused), _of_call(refused)}


def _of_leg(refused: RefusedFile) -> str:
    return f"{refused.name}.{refused.call_id}"


def _of_call(refused: RefusedFile) -> str:
    """Return a name that no other refused file has, even if a CallID was used again."""
    return f"{refused.call}.{_of_leg(refused)}"


def _only(listed: Sequence[RefusedFile], source: str, name: str) -> RefusedFile:
    if not listed:
        raise CallfoldError(f"No refused file {name} of {source}. List them with `callfold recordings refused`.")
    if len(listed) > 1:
        name_of = _of_leg if len({_of_leg(refused) for refused in listed}) == len(listed) else _of_call
        names = ", ".join(f"{source}/{name_of(refused)}" for refused in listed)
        raise CallfoldError(f"Several legs have a refused file {name}. Accept one of {names}.")
    return listed[0]
