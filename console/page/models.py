"""What each page is made of. Values of calls and letters are as callbacks told them: hostile until a template escapes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from console.call_query import CallRow, JsonObject
from console.dead_letters.queue import Which
from shared.domain.adapter_link import Adapter
from shared.domain.leg import Leg


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who looks at a page.

    Attributes:
        who: names the key without telling it.
        role: `operator` or `viewer` (`console.access.Role`).
        csrf: goes into every form that changes something.
        can_log_out: there is a log-in to end; none on a console without keys.
    """

    who: str
    role: str
    csrf: str = field(repr=False)
    can_log_out: bool = True

    @property
    def is_operator(self) -> bool:
        return self.role == "operator"


@dataclass(frozen=True, slots=True)
class CallsPage:
    """A search and what it found.

    Attributes:
        asked: the form's values by parameter name, as they came.
        rows: the calls found; empty where the search could not be understood.
        next_cursor: where the next page begins; None on the last one.
        wrong: what is wrong with which parameter (see `console.page.forms.read_query`).
        sources: the names to choose from.
        problem: why these are not all that match, where they are not.
    """

    asked: Mapping[str, str]
    rows: Sequence[CallRow]
    next_cursor: str | None = None
    wrong: Mapping[str, str] = field(default_factory=dict)
    sources: Sequence[str] = ()
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class TimelineRow:
    """One raw event of a call, as it was received.

    Attributes:
        kind: `callback`, `dial` or `timer`.
        what: the raw text, credentials masked.
        leg: the CallID of the leg it tells of, where it tells of one.
        event: `start`, `pickup`, `hangup` or `missed`, where it is a callback that was understood.
        told_at: the adapter's own time of what it tells, where it sent one.
    """

    received_at: str
    kind: str
    what: str
    leg: str | None = None
    event: str | None = None
    told_at: str | None = None


@dataclass(frozen=True, slots=True)
class Revision:
    """One publication of a call."""

    id: str
    time: str
    type: str
    outcome: str


@dataclass(frozen=True, slots=True)
class RecordingRow:
    """One leg's recording and what became of it."""

    guid: str | None
    leg: str
    call_id: str
    state: str
    reason: str | None = None
    uri: str | None = None
    bytes: int | None = None
    sha256: str | None = None
    seconds: float | None = None
    name: str | None = None

    @property
    def file_name(self) -> str:
        """What its files are called: as its sidecar tells; the history does not: there it is the GUID, else the CallID."""
        return self.name or self.guid or f"call-{self.call_id}"


@dataclass(frozen=True, slots=True)
class CallPage:
    """One call.

    Attributes:
        at: now, RFC 3339 UTC: how far the legs of an open call reach.
        why: why it is in its state, as `console.show.why` says it.
        record: the derived record; of an open call, which has no outcome, what is known so far.
        is_timeline_whole: False where more raw events may be in the journal.
        timeline_problem: why the raw timeline could not be read, where it could not.
    """

    source: str
    call: str
    at: str
    status: str
    why: str
    published_revision: int | None
    record: JsonObject
    legs: Sequence[Leg]
    facts: Mapping[str, str]
    timeline: Sequence[TimelineRow]
    revisions: Sequence[Revision] = ()
    recordings: Sequence[RecordingRow] = ()
    is_timeline_whole: bool = True
    timeline_problem: str | None = None

    @classmethod
    def of(cls, told: JsonObject, at: str) -> Self:
        """Read what is told of a call as JSON: the answer of `GET /calls/{source}/{request_id}`."""
        source, _, call = str(told["call"]).partition("/")
        return cls(
            source=source,
            call=call,
            at=at,
            status=str(told["status"]),
            why=str(told["why"]),
            published_revision=told["published_revision"],
            record=told["record"],
            legs=[Leg(**leg) for leg in told["legs"]],
            facts=told["facts"],
            timeline=[TimelineRow(**_known(TimelineRow, row)) for row in told["timeline"]],
            revisions=[Revision(**_known(Revision, row)) for row in told.get("revisions", ())],
            recordings=[RecordingRow(**_known(RecordingRow, row)) for row in told.get("recordings", ())],
            is_timeline_whole=told.get("is_timeline_whole", True),
            timeline_problem=told.get("timeline_problem"),
        )


def _known(kind: type[TimelineRow | Revision | RecordingRow], row: JsonObject) -> dict[str, Any]:
    return {name: row[name] for name in kind.__slots__ if name in row}


@dataclass(frozen=True, slots=True)
class LetterRow:
    """One dead letter; made of `Letter.told(with_body=True)`."""

    id: str
    reason: str
    detail: str
    first_seen: str
    sources: Sequence[str]
    body: str


@dataclass(frozen=True, slots=True)
class LettersPage:
    """The dead letters of one queue.

    Attributes:
        letters: those that match, at most as many as are shown on a page.
        found: how many match.
        depths: how many wait in each queue; None where RabbitMQ did not tell.
        reason, source: the filter; None for any.
        reasons, sources: what can be chosen.
        notice: what was just done.
    """

    which: Which
    letters: Sequence[LetterRow]
    found: int
    depths: Mapping[Which, int | None]
    reason: str | None = None
    source: str | None = None
    reasons: Sequence[str] = ()
    sources: Sequence[str] = ()
    notice: str | None = None


@dataclass(frozen=True, slots=True)
class RedrivePage:
    """Letters that are to be put back once this is confirmed; `back` is where Cancel leads."""

    which: Which
    letters: Sequence[LetterRow]
    back: str


@dataclass(frozen=True, slots=True)
class AdapterPage:
    """The adapter-link helper.

    Attributes:
        source, public_url: what the first form was given.
        link: the link for them, whole; it is masked for viewers.
        link_problem: why there is none.
        pasted: the link of the second form; shown masked.
        understood: what it means.
        pasted_problem: why it cannot be understood.
    """

    sources: Sequence[str]
    source: str | None = None
    public_url: str | None = None
    link: str | None = field(default=None, repr=False)
    link_problem: str | None = None
    pasted: str | None = field(default=None, repr=False)
    understood: Adapter | None = None
    pasted_problem: str | None = None


@dataclass(frozen=True, slots=True)
class LoginPage:
    """The log-in form; `next` is where it leads."""

    next: str = "/"
    error: str | None = None


@dataclass(frozen=True, slots=True)
class ErrorPage:
    """A request that could not be answered."""

    status: int
    title: str
    detail: str
