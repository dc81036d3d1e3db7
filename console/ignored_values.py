"""Values of callbacks that were not used, in words: the reasons, and the placeholders that arrive unreplaced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import groupby
from operator import attrgetter

from shared.clock import utc_now
from shared.config.sources import Source, Sources
from shared.domain.ids import CallKey
from shared.domain.ignored import Reason
from shared.domain.times import at_microseconds, microseconds
from shared.partial_values import shorten_name
from shared.state.store import Store
from shared.state.unreplaced import UnreplacedPlaceholder

_FOR = timedelta(days=1)
_SHOWN = 5
_REASONS: Mapping[str, str] = {
    Reason.PLACEHOLDER: "the placeholder arrived unreplaced",
    Reason.NOT_UTF8: "it is not UTF-8, so it was read as cp1252",
    Reason.SENT_TWICE: "the parameter was sent twice, and another value counts",
    Reason.NO_VALUE: "it stands for no value",
    Reason.NOT_A_CALL_TYPE: "it is no call type, so the other of name and code counts",
    Reason.NOT_AN_EVENT: "it is no event, so the other of name and code counts",
    Reason.NOT_A_REQUEST_ID: "it is no RequestID, so the leg is a separate call",
    Reason.NOT_A_GUID: "it is no GUID",
    Reason.NOT_A_BIT: "it is neither yes nor no",
    Reason.NOT_A_TIME: "it is no time, or too far from its receipt",
    Reason.NOT_MILLISECONDS: "it is no whole number of milliseconds",
    Reason.NOT_A_URL: "it is no URL of a recording, so only the source's recording_url can be requested",
    Reason.IN_URL: "it may be a piece of the RecordingURL, which was not escaped",
    Reason.CONTRADICTS: "it contradicts another value of the leg",
}


def why_ignored(reason: str) -> str:
    """Return why a value was not used as it was sent; the reason itself if a newer version wrote it."""
    return _REASONS.get(reason, reason)


@dataclass(frozen=True, slots=True)
class UnreplacedProblem:
    """The last call of a source in which placeholders arrived unreplaced. `detail` says which, and what to correct."""

    call: CallKey
    detail: str


def unreplaced_problem(source: Source, placeholders: Sequence[UnreplacedPlaceholder]) -> UnreplacedProblem:
    """Describe the placeholders of a source that arrived unreplaced."""
    last = max(placeholders, key=attrgetter("at"))
    names = [_named(source, each.placeholder) for each in placeholders[:_SHOWN]]
    more = f" and {len(placeholders) - _SHOWN} more" if len(placeholders) > _SHOWN else ""
    return UnreplacedProblem(
        last.call,
        f"Source {source.name}: {', '.join(names)}{more} arrived unreplaced, last in call {last.call} at {last.at}. "
        "The calls are complete without these values. In FocalScope, check how the adapter link spells its placeholders, "
        "and whether this version of FocalScope has them.",
    )


def _named(source: Source, placeholder: str) -> str:
    parameter = source.adapter.parameter(placeholder)
    return f"{{{{{placeholder}}}}}" + ("" if parameter in {None, placeholder} else f" (parameter {shorten_name(str(parameter))})")


async def find_unreplaced(store: Store, sources: Sources) -> list[UnreplacedProblem]:
    """Find the placeholders of each source that arrived unreplaced in the last day.

    Raises:
        StoreUnavailableError: Redis does not answer.
    """
    since = at_microseconds(microseconds(utc_now()) - _FOR // timedelta(microseconds=1))
    placeholders = await store.unreplaced.of(sources, since)
    groups = groupby(placeholders, key=lambda each: each.call.source)
    return [unreplaced_problem(sources[name], list(group)) for name, group in groups]
