"""What a rebuild is about: partitions of Redis, of one source or of all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from shared.domain.ids import CallKey, first_use
from shared.state.keys import PARTITIONS, partition


@dataclass(frozen=True, slots=True)
class Scope:
    """The partitions that lost state, and the source if only one is to be rebuilt."""

    partitions: frozenset[int] = frozenset(range(PARTITIONS))
    source: str | None = None

    @property
    def is_whole(self) -> bool:
        return len(self.partitions) == PARTITIONS

    def has(self, key: CallKey) -> bool:
        return self.has_source(key) and partition(key) in self.partitions

    def has_source(self, key: CallKey) -> bool:
        return self.source is None or key.source == self.source

    def only(self, keys: Iterable[CallKey]) -> list[CallKey]:
        return [key for key in keys if self.has(key)]


EVERYTHING: Final = Scope()


def first_key(key: CallKey) -> CallKey:
    """Return the call at which the events of all uses of a RequestID or CallID arrive."""
    return key if "." not in key.call else CallKey(key.source, first_use(key.call))
