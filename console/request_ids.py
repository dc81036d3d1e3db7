"""Sources that send one RequestID for many calls, as `callfold doctor` and the page report them."""

from __future__ import annotations

from dataclasses import dataclass

from shared.config.sources import Source, Sources
from shared.domain.adapter_link import Placeholder
from shared.domain.ids import CallKey
from shared.state.refused_legs import RefusedLeg
from shared.state.store import Store


@dataclass(frozen=True, slots=True)
class RequestIdProblem:
    """The call of a source that has too many legs. `detail` says what happened, and what to correct."""

    call: CallKey
    detail: str


def request_id_problem(refused: RefusedLeg, source: Source) -> RequestIdProblem:
    """Describe the latest refusal of a source."""
    parameter = source.adapter.name_of(Placeholder.REQUEST_ID)
    return RequestIdProblem(
        refused.call,
        f"Source {source.name} sends one RequestID for many calls: {refused.call} has too many legs. "
        f"The last one was refused at {refused.at}. In FocalScope, set the parameter {parameter} of the adapter link to "
        f"{{{{{Placeholder.REQUEST_ID}}}}}. The refused callbacks are dead letters (too_many_legs).",
    )


async def find_request_id_problems(store: Store, sources: Sources) -> list[RequestIdProblem]:
    """Find the problem of each source that had one in the last day.

    Raises:
        StoreUnavailableError: Redis does not answer.
    """
    return [request_id_problem(refused, sources[refused.call.source]) for refused in await store.refused_legs.of(sources)]
