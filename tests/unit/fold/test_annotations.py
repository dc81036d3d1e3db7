"""Annotations in the pure core: what they change of a call, and what they never change."""

from __future__ import annotations

import itertools
from dataclasses import replace

import orjson
import pytest

from shared.config.sources import Source
from shared.domain.annotation import MAX_BODY_BYTES, annotation_id, read_annotations
from shared.domain.call import derive
from shared.domain.call_event import call_record
from shared.domain.facts import facts_of
from shared.domain.ids import CallKey, CallRef
from shared.domain.raw_event import AnnotationEvent, CallbackEvent, TimerEvent, Undecodable, decode, encode, join
from shared.domain.revision_summary import amends, summary
from shared.domain.times import milliseconds
from shared.rebuild.published_summary import published_summary
from shared.state.stored_call import PublicationState, StoredCall
from tests.helpers.folding import ADAPTER, SOURCE, Published, annotation, at, callback, timer
from tests.helpers.servers import POLICY
from worker.folding.evaluation import Evaluator
from worker.folding.outbox import read_outbox, write_outbox

Event = CallbackEvent | TimerEvent | AnnotationEvent
KEY = CallKey(SOURCE, CallRef("513"))
PAIR = [
    callback(0, "CallType=API&CallID=1&Event=pickup&RequestID=513"),
    callback(3, "CallType=Outgoing&CallID=2&Event=pickup&RequestID=513"),
    callback(33, "CallType=Outgoing&CallID=2&Event=hangup&RequestID=513&IsCallRecorded=1"),
    callback(34, "CallType=API&CallID=1&Event=hangup&RequestID=513"),
]
LEFT = [
    callback(0, "CallType=API&CallID=1&Event=pickup&RequestID=513"),
    callback(9, "CallType=API&CallID=1&Event=hangup&RequestID=513"),
]


def _texts(call: Published) -> list[object]:
    return [each["body"]["text"] for each in call_record(call.call(), 1, None, call.bodies)["annotations"]]


def test_two_annotations_at_once_and_their_repeats_are_the_same_record_in_all_orders() -> None:
    first, second = annotation(50, "a", "one"), annotation(40, "b", "two")
    events: list[Event] = [PAIR[3], first, second, replace(first, received_at=at(60))]
    records = []
    for order in itertools.permutations(events):
        fold = Published()
        fold.fold(PAIR[:3])
        for event in order:
            fold.fold([event])
        records.append(call_record(fold.call(), 1, None, fold.bodies))
        assert fold.revision <= 3
    assert all(record == records[0] for record in records)
    assert [(each["at"], each["body"]) for each in records[0]["annotations"]] == [
        (at(40), {"text": "two"}),
        (at(50), {"text": "one"}),
    ]


def test_an_annotation_amends_once_and_a_repeat_with_another_time_does_not() -> None:
    fold = Published()
    fold.fold(PAIR)
    assert fold.revision == 1
    assert fold.fold([annotation(50, "a", "one")]) is not None
    assert fold.fold([annotation(45, "a", "one"), annotation(99, "a", "one")]) is None
    assert fold.fold([annotation(60, "b", "one")]) is not None, "another key is another annotation"
    assert (fold.revision, _texts(fold)) == (3, ["one", "one"])


def test_of_two_annotations_under_one_key_the_first_counts_whatever_arrives_first() -> None:
    for order in itertools.permutations([annotation(50, "a", "one"), annotation(49, "a", "two")]):
        fold = Published()
        fold.fold([*PAIR, *order])
        assert _texts(fold) == ["two"]


def test_a_summary_without_annotations_is_amended_by_one_and_a_digest_is_all_that_it_keeps() -> None:
    fold = Published()
    fold.fold(PAIR)
    before = fold.summary
    fold.fold([annotation(50, "a", "x" * 10_000)])
    assert "annotations" not in before
    assert amends(before, fold.summary)
    assert len(fold.summary) < len(before) + 100
    without_newer = orjson.loads(before)
    del without_newer["asked"]["record"]
    assert amends(orjson.dumps(without_newer).decode(), fold.summary), "as the first release wrote it"
    assert not amends(orjson.dumps(without_newer).decode(), before)


def test_a_rebuild_reads_the_same_summary_from_the_published_record() -> None:
    fold = Published()
    fold.fold([*PAIR, annotation(50, "a", "one"), annotation(51, "b", "two")])
    call = fold.call()
    record = orjson.loads(orjson.dumps(call_record(call, 1, None, fold.bodies)))
    assert published_summary(record, call.started_at, fold.facts, call) == summary(call)


def test_an_annotation_neither_closes_a_call_nor_opens_one_nor_moves_its_times() -> None:
    histories: list[list[Event]] = [[*PAIR], [*PAIR[:3]], [*LEFT], [*LEFT, timer(20)]]
    for events in histories:
        plain, annotated = Published(), Published()
        plain.fold(events)
        annotated.fold([*events, annotation(19.5, "a", "one"), annotation(8000, "b", "two")])
        assert replace(annotated.call(), annotations=()) == plain.call()


def test_an_annotation_of_a_later_use_is_of_that_call_alone() -> None:
    later = [replace(event, received_at=event.received_at.replace("T07", "T19")) for event in PAIR]
    later = [replace(event, query=event.query.replace("CallID=", "CallID=7")) for event in later]
    events: list[Event] = [*PAIR, *later, annotation(90, "a", "first")]
    facts = dict(fact for event in events for fact in facts_of(event, ADAPTER)[1])
    of_second = dict(facts_of(annotation(50_000, "a", "second", "513.2"), ADAPTER)[1])
    second = {name: value for name, value in facts.items() if name.startswith("leg:")} | of_second
    call = derive(CallKey(SOURCE, CallRef("513.2")), second, POLICY)
    assert [each.at for each in derive(KEY, facts, POLICY).annotations] == [at(90)]
    assert ([each.at for each in call.annotations], len(call.legs)) == ([at(50_000)], 2)


def _merged(facts: dict[str, str], published: str, merged_at_s: float) -> StoredCall:
    return StoredCall(facts, 1, PublicationState.PUBLISHED, published, "9", None, milliseconds(at(merged_at_s)))


def test_an_annotation_opens_no_call_again_that_a_rebuild_has_merged_since_it_was_closed_by_silence() -> None:
    fold = Published()
    fold.fold([*LEFT, timer(20)])
    published = fold.summary
    event = annotation(9000, "a", "one")
    fold.fold([event])
    sources = {SOURCE: Source.model_construct(name=SOURCE, secret=None, adapter=ADAPTER, record_legs=frozenset(), country=None)}
    evaluator = Evaluator(sources, POLICY)
    stored = _merged(fold.facts, published, merged_at_s=8000)
    done = evaluator.evaluate({KEY: [event]}, {KEY: stored}, {KEY: fold.bodies})
    assert (list(done.publications), done.wake_ups) == ([KEY], {})
    record = orjson.loads(read_outbox(done.publications[KEY].outbox)[0].body)["data"]
    assert (record["outcome"], record["close_reason"]) == ("agent_hung_up", "settled")
    late = callback(8000, "CallType=API&CallID=1&Event=start&RequestID=513")
    done = evaluator.evaluate({KEY: [event, late]}, {KEY: stored}, {KEY: fold.bodies})
    assert (list(done.publications), list(done.wake_ups)) == ([], [KEY]), "a callback is a sign of life"


def test_the_event_has_the_annotations_and_the_jobs_for_sidecars_have_none() -> None:
    fold = Published()
    fold.fold([*PAIR, annotation(50, "a", "one")])
    event, *jobs = read_outbox(write_outbox(fold.call(), 1, ("agent", "dialed"), bodies=fold.bodies))
    assert [each["body"] for each in orjson.loads(event.body)["data"]["annotations"]] == [{"text": "one"}]
    assert len(jobs) == 2
    assert not any("annotations" in orjson.loads(job.body)["record"] for job in jobs)


def test_an_annotation_is_encoded_and_read_back() -> None:
    event = annotation(0, "a", 'æ \x00 "quoted" \n <script>')
    assert decode(join([encode(event)])) == [event]
    assert read_annotations(dict(facts_of(event, ADAPTER)[1]))[0].size == len(event.body.encode())


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"id": "A" * 32}, "id"),
        ({"id": "0" * 31}, "id"),
        ({"type": "rumour"}, "rumour"),
        ({"by": "x" * 129}, "by is longer"),
        ({"by": None}, "by is not a string"),
        ({"body": []}, "body is not an object"),
        ({"body": {"text": "x" * MAX_BODY_BYTES}}, f"more than {MAX_BODY_BYTES}"),
        ({"call": "513/../7"}, "neither a RequestID"),
        ({"call": None}, "call is not a string"),
    ],
)
def test_an_event_that_is_no_annotation_becomes_a_dead_letter_alone(change: dict[str, object], problem: str) -> None:
    good = encode(annotation(0, "a", "one"))
    bad = orjson.dumps(orjson.loads(good) | change)
    one, two = decode(join([bad, good]))
    assert isinstance(one, Undecodable)
    assert problem in one.problem
    assert isinstance(two, AnnotationEvent)


def test_the_id_is_the_same_on_every_console_and_names_one_call_alone() -> None:
    known = annotation_id("acme", "513", "key")
    assert known == "a16e0ce0f8c7e2a85066911a237a79f2", "a later release finds the annotation of this one"
    others = {annotation_id("acme", "513.2", "key"), annotation_id("beta", "513", "key"), annotation_id("acme", "513", "key2")}
    assert len({known, *others, annotation_id("acme/513", "", "key")}) == 5


def test_a_callback_is_not_taken_for_an_annotation() -> None:
    assert isinstance(decode(join([encode(PAIR[0])]))[0], CallbackEvent)
