"""Calls of a RequestID that was used again, in a rebuild: which of them the replayed legs are, by what was published."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from shared.domain.facts import LEG, Fact
from shared.domain.ids import CallKey, is_request_id, later_use, use_number
from shared.domain.reused_legs import deciding_facts, may_be_reused, with_own_legs
from shared.domain.uses import Use, copies, may_be_several, use_fact, uses_of, uses_of_events
from shared.rebuild.patient_store import RebuildStore
from shared.rebuild.published_calls import PublishedCall, PublishedUses
from shared.rebuild.published_summary import ids_of
from shared.rebuild.scope import EVERYTHING, Scope
from shared.state.stored_call import RestoredPublication, StoredCall, WakeUp


@dataclass(slots=True)
class LaterUses:
    """The later uses of some RequestIDs.

    Attributes:
        calls: the later uses, merged.
        moved: first uses of which no leg is left, because all replayed legs belong to later ones. They become tombstones.
    """

    calls: dict[CallKey, StoredCall] = field(default_factory=dict)
    moved: dict[CallKey, RestoredPublication] = field(default_factory=dict)


async def merge_later_uses(
    store: RebuildStore,
    calls: Mapping[CallKey, StoredCall],
    published: PublishedUses,
    max_call_s: float,
    scope: Scope = EVERYTHING,
) -> LaterUses:
    """Merge the later uses of replayed calls, as the fold does.

    The journal may lack the legs of earlier uses. The published records then show which use the first replayed legs are. A first
    use outside the scope has lost nothing, and is read alone.
    """
    later = LaterUses()
    for key, call in calls.items():
        records = published.get(key, {})
        if use_number(key.call) > 1 or not call.facts or is_first_use_alone(call.facts, records):
            continue
        uses = uses_of(call.facts, max_call_s)
        number = _first_number(uses, records, call.uses if call.revision == 0 and not scope.has(key) else 1)
        facts = {
            CallKey(key.source, later_use(key.call, each)): copies(call.facts, uses, None if number == 1 else number)
            for each in range(max(2, number), number + len(uses))
        }
        if not facts:
            continue
        inside = {each: facts[each] for each in scope.only(facts)}
        begins = {of: uses[use_number(of.call) - number].first_at for of in inside}
        if inside:
            later.calls |= (await store.merge(inside, begins=begins)).calls
        if scope.has(key):
            await store.remember_uses({key: number + len(uses) - 1})
            if number > 1:
                revision = records[1].revision if 1 in records else 1
                later.moved[key] = RestoredPublication(revision, "", WakeUp(None, call.version), is_tombstone=True)
    return later


def is_first_use_alone(facts: Mapping[str, str], records: Mapping[int, PublishedCall]) -> bool:
    """Return whether some facts are those of the first use and of no other; cheap, since most calls have no other."""
    if may_be_several(facts) or any(number > 1 for number in records):
        return False
    if not records:
        return True
    ids = _ids(records[1])
    return any(_call_id(name) in ids for name in facts if name.startswith(LEG))


async def redirect(
    store: RebuildStore, facts: Mapping[CallKey, list[list[Fact]]], max_call_s: float, scope: Scope = EVERYTHING
) -> dict[CallKey, StoredCall]:
    """Merge replayed events. Those of CallIDs that were used again are assigned to their uses, as the fold does.

    Returns the calls of the scope with all their facts. Others have lost nothing, and are not merged.
    """
    first = [key for key in facts if not is_request_id(key.call) and use_number(key.call) == 1]
    counts = await store.count_uses(first) if first else {}
    keys = {key: [CallKey(key.source, later_use(key.call, number)) for number in range(1, counts[key] + 1)] for key in first}
    known = await store.read_facts([each for of_key in keys.values() for each in of_key]) if keys else {}
    assigned = await _with_own_legs(store, {key: events for key, events in facts.items() if key not in keys}, max_call_s)
    uses: dict[CallKey, int] = {}
    for key, of_key in keys.items():
        numbers = uses_of_events(facts[key], [known[each] for each in of_key], max_call_s)
        for number, event in zip(numbers, facts[key], strict=True):
            more = [use_fact(number)] if number > 1 else []
            assigned.setdefault(CallKey(key.source, later_use(key.call, number)), []).append([*event, *more])
        uses |= {key: max(numbers)} if max(numbers) > 1 else {}
    merged = await store.merge({key: assigned[key] for key in scope.only(assigned)})
    remembered = {key: uses[key] for key in scope.only(uses)}
    if remembered:
        await store.remember_uses(remembered)
    return merged.calls


async def _with_own_legs(
    store: RebuildStore, facts: Mapping[CallKey, list[list[Fact]]], max_call_s: float
) -> dict[CallKey, list[list[Fact]]]:
    """Name the legs of CallIDs that were used before with the same RequestID, as the fold does."""
    names = {key: deciding_facts(events) for key, events in facts.items()}
    guids = await store.read_some_facts({key: of_key for key, of_key in names.items() if of_key})
    known = await store.read_facts([key for key, of_key in guids.items() if may_be_reused(facts[key], of_key, max_call_s)])
    return {key: with_own_legs(events, known[key], max_call_s) if key in known else events for key, events in facts.items()}


def _first_number(uses: Sequence[Use], records: Mapping[int, PublishedCall], known_uses: int) -> int:
    """Return the number of the first replayed use: that of the record with one of its legs, else the one after all records.

    Of a first use that has expired in Redis, `known_uses` shows it.
    """
    if not uses:
        return 1
    own = _call_ids(uses[0].legs)
    with_its_legs = [number for number, record in records.items() if own & _ids(record)]
    return min(with_its_legs, default=max(max(records, default=0) + 1, known_uses - len(uses) + 1))


def _call_ids(legs: Iterable[str]) -> set[str]:
    return {_call_id(leg) for leg in legs if leg}


def _call_id(leg: str) -> str:
    """Return the CallID in the name of a leg or of one of its facts."""
    return leg.split(":", 3)[2].partition(".")[0]


def _ids(known: PublishedCall) -> set[str]:
    return {leg.call_id for leg in ids_of(known.record)}
