"""Plans the recording jobs of a revision of a call: one for each leg."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from shared.domain.call import Call
from shared.domain.call_event import sides_of
from shared.domain.file_names import file_names
from shared.domain.leg import Leg
from shared.domain.recording import RecordingJob, RecordingState
from shared.domain.recording_link import is_link
from shared.domain.revision_summary import filed_at, guids, ids_of, is_wanted, leg_key, recorded, requested_recordings


def recording_jobs(
    call: Call, record: Mapping[str, object], record_legs: Collection[str], before: str = ""
) -> list[RecordingJob]:
    """Return a job for every leg; `before` is the summary of the previous revision.

    A job fetches the recording if the leg was recorded, the source wants that side, and no previous revision requested it. A
    requested recording is on its way even if its leg now represents a side that the source does not want.
    """
    requested = requested_recordings(call, before, record_legs)
    names = file_names(ids_of(call), guids(call, before))
    jobs: list[RecordingJob] = []
    for (side, leg), name in zip(sides_of(call), names, strict=True):
        is_requested = (leg_key(leg), recorded(leg)) in requested
        state = RecordingState.WAITING if is_requested else _recording_state(side, leg, record_legs)
        jobs.append(
            RecordingJob(
                source=call.key.source,
                call=call.key.call,
                request_id=call.request_id,
                call_id=leg.call_id,
                guid=leg.guid,
                name=name,
                leg=side,
                fetch=state == RecordingState.WAITING and not is_requested,
                state=state,
                recording_url=leg.recording_url if leg.recording_url and is_link(leg.recording_url) else None,
                started_at=filed_at(call, before),
                record=record,
            )
        )
    return jobs


def _recording_state(side: str, leg: Leg, record_legs: Collection[str]) -> RecordingState:
    if not leg.recorded:
        return RecordingState.NOT_RECORDED
    return RecordingState.WAITING if is_wanted(side, record_legs) else RecordingState.NOT_WANTED
