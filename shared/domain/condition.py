"""Conditions that operators are informed of: when an event raises one, and when an event clears it.

A condition is a kind of trouble of one subject, such as a full spool of a machine. Every observer compares what it observes with
the record of the condition, and stores the next record only if the record is still the same. The rules:

- A bad observation raises a condition that is not raised. The event is part of the record until it is confirmed.
- A condition is cleared once every observation was good for the hold time. It was over when the first of these was made.
- Nothing is raised or cleared while an event is not confirmed. So raised and cleared events alternate, and none is skipped.
- Who leases an unconfirmed event publishes it. After the lease another observer publishes the same bytes under the same id.

Times are RFC 3339 UTC in one width, so text order is time order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Literal

import orjson

from shared.domain.cloud_event import JSON, SPEC_VERSION, dataschema_of
from shared.domain.event_types import OpsData
from shared.domain.event_types import OpsEvent as OpsEnvelope
from shared.domain.times import at_microseconds, microseconds, rfc3339

SOURCE: Final = "/callfold/ops"
# A cleared record is kept, so that an observer that was stopped for a while raises nothing under an id that was used.
_KEPT: Final = timedelta(days=1)

Figure = int | float | str | None


class Kind(StrEnum):
    """The kinds of conditions."""

    BROKER_AWAY = "broker_away"
    SPOOLING = "spooling"
    SPOOL_FULL = "spool_full"
    SOURCE_SILENT = "source_silent"
    DEAD_LETTERS_GROWING = "dead_letters_growing"
    STATE_REBUILT = "state_rebuilt"
    ARCHIVE_AWAY = "archive_away"
    CERTIFICATE_EXPIRING = "certificate_expiring"


@dataclass(frozen=True, slots=True)
class Observation:
    """One condition as an observer sees it.

    Attributes:
        at: since when it is good or bad, as far as the observer knows.
        detail: a sentence for operators.
    """

    kind: Kind
    subject: str
    is_bad: bool
    at: str
    detail: str
    figures: Mapping[str, Figure] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name of the record."""
        return f"{self.kind}/{self.subject}"


@dataclass(frozen=True, slots=True)
class OpsEvent:
    """An event that is not confirmed yet."""

    id: str
    routing_key: str
    body: str


@dataclass(frozen=True, slots=True)
class Record:
    """The state of a condition.

    Attributes:
        since: when the trouble began, the last time.
        bad_at: when it was bad last, as far as that is stored.
        good_at: since when every observation is good, or ''.
        cleared_at: when it was over; '' while it is raised.
        detail, figures: of the last good observation.
        event: the event that is to be published.
        holder, leased_until: who publishes it, and for how long no other observer does.
    """

    kind: Kind
    subject: str
    since: str
    bad_at: str
    good_at: str = ""
    cleared_at: str = ""
    detail: str = ""
    figures: Mapping[str, Figure] = field(default_factory=dict)
    event: OpsEvent | None = None
    holder: str = ""
    leased_until: str = ""

    @property
    def is_raised(self) -> bool:
        return not self.cleared_at

    def encode(self) -> bytes:
        return orjson.dumps(asdict(self))


def read_record(text: bytes | None) -> Record | None:
    """Decode a record; None if there is none, if it is damaged, or if it is of a kind that this release does not know."""
    try:
        row = orjson.loads(text or b"null")
        event = row["event"] and OpsEvent(**row["event"])
        record = Record(**{**row, "kind": Kind(row["kind"]), "event": event})
        return record if _is_sound(record) else None
    except (ValueError, TypeError, KeyError):
        return None


def _is_sound(record: Record) -> bool:
    """Return whether the values of a decoded record can be used. A file or another program may have changed them."""
    times = [record.since, record.bad_at, *filter(None, (record.good_at, record.cleared_at, record.leased_until))]
    texts = [record.subject, record.good_at, record.cleared_at, record.detail, record.holder, record.leased_until]
    texts += [record.event.id, record.event.routing_key, record.event.body] if record.event else []
    has_types = all(isinstance(text, str) for text in texts) and isinstance(record.figures, dict)
    return has_types and all(_later(at, 0) == at for at in times)


def observed(record: Record | None, seen: Observation, *, now: str, hold_s: float) -> Record | None:
    """Return the record after an observation. It is the same object if nothing changed."""
    if seen.is_bad:
        return _bad(record, seen)
    if record is None or not record.is_raised:
        return record
    if not record.good_at or record.good_at > now:  # a clock that was ahead wrote a future time
        record = replace(record, good_at=min(max(seen.at, record.bad_at), now))
    if seen.figures and (record.figures != seen.figures or record.detail != seen.detail):
        record = replace(record, detail=seen.detail, figures=seen.figures)
    if record.event is not None or now < _later(record.good_at, hold_s):
        return record
    detail, figures = (record.detail, record.figures) if record.figures else (seen.detail, seen.figures)
    cleared = replace(record, cleared_at=record.good_at, holder="", leased_until="")
    return replace(cleared, event=_event(cleared, detail, figures))


def _bad(record: Record | None, seen: Observation) -> Record:
    if record is None or (not record.is_raised and record.event is None):
        # Each id names one time, so a trouble that began before the last one was over began with its end.
        since = seen.at if record is None else max(seen.at, at_microseconds(microseconds(record.cleared_at) + 1))
        raised = Record(seen.kind, seen.subject, since, bad_at=since)
        return replace(raised, event=_event(raised, seen.detail, seen.figures))
    if record.is_raised and record.good_at:
        return replace(record, bad_at=max(seen.at, record.good_at), good_at="", detail="", figures={})
    return record


def _event(record: Record, detail: str, figures: Mapping[str, Figure]) -> OpsEvent:
    state: Literal["raised", "cleared"] = "raised" if record.is_raised else "cleared"
    event_id = f"ops/{record.kind}/{record.subject}/{record.since}/{state}"
    data: OpsData = {
        "what": record.kind,
        "state": state,
        "subject": record.subject,
        "since": record.since,
        "cleared_at": record.cleared_at or None,
        "detail": detail,
        "figures": dict(figures),
    }
    at = record.cleared_at or record.since
    kind = f"callfold.ops.{record.kind}.v1"
    event: OpsEnvelope = {
        "specversion": SPEC_VERSION,
        "id": event_id,
        "source": SOURCE,
        "subject": record.subject,
        "type": kind,
        "time": at,
        "datacontenttype": JSON,
        "dataschema": dataschema_of(kind),
        "data": data,
    }
    return OpsEvent(event_id, f"ops.{record.kind}.{state}", orjson.dumps(event).decode())


def leased(record: Record, holder: str, *, now: str, lease_s: float) -> Record | None:
    """Return the record with the lease of a holder; None if there is nothing to publish, or another holder publishes it."""
    # A clock that was ahead may have written a lease that ends much later.
    is_leased = now < record.leased_until <= _later(now, 2 * lease_s)
    if record.event is None or (record.holder != holder and is_leased):
        return None
    return replace(record, holder=holder, leased_until=_later(now, lease_s))


def confirmed(record: Record, event_id: str) -> Record:
    """Return the record once RabbitMQ has confirmed an event."""
    if record.event is None or record.event.id != event_id:
        return record
    return replace(record, event=None, holder="", leased_until="")


def is_over(record: Record, now: str) -> bool:
    """Return whether a record can be deleted."""
    return not record.is_raised and record.event is None and now > _later(record.cleared_at, _KEPT.total_seconds())


def _later(at: str, seconds: float) -> str:
    return rfc3339(datetime.fromisoformat(at) + timedelta(seconds=seconds))
