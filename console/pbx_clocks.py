"""PBXs whose clocks are wrong, as `callfold doctor` and the page report them."""

from __future__ import annotations

from shared.config.sources import Sources
from shared.domain.pbx_clock import clock_problem
from shared.state.store import Store


async def find_pbx_clock_problems(store: Store, sources: Sources) -> list[str]:
    """Describe each PBX whose clock differed in the last day, and by how much.

    Raises:
        StoreUnavailableError: Redis does not answer.
    """
    notes = await store.pbx_clocks.of(sources)
    problems = {source: clock_problem(source, note.ahead_s) for source, note in notes.items()}
    return [f"{problem} They differ by {abs(notes[source].ahead_s):.1f} s." for source, problem in problems.items() if problem]
