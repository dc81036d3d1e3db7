"""`callfold hold`: exempt a call's recordings from retention, or release the hold."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import orjson

from console.commands.audit_trail import open_audit
from console.commands.common import cli_user, select_sources
from console.lookup.sidecar_search import find_sidecars, is_guid, is_in_redis
from shared.archive.sidecar import Sidecar
from shared.archive.storage import Archive
from shared.config.settings import Settings
from shared.domain.ids import CallKey, CallRef, SourceName, is_call_ref
from shared.domain.recording import RecordingState
from shared.errors import BrokerUnavailableError, CallfoldError, ConfigError
from shared.retention.holds import holds, is_held, place, release
from shared.runtime.audit import Action, Audit

_EXPIRY_CHECKS = 60
_EXPIRY_CHECK_S = 0.5


@dataclass(frozen=True, slots=True)
class HoldRequest:
    """The call to hold or release.

    Attributes:
        what: RequestID, `call-<CallID>`, or the GUID of a recording.
        is_ahead: hold the call even if it is not known yet.
    """

    source: str
    what: str
    reason: str
    is_release: bool
    is_ahead: bool


async def hold(settings: Settings, request: HoldRequest, *, as_json: bool) -> int:
    """Hold or release a call; returns 1 if there was no hold to release, or if a recording is deleted already."""
    select_sources(settings, request.source)
    archive = Archive(settings.archive_url)
    key, sidecars = await _find_call(settings, archive, request)
    async with open_audit(settings) as audit:
        if request.is_release:
            return await _release(archive, key, audit, as_json=as_json)
        await place(archive, key, request.reason)
        await audit.record(Action.HOLD, cli_user(), source=key.source, call=key.call, reason=request.reason)
    deleted = [sidecar for sidecar in sidecars if await _is_deleted(archive, sidecar)]
    for sidecar in deleted:
        sys.stderr.write(f"deleted before the hold: recording of the {sidecar.leg} leg, {sidecar.path}\n")
    _print({"call": str(key), "held": 1, "deleted": len(deleted)}, f"{key} is held", as_json=as_json)
    return 1 if deleted else 0


async def _release(archive: Archive, key: CallKey, audit: Audit, *, as_json: bool) -> int:
    """Release a call. The audit line comes first, because the recordings can be deleted from then on."""
    was_held = await is_held(archive, key)
    try:
        await audit.record_or_raise(Action.RELEASE, cli_user(), source=key.source, call=key.call, was_held=was_held)
    except BrokerUnavailableError as error:
        raise CallfoldError(f"No hold was released, because the audit line could not be published: {error}.") from error
    await release(archive, key)
    text = f"{key} {'is no longer held' if was_held else 'was not held'}"
    _print({"call": str(key), "released": int(was_held)}, text, as_json=as_json)
    return 0 if was_held else 1


async def _find_call(settings: Settings, archive: Archive, request: HoldRequest) -> tuple[CallKey, Sequence[Sidecar]]:
    """Find the call and its sidecars.

    Raises:
        ConfigError: the text is not a valid id of a call or recording.
        CallfoldError: neither the archive nor Redis has the call.
    """
    source, what = SourceName(request.source), request.what
    if not is_guid(what) and not is_call_ref(what):
        raise ConfigError(f"Invalid call {what!r}. Expected a RequestID like 513, call-<CallID>, or the GUID of a recording.")
    sidecars = await find_sidecars(settings, archive, source, what)
    if is_guid(what):
        if not sidecars:
            raise CallfoldError(f"Unknown recording {what} of {source}: not in the archive. Name the call by its RequestID.")
        what = sidecars[0].call
        sidecars = await find_sidecars(settings, archive, source, what)
    key = CallKey(source, CallRef(what))
    if not (sidecars or request.is_ahead or request.is_release or await is_in_redis(settings, key)):
        raise CallfoldError(
            f"Unknown call {key}: not in Redis or in the archive. No hold was placed. Use --ahead to hold it anyway."
        )
    return key, sidecars


async def _is_deleted(archive: Archive, sidecar: Sidecar) -> bool:
    """Return whether retention deleted a recording. A deletion in progress either finds the hold or completes."""
    for _ in range(_EXPIRY_CHECKS):
        now = await archive.sidecar(sidecar.path)
        if now is None or now.state is RecordingState.EXPIRED:
            return True
        if now.state is not RecordingState.EXPIRING:
            return False
        await asyncio.sleep(_EXPIRY_CHECK_S)
    return True  # the deletion was interrupted half-way, and retention will now leave the rest


async def list_holds(settings: Settings, source: str, *, as_json: bool) -> int:
    """Print the holds of a source."""
    select_sources(settings, source)
    async for held in holds(Archive(settings.archive_url), source):
        fields = {"call": str(held.key), "at": held.at, "reason": held.reason}
        _print(fields, f"{held.key}  {held.at}  {held.reason}", as_json=as_json)
    return 0


def _print(fields: Mapping[str, object], text: str, *, as_json: bool) -> None:
    sys.stdout.write((orjson.dumps(dict(fields)).decode() if as_json else text) + "\n")
