"""The replies of `merge.lua` and `lease.lua` as values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from shared.domain.ids import CallKey, SourceName
from shared.state.keys import parse_call_key
from shared.state.replies import text, text_pairs
from shared.state.stored_call import Leased, Merged, PublicationState, StoredCall


def read_merged(rows: Mapping[CallKey, list[object]]) -> Merged:
    """Read the rows of `merge.lua`, by call."""
    refused = {key: cast("list[int]", row[0]) for key, row in rows.items() if row[0]}
    return Merged({key: _stored_call(row[1:]) for key, row in rows.items() if len(row) > 1}, refused)


def _stored_call(row: Sequence[object]) -> StoredCall:
    flat, revision, state, summary, version, wake_at, merged, uses = row
    facts = text_pairs(cast("list[bytes]", flat))
    wake_at_ms = round(float(text(wake_at))) if wake_at else None
    publication = int(text(revision)), PublicationState(text(state)), text(summary), text(version)
    return StoredCall(facts, *publication, wake_at_ms, int(text(merged)) if merged else None, int(text(uses)))


def read_leased(parts: Sequence[tuple[list[bytes], list[bytes | int], int]]) -> Leased:
    """Read the replies of `lease.lua`, one for each partition."""
    last_wake_ups: dict[SourceName, int] = {}
    for _, row, _ in parts:
        for source, last_ms in zip(row[::2], row[1::2], strict=True):
            name = SourceName(text(source))
            last_wake_ups[name] = max(last_wake_ups.get(name, 0), int(last_ms))
    calls = [parse_call_key(text(name)) for names, _, _ in parts for name in names]
    return Leased(calls, last_wake_ups, is_more=any(is_more for _, _, is_more in parts))
