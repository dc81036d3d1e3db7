"""A rebuild restores the summary of a revision from its event, if the call has the facts from which it was made."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from shared.config.sources import DEFAULT_SOURCE, load_sources
from shared.domain.call import derive
from shared.domain.call_event import call_record
from shared.domain.closing import Policy
from shared.domain.ids import CallKey, CallRef
from shared.domain.revision_proof import RevisionProof, digest_of, read_proof
from shared.domain.revision_summary import summary
from shared.rebuild import decisions
from shared.rebuild.decisions import Decision, Decisions, decide
from shared.rebuild.kept_bytes import KeptBytes
from shared.rebuild.published_calls import by_call
from shared.rebuild.published_index import PublishedIndex
from shared.state.stored_call import PublicationState, StoredCall

KEY = CallKey(DEFAULT_SOURCE, CallRef("513"))
POLICY = Policy(settle_s=10, leg_grace_s=120, max_call_s=3600)
SOURCES = load_sources(None)
FACTS = {
    "leg:API:11:pickup": "2026-11-23T07:44:00.000000Z",
    "leg:API:11:hangup": "2026-11-23T07:45:00.000000Z",
    "leg:API:11:f.pickup.ResponderAgent": "Jørgen",
    "leg:Outgoing:12:pickup": "2026-11-23T07:44:05.000000Z",
    "leg:Outgoing:12:hangup": "2026-11-23T07:44:59.000000Z",
    "leg:Outgoing:12:recorded": "1",
}
LATER = {"leg:Outgoing:13:pickup": "2026-11-23T07:44:30.000000Z"}


def decided(facts: Mapping[str, str], *, has_proof: bool, revision: int = 0, state: PublicationState) -> Decisions:
    """Decide about a call with these facts, whose event was made from `FACTS`."""
    call = derive(KEY, FACTS, POLICY)
    kept = summary(call, "", SOURCES[DEFAULT_SOURCE].record_legs)
    proof = read_proof(RevisionProof(digest_of(FACTS), kept).headers())
    with KeptBytes() as texts:
        index = PublishedIndex(texts)
        index.add(KEY, call_record(call, 1), proof if has_proof else None)
        published = by_call(index.read([KEY]))
    stored = StoredCall(facts, revision, state, kept if revision else "", "7", None)
    return decide(POLICY, SOURCES, {KEY: stored}, published, publish=True)


@pytest.mark.parametrize("facts", [FACTS, FACTS | LATER], ids=["the same facts", "one more leg"])
@pytest.mark.parametrize(
    ("revision", "state"), [(0, PublicationState.NONE), (1, PublicationState.CLAIMED), (1, PublicationState.PUBLISHED)]
)
def test_the_decision_is_the_same_with_and_without_a_proof(
    facts: Mapping[str, str], revision: int, state: PublicationState
) -> None:
    with_proof, without = (decided(facts, has_proof=each, revision=revision, state=state) for each in (True, False))
    assert with_proof == without


def test_a_call_with_the_facts_of_its_event_is_not_derived_again(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def derived(*_: object) -> object:
        made.append(1)
        raise AssertionError

    expected = decided(FACTS, has_proof=True, state=PublicationState.NONE)
    monkeypatch.setattr(decisions, "derive", derived)
    assert decided(FACTS, has_proof=True, state=PublicationState.NONE) == expected
    assert (expected.of[KEY], made) == (Decision.RESTORED, [])


def test_a_call_with_more_facts_is_evaluated_again() -> None:
    restored = decided(FACTS | LATER, has_proof=True, state=PublicationState.NONE).publications[KEY]
    assert restored.wake_up.at_ms is not None


def test_facts_that_cannot_be_encoded_and_long_summaries_have_no_proof() -> None:
    assert digest_of({"leg:API:11:f.pickup.DID": "\ud800"}) == ""
    assert RevisionProof("", "summary").headers() == {}
    assert RevisionProof("digest", "x" * 20_000).headers() == {}
    assert read_proof({}) is None
    assert read_proof({"callfold-facts": 1, "callfold-summary": "x"}) is None


def test_of_an_event_that_was_published_twice_one_with_a_proof_is_enough() -> None:
    call = derive(KEY, FACTS, POLICY)
    record = call_record(call, 1)
    proof = RevisionProof(digest_of(FACTS), summary(call))
    for proofs in ((proof, None), (None, proof)):
        with KeptBytes() as texts:
            index = PublishedIndex(texts)
            for each in proofs:
                index.add(KEY, record, each)
            assert by_call(index.read([KEY]))[KEY].proof == proof
        with KeptBytes() as texts:
            index = PublishedIndex(texts)
            index.add(KEY, record, proof)
            index.add(KEY, {**record, "revision": 2}, None)
            assert by_call(index.read([KEY]))[KEY].proof is None
