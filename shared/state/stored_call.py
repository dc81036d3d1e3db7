"""Values of one call in Redis: the stored call, and the publications and wake-ups written to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from shared.domain.ids import CallKey, SourceName
from shared.domain.lost_callbacks import Losses


class PublicationState(StrEnum):
    """State of a call's last revision."""

    NONE = ""
    CLAIMED = "claimed"
    PUBLISHED = "published"
    TOMBSTONED = "tombstone"


@dataclass(frozen=True, slots=True)
class StoredCall:
    """A call as it is in Redis.

    Attributes:
        revision: the last one that was claimed or published; 0 if there is none.
        summary: of the last revision.
        version: of the facts. A caller that has the latest version has seen every fact.
        wake_at_ms: time of the next re-evaluation (ms since 1970), or None.
        uses: how many uses its RequestID had, if this is the first one.
        merged_at_ms: when Redis last learned a fact that is not the clock (ms since 1970); None if an old release merged it.
    """

    facts: Mapping[str, str]
    revision: int
    state: PublicationState
    summary: str
    version: str
    wake_at_ms: int | None
    merged_at_ms: int | None = None
    uses: int = 1


@dataclass(frozen=True, slots=True)
class Merged:
    """Result of a merge.

    Attributes:
        calls: each call with all its facts, without those of which every event was refused.
        refused: of each call the positions of the events that were not merged, because they are beyond its bounds.
    """

    calls: dict[CallKey, StoredCall] = field(default_factory=dict)
    refused: dict[CallKey, list[int]] = field(default_factory=dict)


class Claim(StrEnum):
    """Result of claiming a publication; the codes of claim.lua."""

    YOURS = "yours"
    HELD = "held"
    PUBLISHED = "published"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Publication:
    """The messages of one revision of a call, opaque to Redis.

    Attributes:
        version: that of the facts from which they were made.
        digest: of these facts, or '' (`revision_proof.py`).
        causes: trace contexts of the callbacks that led to it, the last one received first. Only this worker knows them.
        losses: of the call if this is its first revision, else None. They are counted once it is marked as published.
    """

    key: CallKey
    revision: int
    outbox: bytes
    summary: str
    version: str
    digest: str = ""
    causes: tuple[str, ...] = ()
    losses: Losses | None = None


@dataclass(frozen=True, slots=True)
class WakeUp:
    """Time to re-evaluate a call (ms since 1970), or None for never. `version` is that of the facts the caller saw."""

    at_ms: int | None
    version: str


@dataclass(frozen=True, slots=True)
class LeaseLimits:
    """Limits of one lease, for each partition.

    Attributes:
        calls: maximum number of calls that are leased.
        calls_of_source: maximum number of them of one source. Its other due calls are postponed.
        interval_ms: between two of their wake-ups.
    """

    calls: int
    calls_of_source: int
    interval_ms: int


@dataclass(frozen=True, slots=True)
class Leased:
    """Result of a lease.

    Attributes:
        calls: the leased calls.
        last_wake_ups: of each source of which calls were postponed, the last wake-up (ms since 1970).
        is_more: more calls may be due.
    """

    calls: list[CallKey]
    last_wake_ups: dict[SourceName, int]
    is_more: bool


@dataclass(frozen=True, slots=True)
class RestoredPublication:
    """The last published revision of a call, from a source other than Redis.

    Attributes:
        is_tombstone: the call's facts are incomplete and are deleted, because a call derived from them would be wrong.
        last_event_ms: when the last event of the revision was received (ms since 1970); None if unknown.
    """

    revision: int
    summary: str
    wake_up: WakeUp
    is_tombstone: bool = False
    last_event_ms: int | None = None
