"""What a vCon is made of: one published revision of a call, and what became of the recordings of its legs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from console.vcon.older_records import completed
from shared.domain.event_types import CallRecord
from shared.domain.ids import CallKey
from shared.domain.recording_info import RecordingInfo

# A name that is certainly no host of the internet (RFC 6761).
_NO_HOST = "callfold.invalid"


@dataclass(frozen=True, slots=True)
class LegRecordings:
    """The recordings of a leg: the first one, and those with other content. `name` is the one in the URL of the recording."""

    call_id: str
    name: str
    recording: RecordingInfo
    others: Sequence[RecordingInfo] = ()


@dataclass(frozen=True, slots=True)
class PublishedCall:
    """One published revision of a call.

    Attributes:
        at: time of the event of this revision.
        published: its record as it was published; `record` has every name of this release.
        previous: record of the revision before it, None for the first one or if it is not kept any more.
        recordings: what is known of the recordings today, also for an older revision.
    """

    key: CallKey
    at: str
    published: Mapping[str, Any]
    record: CallRecord
    previous: Mapping[str, Any] | None = None
    recordings: Sequence[LegRecordings] = ()

    @classmethod
    def of(
        cls, key: CallKey, event: Mapping[str, Any], previous: Mapping[str, Any] | None, recordings: Sequence[LegRecordings]
    ) -> PublishedCall:
        """Make it from the events of two revisions."""
        record = event["data"]
        return cls(key, event["time"], record, completed(record), None if previous is None else previous["data"], recordings)


@dataclass(frozen=True, slots=True)
class Publisher:
    """The installation that makes the vCons. `public_url` is the base of the console's URLs, '' if it is not set."""

    public_url: str = ""

    @property
    def host(self) -> str:
        """Return the host name that makes the UUIDs of this installation differ from those of others."""
        return urlsplit(self.public_url).hostname or _NO_HOST

    def recording_url(self, key: CallKey, name: str) -> str | None:
        """Return where the console serves a recording; None without a public URL."""
        if not self.public_url or not name:
            return None
        path = f"/recordings/{quote(key.source, safe='')}/{quote(name, safe='')}"
        return f"{self.public_url.rstrip('/')}{path}?{urlencode({'call': key.call})}"
