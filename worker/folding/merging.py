"""Merges events in pieces: what Redis cannot answer in time is sent again as two halves, and never unchanged for ever."""

from __future__ import annotations

from collections.abc import Mapping

from shared.domain.facts import Fact
from shared.domain.ids import CallKey
from shared.errors import StoreUnavailableError
from shared.state.store import Store
from shared.state.stored_call import Merged

Events = Mapping[CallKey, list[list[Fact]]]


class Merging:
    """One merge, which `step` continues until it is done. Pieces that are merged are not sent again."""

    def __init__(self, store: Store, events: Events, begins: Mapping[CallKey, str] | None = None) -> None:
        """Take the events; `begins` is that of `Store.merge`."""
        self._store = store
        self._begins = begins
        self._waiting = [events]
        self._merged = Merged()

    async def step(self) -> Merged:
        """Merge what is left.

        Raises:
            StoreUnavailableError: Redis did not answer. The next step sends a smaller piece, if it has more than one call.
        """
        while self._waiting:
            piece = self._waiting.pop()
            try:
                merged = await self._store.merge(piece, begins=self._begins)
            except StoreUnavailableError:
                # In an outage, too, since it costs little: a piece that fails again is halved again, and the others stay whole.
                self._waiting += _halves(piece)
                raise
            self._merged.calls.update(merged.calls)
            self._merged.refused.update(merged.refused)
        return self._merged


def _halves(piece: Events) -> list[Events]:
    keys = list(piece)
    middle = len(keys) // 2
    return [{key: piece[key] for key in half} for half in (keys[:middle], keys[middle:]) if half]
