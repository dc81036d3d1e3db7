"""The part of the store that a rebuild needs. It is patient: a rebuild must not begin again for each time-out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from shared.domain.facts import Fact
from shared.domain.ids import CallKey
from shared.errors import StoreUnavailableError
from shared.state.replies import until_redis_answers
from shared.state.stored_call import Merged, PublicationState, RestoredPublication, StoredCall, WakeUp

Events = Mapping[CallKey, Sequence[Sequence[Fact]]]


class RebuildStore(Protocol):
    """The methods of `Store` that a rebuild calls."""

    async def merge(self, events: Events, *, begins: Mapping[CallKey, str] | None = None) -> Merged: ...
    async def restore_publications(self, publications: Mapping[CallKey, RestoredPublication]) -> None: ...
    async def schedule(self, wake_ups: Mapping[CallKey, WakeUp]) -> None: ...
    async def remember_uses(self, uses: Mapping[CallKey, int]) -> None: ...
    async def count_uses(self, keys: Iterable[CallKey]) -> dict[CallKey, int]: ...
    async def read_many(self, keys: Iterable[CallKey]) -> dict[CallKey, StoredCall]: ...
    async def read_facts(self, keys: Iterable[CallKey]) -> dict[CallKey, dict[str, str]]: ...
    async def read_some_facts(self, names: Mapping[CallKey, Sequence[str]]) -> dict[CallKey, dict[str, str]]: ...
    async def publications(self, keys: Iterable[CallKey]) -> dict[CallKey, tuple[int, PublicationState, bool]]: ...
    async def open_calls(self) -> dict[CallKey, int]: ...


class PatientStore:
    """Repeats each step until Redis answers. Any other error is raised: the state has moved, so the rebuild begins again."""

    def __init__(self, store: RebuildStore) -> None:
        self._store = store

    async def merge(self, events: Events, *, begins: Mapping[CallKey, str] | None = None) -> Merged:
        """Merge events. What Redis cannot answer in time is sent again as two halves."""
        merged, waiting = Merged(), [dict(events)]

        async def step() -> None:
            while waiting:
                piece = waiting.pop()
                try:
                    part = await self._store.merge(piece, begins=begins)
                except StoreUnavailableError:
                    names = list(piece)
                    halves = (names[: len(names) // 2], names[len(names) // 2 :])
                    waiting.extend({key: piece[key] for key in half} for half in halves if half)
                    raise
                merged.calls.update(part.calls)
                merged.refused.update(part.refused)

        await until_redis_answers(step)
        return merged

    async def restore_publications(self, publications: Mapping[CallKey, RestoredPublication]) -> None:
        if publications:
            await until_redis_answers(lambda: self._store.restore_publications(publications))

    async def schedule(self, wake_ups: Mapping[CallKey, WakeUp]) -> None:
        if wake_ups:
            await until_redis_answers(lambda: self._store.schedule(wake_ups))

    async def remember_uses(self, uses: Mapping[CallKey, int]) -> None:
        if uses:
            await until_redis_answers(lambda: self._store.remember_uses(uses))

    async def count_uses(self, keys: Iterable[CallKey]) -> dict[CallKey, int]:
        names = list(keys)
        return await until_redis_answers(lambda: self._store.count_uses(names)) if names else {}

    async def read_many(self, keys: Iterable[CallKey]) -> dict[CallKey, StoredCall]:
        names = list(keys)
        return await until_redis_answers(lambda: self._store.read_many(names)) if names else {}

    async def read_facts(self, keys: Iterable[CallKey]) -> dict[CallKey, dict[str, str]]:
        names = list(keys)
        return await until_redis_answers(lambda: self._store.read_facts(names)) if names else {}

    async def read_some_facts(self, names: Mapping[CallKey, Sequence[str]]) -> dict[CallKey, dict[str, str]]:
        return await until_redis_answers(lambda: self._store.read_some_facts(names)) if names else {}

    async def publications(self, keys: Iterable[CallKey]) -> dict[CallKey, tuple[int, PublicationState, bool]]:
        names = list(keys)
        return await until_redis_answers(lambda: self._store.publications(names)) if names else {}

    async def open_calls(self) -> dict[CallKey, int]:
        return await until_redis_answers(self._store.open_calls)
