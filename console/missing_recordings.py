"""Why a recording is not stored, and what can be done about it."""

from __future__ import annotations

from collections.abc import Mapping

from shared.archive.sidecar import Sidecar
from shared.domain.recording import RecordingState

_DELETED = ("retention deleted it", "")
_WHY: Mapping[RecordingState, tuple[str, str]] = {
    RecordingState.WAITING: ("its download is not finished", "Try again later."),
    RecordingState.NOT_RECORDED: ("FocalScope did not record this leg", ""),
    RecordingState.NOT_WANTED: ("`record_legs` of the source excludes this leg", ""),
    RecordingState.STORING: ("a worker is storing it", "Try again soon."),
    RecordingState.ABSENT: ("FocalScope has no recording of this leg", ""),
    RecordingState.FAILED: ("it could not be archived", "Run `callfold recordings redrive` to download it again."),
    RecordingState.EXPIRING: _DELETED,
    RecordingState.EXPIRED: _DELETED,
}


def why_missing(sidecar: Sidecar) -> str:
    """Explain in sentences why a recording is not stored, with its state and the reason if it has one."""
    why, advice = _WHY[sidecar.state]
    reason = f", {sidecar.recording.reason}" if sidecar.recording.reason else ""
    kept = ""
    if sidecar.state is RecordingState.FAILED and sidecar.recording.kept:
        kept = f" The refused file is kept: `callfold recordings accept {sidecar.source}/{sidecar.name}` stores it."
    return f"{why} ({sidecar.state}{reason}). {advice}".rstrip() + kept
