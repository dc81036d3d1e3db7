"""The decision of a rebuild about each replayed call: restore its publication, schedule a wake-up, or leave it alone."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from shared.config.sources import Sources
from shared.domain.call import Call, derive
from shared.domain.closing import Policy
from shared.domain.ids import CallKey
from shared.domain.revision_summary import amends, summary
from shared.domain.times import milliseconds
from shared.domain.uses import facts_of_use
from shared.rebuild.published_calls import PublishedCall
from shared.rebuild.published_summary import published_summary
from shared.state.stored_call import PublicationState, RestoredPublication, StoredCall, WakeUp

_REUSED = re.compile(r"^(leg:[^:]+:[0-9]+)\.[0-9]+:")


class Decision(StrEnum):
    """The decision about one call. The values are names in the JSON output of `callfold rebuild`."""

    INVALID = "not_understood"
    KNOWN = "known_already"
    RESTORED = "noted_as_published"
    REOPENED = "noted_as_published_and_open_again"
    TOMBSTONED = "noted_as_published_without_facts:_they_are_not_all_in_the_journal"
    OPEN = "open"
    TO_PUBLISH = "to_be_published"
    MARKED = "noted_as_published_but_never_were"

    @property
    def text(self) -> str:
        return _TEXTS[self]


_TEXTS = {
    Decision.INVALID: "cannot be folded",
    Decision.KNOWN: "already known",
    Decision.RESTORED: "restored as published",
    Decision.REOPENED: "restored as published and open again",
    Decision.TOMBSTONED: "restored as published without facts (the journal no longer has them all)",
    Decision.OPEN: "open",
    Decision.TO_PUBLISH: "to be published",
    Decision.MARKED: "marked as published although they never were",
}


@dataclass(frozen=True, slots=True)
class Decisions:
    """The publications to restore, the wake-ups to schedule, and the decisions; `of` has those about calls with facts."""

    counts: Counter[Decision] = field(default_factory=Counter)
    of: dict[CallKey, Decision] = field(default_factory=dict)
    publications: dict[CallKey, RestoredPublication] = field(default_factory=dict)
    wake_ups: dict[CallKey, WakeUp] = field(default_factory=dict)


def decide(
    policy: Policy,
    sources: Sources,
    folded: Mapping[CallKey, StoredCall],
    published: Mapping[CallKey, PublishedCall],
    *,
    publish: bool,
) -> Decisions:
    """Decide for each call whether to restore its publication, and when to re-evaluate it.

    `sources` give the sides whose recordings were requested. With `publish`, workers publish complete calls that were never
    published. Without it these calls are marked as published.
    """
    decisions = Decisions()
    for key, state in folded.items():
        known = published.get(key)
        if state.facts:
            decision = _decide_proved(decisions, key, state, known) if known is not None else None
            if decision is None:
                try:
                    call = derive(key, state.facts, policy)
                except Exception:  # noqa: BLE001 - a bug hit by one call must not stop the others; the fold dead-letters that call
                    decisions.counts[Decision.INVALID] += 1
                    continue
                record_legs = sources[key.source].record_legs
                facts = {} if known is None else _facts_of_record(key, state.facts, policy)
                decision = _decide(decisions, state, known, call, facts, record_legs=record_legs, publish=publish)
            decisions.of[key] = decision
            decisions.counts[decision] += 1
        else:
            decisions.counts[Decision.KNOWN] += 1  # a tombstone
    return decisions


def _facts_of_record(key: CallKey, facts: Mapping[str, str], policy: Policy) -> Mapping[str, str]:
    """Return the facts of one use with its legs named as in its record: a leg whose CallID was used before has that CallID."""
    own = facts_of_use(key.call, facts, policy.max_call_s)
    return facts if own is facts else {_REUSED.sub(r"\1:", name): value for name, value in own.items()}


def _decide_proved(decisions: Decisions, key: CallKey, state: StoredCall, known: PublishedCall) -> Decision | None:
    """Decide about a call that has exactly the facts from which its last revision was made: nothing more follows from them.

    Returns None if it cannot be known without deriving the call. The decision is that of `_decide`.
    """
    if known.proof is None or not known.proof.holds_for(state.facts):
        return None
    if known.revision > state.revision or (state.state is PublicationState.CLAIMED and known.revision == state.revision):
        decisions.publications[key] = RestoredPublication(known.revision, known.proof.summary, WakeUp(None, state.version))
        return Decision.RESTORED
    is_known = known.revision == state.revision and state.summary == known.proof.summary
    return Decision.KNOWN if is_known else None


def _decide(
    decisions: Decisions,
    state: StoredCall,
    known: PublishedCall | None,
    call: Call,
    facts: Mapping[str, str],
    *,
    record_legs: Collection[str],
    publish: bool,
) -> Decision:
    key = call.key
    is_claimed = state.state is PublicationState.CLAIMED
    if known is not None and (known.revision > state.revision or (is_claimed and known.revision == state.revision)):
        restored = published_summary(
            known.record,
            known.filed_at,
            facts,
            call,
            owners=known.owners,
            record_legs=record_legs,
            places=known.places,
        )
        if restored is None:
            tombstone = RestoredPublication(known.revision, "", WakeUp(None, state.version), is_tombstone=True)
            decisions.publications[key] = tombstone
            return Decision.TOMBSTONED
        decisions.publications[key] = RestoredPublication(known.revision, restored, _wake_up(call, state, restored))
        return Decision.RESTORED if call.closing else Decision.REOPENED
    if is_claimed:
        decisions.wake_ups[key] = WakeUp(0, state.version)
        return Decision.KNOWN  # the worker that takes over the claim publishes what it holds
    if state.revision:
        wake_up = _wake_up(call, state, state.summary)
        if wake_up.at_ms is not None:
            decisions.wake_ups[key] = wake_up
        return Decision.KNOWN
    if call.closing is None or publish:
        decisions.wake_ups[key] = _wake_up(call, state, "")
        return Decision.OPEN if call.closing is None else Decision.TO_PUBLISH
    decisions.publications[key] = RestoredPublication(1, summary(call, record_legs=record_legs), WakeUp(None, state.version))
    return Decision.MARKED


def _wake_up(call: Call, state: StoredCall, published: str) -> WakeUp:
    """Return when to re-evaluate a call: at its timeout if open, at once if it differs from what was published, else never."""
    if call.closing is None:
        return WakeUp(None if call.wake_at is None else milliseconds(call.wake_at), state.version)
    is_published = published and not amends(published, summary(call, published))
    return WakeUp(None if is_published else 0, state.version)
