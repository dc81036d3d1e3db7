"""`callfold hold`: a call, found by what a person has at hand, is kept from retention, or let go again."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import orjson

from console.commands.audit_trail import auditing
from console.commands.common import cli_user, wanted_sources
from console.lookup.sidecar_search import find_sidecars, is_guid, is_in_redis
from shared.archive.sidecar import Sidecar
from shared.archive.storage import Archive
from shared.config.settings import Settings
from shared.domain.ids import CallKey, CallRef, SourceName, is_call_ref
from shared.domain.recording import RecordingState
from shared.errors import BrokerUnavailableError, CallfoldError, ConfigError
from shared.retention.holds import holds, is_held, place, release
from shared.runtime.audit import Action, Audit

_LOOKS = 60
_LOOK_S = 0.5


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be held or released.

    Attributes:
        what: RequestID, `call-<CallID>`, or the GUID of a recording.
        is_ahead: hold it though nothing of it is known yet.
    """

    source: str
    what: str
    reason: str
    is_release: bool
    is_ahead: bool


async def hold(settings: Settings, wanted: Wanted, *, as_json: bool) -> int:
    """Hold or release a call; exit code 1 where there was nothing to release, or a recording is deleted already."""
    wanted_sources(settings, wanted.source)
    archive = Archive(settings.archive_url)
    key, sidecars = await _call(settings, archive, wanted)
    async with auditing(settings) as audit:
        if wanted.is_release:
            return await _release(archive, key, audit, as_json=as_json)
        await place(archive, key, wanted.reason)
        await audit.record(Action.HOLD, cli_user(), source=key.source, call=key.call, reason=wanted.reason)
    gone = [sidecar for sidecar in sidecars if await _is_gone(archive, sidecar)]
    for sidecar in gone:
        sys.stderr.write(f"deleted before it was held: the {sidecar.leg} leg's recording, {sidecar.path}\n")
    _print({"call": str(key), "held": 1, "deleted": len(gone)}, f"{key} is held", as_json=as_json)
    return 1 if gone else 0


async def _release(archive: Archive, key: CallKey, audit: Audit, *, as_json: bool) -> int:
    """Release a call, which is told first: from then on it may be deleted."""
    was_held = await is_held(archive, key)
    try:
        await audit.record_or_raise(Action.RELEASE, cli_user(), source=key.source, call=key.call, was_held=was_held)
    except BrokerUnavailableError as error:
        raise CallfoldError(f"Nothing is released, since it cannot be audited: {error}.") from error
    await release(archive, key)
    text = f"{key} {'is no longer held' if was_held else 'was not held'}"
    _print({"call": str(key), "released": int(was_held)}, text, as_json=as_json)
    return 0 if was_held else 1


async def _call(settings: Settings, archive: Archive, wanted: Wanted) -> tuple[CallKey, Sequence[Sidecar]]:
    """Find the call that is meant, and its sidecars.

    Raises:
        ConfigError: that cannot be the name of a call.
        CallfoldError: there is no such call, as far as the archive and Redis know.
    """
    source, what = SourceName(wanted.source), wanted.what
    if not is_guid(what) and not is_call_ref(what):
        raise ConfigError(f"{what!r} is no call: expected a RequestID like 513, call-<CallID>, or the GUID of a recording.")
    sidecars = await find_sidecars(settings, archive, source, what)
    if is_guid(what):
        if not sidecars:
            raise CallfoldError(f"The archive has no recording {what} of {source}: name its call by the RequestID.")
        what = sidecars[0].call
        sidecars = await find_sidecars(settings, archive, source, what)
    key = CallKey(source, CallRef(what))
    if not (sidecars or wanted.is_ahead or wanted.is_release or await is_in_redis(settings, key)):
        raise CallfoldError(f"Neither the archive nor Redis knows {key}: nothing is held. With --ahead it is held all the same.")
    return key, sidecars


async def _is_gone(archive: Archive, sidecar: Sidecar) -> bool:
    """Tell whether retention has deleted a recording. It may be about to: it finds the hold, or ends."""
    for _ in range(_LOOKS):
        now = await archive.sidecar(sidecar.path)
        if now is None or now.state is RecordingState.EXPIRED:
            return True
        if now.state is not RecordingState.EXPIRING:
            return False
        await asyncio.sleep(_LOOK_S)
    return True  # a run that was cut off in its middle, of which nothing more is deleted


async def list_holds(settings: Settings, source: str, *, as_json: bool) -> int:
    """List what is held."""
    wanted_sources(settings, source)
    async for held in holds(Archive(settings.archive_url), source):
        told = {"call": str(held.key), "at": held.at, "reason": held.reason}
        _print(told, f"{held.key}  {held.at}  {held.reason}", as_json=as_json)
    return 0


def _print(told: Mapping[str, object], text: str, *, as_json: bool) -> None:
    sys.stdout.write((orjson.dumps(dict(told)).decode() if as_json else text) + "\n")
