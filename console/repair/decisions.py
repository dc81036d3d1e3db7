"""What a rebuild concludes of calls: what to note of them as published, and when to look at them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from console.repair.published_calls import Published
from console.repair.published_summary import published_summary
from shared.config.sources import Sources
from shared.domain.amendment import amends, summary
from shared.domain.call import Call, Policy, derive
from shared.domain.facts import milliseconds
from shared.domain.ids import CallKey
from shared.state.stored_call import PublicationState, RestoredPublication, StoredCall, WakeUp


@dataclass(frozen=True, slots=True)
class Conclusions:
    """What to note of calls, and how many there were of which kind."""

    counts: Counter[str] = field(default_factory=Counter)
    restored: dict[CallKey, RestoredPublication] = field(default_factory=dict)
    wake_ups: dict[CallKey, WakeUp] = field(default_factory=dict)


def conclude(
    policy: Policy,
    sources: Sources,
    folded: Mapping[CallKey, StoredCall],
    published: Mapping[CallKey, Published],
    *,
    publish: bool,
) -> Conclusions:
    """Decide what to note of each call as published, and when to look at it.

    `sources` tell whose recordings were asked for. `publish`: workers are to publish what is complete and never was; it is noted
    as published otherwise.
    """
    found = Conclusions()
    for key, state in folded.items():
        if state.facts:
            try:
                call = derive(key, state.facts, policy)
            except Exception:  # noqa: BLE001 - a fault of ours in one call must not hold up the others; the fold makes it a dead letter
                found.counts["not understood"] += 1
                continue
            record_legs = sources[key.source].record_legs
            found.counts[_note(found, state, published.get(key), call, record_legs, publish=publish)] += 1
        else:
            found.counts["known already"] += 1  # buried
    return found


def _note(
    found: Conclusions, state: StoredCall, known: Published | None, call: Call, record_legs: Collection[str], *, publish: bool
) -> str:
    """Decide about one call; returns what it counts as."""
    key = call.key
    if known is not None and known.revision > state.revision:
        told = published_summary(known.record, known.filed_at, state.facts, call, owners=known.owners, record_legs=record_legs)
        if told is None:
            found.restored[key] = RestoredPublication(known.revision, "", WakeUp(None, state.version), is_tombstone=True)
            return "noted as published, without facts: they are not all in the journal"
        found.restored[key] = RestoredPublication(known.revision, told, _wake_up(call, state, told))
        return "noted as published" if call.closing else "noted as published, and open again"
    if state.state is PublicationState.CLAIMED:
        return "known already"  # whoever takes the claim over publishes what it holds
    if state.revision:
        wake_up = _wake_up(call, state, state.summary)
        if wake_up.at_ms is not None:
            found.wake_ups[key] = wake_up
        return "known already"
    if call.closing is None or publish:
        found.wake_ups[key] = _wake_up(call, state, "")
        return "open" if call.closing is None else "to be published"
    found.restored[key] = RestoredPublication(1, summary(call, record_legs=record_legs), WakeUp(None, state.version))
    return "noted as published, but never were"


def _wake_up(call: Call, state: StoredCall, published: str) -> WakeUp:
    """Say when to look at a call: when its silence would close it; at once, where it is not what was published."""
    if call.closing is None:
        return WakeUp(None if call.wake_at is None else milliseconds(call.wake_at), state.version)
    is_published = published and not amends(published, summary(call, published))
    return WakeUp(None if is_published else 0, state.version)
