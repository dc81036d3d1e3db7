"""How recordings are named, whatever is told late: a name, and an event id with it, never comes to stand for another one."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from console.commands.recordings_backfill import jobs_of
from shared.config.sources import DEFAULT_SOURCE, load_sources
from shared.rebuild.published_summary import published_summary
from tests.helpers.folding import SOURCE
from tests.helpers.revisions import SIDES, Revisions, line
from tests.helpers.volume import sizes

G, H = "bfa2dbc8-ab8a-34c8-f243-c2aad8c446ff", "aaaaaaaa-ab8a-34c8-f243-c2aad8c446ff"


SOURCES = {SOURCE: load_sources(None)[DEFAULT_SOURCE]}


CHOICES = (SIDES, ("agent",), ("dialed",), ())


@pytest.mark.parametrize(("early", "late"), [(("Outgoing", "2"), ("API", "1")), (("API", "1"), ("Outgoing", "2"))])
def test_a_leg_that_tells_late_that_it_has_another_s_guid_moves_nothing(early: tuple[str, str], late: tuple[str, str]) -> None:
    revisions = Revisions()
    told = f"&Guid={G}&IsCallRecorded=1"
    revisions.tell(
        line(0, *early, "pickup"), line(1, *late, "pickup"), line(9, *early, "hangup", told), line(10, *late, "hangup")
    )
    revisions.tell(line(20, *late, "hangup", told))
    fetched = {(job.call_id, job.name) for job in revisions.jobs if job.fetch}
    assert fetched == {(early[1], G), (late[1], f"{G}.{late[1]}")}
    known = revisions.read_back(random.Random(1))  # noqa: S311 - repeatable on purpose
    assert {(job.call_id, job.name) for job in jobs_of(revisions.fold.key, known, SOURCES)} == fetched


def _check(rng: random.Random) -> None:
    revisions = Revisions(rng.choice(CHOICES))
    events = []
    for call_type, call_id in (("API", "1"), ("Outgoing", "2"), ("Outgoing", "3"), ("API", "4"))[: rng.choice((2, 2, 3, 4))]:
        events += [line(rng.randrange(60), call_type, call_id, event) for event in ("pickup", "hangup")]
        for _ in range(rng.randrange(3)):
            more = f"&Guid={rng.choice((G, G, H))}&IsCallRecorded={rng.choice(('', '1'))}"
            events.append(line(rng.randrange(60), call_type, call_id, "hangup", more))
    rng.shuffle(events)
    while events:
        size = rng.randint(1, len(events))
        revisions.tell(*events[:size])
        events = events[size:]
    if not revisions.records:
        return
    of_name: dict[str, set[tuple[str, str | None]]] = {}
    for job in revisions.jobs:
        of_name.setdefault(job.name, set()).add((job.call_id, job.guid))
    assert all(len(legs) == 1 for legs in of_name.values()), "a name stands for one leg, in every revision"
    known = revisions.read_back(rng)
    sources = {SOURCE: SOURCES[SOURCE].model_copy(update={"record_legs": frozenset(revisions.fold.record_legs)})}
    asked = {(job.call_id, job.name) for job in jobs_of(revisions.fold.key, known, sources)}
    assert asked == {(job.call_id, job.name) for job in revisions.jobs if job.record == known.record and job.state == "waiting"}
    assert asked <= {(job.call_id, job.name) for job in revisions.jobs if job.fetch}, "whatever is wanted was fetched"
    call = revisions.fold.call()
    read_back = published_summary(
        known.record,
        known.filed_at,
        revisions.fold.facts,
        call,
        owners=known.owners,
        record_legs=revisions.fold.record_legs,
        places=known.places,
    )
    assert read_back in {None, revisions.fold.summary}


@pytest.mark.parametrize("examples", sizes(200, 1000))
def test_whatever_is_told_in_whatever_order_a_name_stands_for_one_leg_and_is_the_same_read_back(examples: int) -> None:
    settings(max_examples=examples, deadline=None)(given(st.randoms(use_true_random=False))(_check))()
