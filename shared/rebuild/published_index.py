"""The published revisions of many calls, without their long values. The revisions are kept as bytes, since there can be many."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from shared.domain.ids import CallKey, later_use, use_number
from shared.domain.revision_proof import RevisionProof
from shared.rebuild.kept_bytes import KeptBytes
from shared.rebuild.published_calls import PublishedCall, add_revision
from shared.rebuild.published_summary import Record, annotation_digest
from shared.rebuild.scope import first_key

_UNUSED = frozenset({"fields", "ignored"})
_PROOF = "proof"


class PublishedIndex:
    """The published calls by the first use of their RequestID or CallID.

    Attributes:
        earliest: the earliest start of a call (RFC 3339 UTC); '' if there is none.
    """

    def __init__(self, kept: KeptBytes) -> None:
        self._kept = kept
        self._positions: dict[CallKey, dict[int, tuple[int, ...]]] = {}
        self.earliest = ""

    def __len__(self) -> int:
        return len(self._positions)

    def add(self, key: CallKey, record: Record, proof: RevisionProof | None = None) -> None:
        """Add one published revision of a call, in any order."""
        uses = self._positions.setdefault(first_key(key), {})
        number = use_number(key.call)
        uses[number] = (
            *uses.get(number, ()),
            self._kept.add(orjson.dumps(_slim(record) | {_PROOF: list(proof) if proof else None})),
        )
        started_at = str(record["started_at"])
        self.earliest = min(self.earliest or started_at, started_at)

    def read(self, firsts: Iterable[CallKey]) -> dict[CallKey, dict[int, PublishedCall]]:
        """Read the published uses of some RequestIDs or CallIDs, by their number; those without any are absent."""
        return {first: self._read(first, uses) for first in firsts if (uses := self._positions.get(first))}

    def _read(self, first: CallKey, uses: Mapping[int, tuple[int, ...]]) -> dict[int, PublishedCall]:
        calls: dict[CallKey, PublishedCall] = {}
        for number, positions in uses.items():
            for position in positions:
                record = orjson.loads(self._kept.get(position))
                proof = record.pop(_PROOF)
                key = CallKey(first.source, later_use(first.call, number))
                add_revision(calls, key, record, RevisionProof(*proof) if proof else None)
        return {use_number(key.call): known for key, known in calls.items()}


def _slim(record: Record) -> dict[str, Any]:
    """Return what decides about a revision: the record without adapter values, and of annotations the digests."""
    slim = {name: value for name, value in record.items() if name not in _UNUSED}
    for name in ("agent", "dialed"):
        slim[name] = _slim_leg(record[name])
    slim["other_legs"] = [_slim_leg(leg) for leg in record["other_legs"]]
    slim["annotations"] = [{"digest": annotation_digest(each)} for each in record.get("annotations", ())]
    return slim


def _slim_leg(leg: Record | None) -> dict[str, Any] | None:
    return None if leg is None else {name: value for name, value in leg.items() if name not in _UNUSED}
