from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from itertools import chain

import pytest
from prometheus_client import REGISTRY

from console.durations import ago
from ingress.group_commit import GroupCommit
from shared.amqp.publisher import Message
from shared.config.sources import Source
from shared.domain.adapter_link import SAMPLE_LINK, parse_link
from shared.domain.ids import CallKey, CallRef, SourceName
from shared.domain.raw_event import CallbackEvent, DialEvent, RawEvent, TimerEvent, Undecodable, decode, encode, join
from shared.domain.recording import RecordingJob
from shared.errors import ConfigError, SpoolUnavailableError
from shared.runtime.process import BackgroundEndedError, background
from shared.state.stored_call import PublicationState, StoredCall
from shared.streams.events import topic_matcher
from tests.helpers.pace import LIMIT_S
from tests.helpers.servers import POLICY
from worker.folding.batch import read_batch
from worker.folding.claims import _report_published
from worker.folding.evaluation import Consequences, Evaluator

AT = "2026-11-23T07:44:00.123456Z"
ACME = SourceName("acme")


def test_events_of_every_kind_are_read_back() -> None:
    events: list[RawEvent] = [
        CallbackEvent(ACME, AT, "a=1&b=%20"),
        DialEvent(ACME, AT, 513, {"agent": "1001", "reference": "crm-42"}),
        TimerEvent(ACME, AT, CallRef("513")),
    ]
    assert decode(join(map(encode, events))) == events


@pytest.mark.parametrize(
    "element",
    [
        b"5",
        b"null",
        b"{}",
        b'{"v":1,"kind":"callback","source":"a","received_at":"x","query":""}',
        b'{"v":1,"kind":"callback","source":"a","received_at":"2026-11-23T07:44:00Z","query":""}',
        b'{"v":1,"kind":"callback","source":"a","received_at":"2026-13-23T07:44:00.123456Z","query":""}',
        b'{"v":1,"kind":"fax","source":"a","received_at":"2026-11-23T07:44:00.123456Z","query":""}',
        b'{"v":1,"kind":"dial","source":"a","received_at":"2026-11-23T07:44:00.123456Z","request_id":"5","fields":{}}',
        b'{"v":1,"kind":"callback","source":5,"received_at":"2026-11-23T07:44:00.123456Z","query":""}',
    ],
)
def test_what_is_no_event_comes_back_beside_the_events_that_are(element: bytes) -> None:
    good = CallbackEvent(ACME, AT, "a=1")
    bad, read = decode(join([element, encode(good)]))
    assert isinstance(bad, Undecodable)
    assert bad.problem
    assert read == good


@pytest.mark.parametrize(
    ("pattern", "key", "matches"),
    [
        ("#", "call.completed.acme.answered", True),
        ("call.#", "call.completed.acme.answered", True),
        ("call.#", "call", True),
        ("call.#", "recording.stored.acme", False),
        ("call.*.acme.*", "call.completed.acme.answered", True),
        ("call.*", "call.completed.acme.answered", False),
        ("#.answered", "call.completed.acme.answered", True),
        ("call.#.answered", "call.answered", True),
        ("call.*.acme.answered", "call.completed.other.answered", False),
    ],
)
def test_topic_patterns_mean_what_they_mean_to_rabbitmq(pattern: str, key: str, *, matches: bool) -> None:
    assert topic_matcher(pattern)(key) is matches


def test_durations_have_a_unit() -> None:
    assert ago("1h") > ago("2h")
    assert [ago(age).year for age in ("100000d", "1000000d", f"{10**30}s", "9" * 5000 + "d")] == [1970] * 4
    with pytest.raises(ConfigError):
        ago("soon")


def test_an_amendment_is_not_counted_as_a_completed_call() -> None:
    labels = {"source": "counted", "outcome": "answered"}

    def published(kind: str) -> None:
        message = Message("calls", f"call.{kind}.counted.answered", b"", "counted/513/1")
        _report_published({CallKey(SourceName("counted"), CallRef("513")): [message]})

    for kind in ("completed", "amended", "amended"):
        published(kind)
    assert REGISTRY.get_sample_value("callfold_calls_completed_total", labels) == 1
    assert REGISTRY.get_sample_value("callfold_calls_amended_total", labels) == 2


async def test_timestamps_that_cannot_be_true_are_counted_whichever_callback_told_them() -> None:
    """Once where a callback contradicts itself, once where it is contradicted by another, when that is published."""
    key = CallKey(SourceName("skewed"), CallRef("call-1"))
    adapter = parse_link(SAMPLE_LINK + "&s={{StartTimestampUTC}}&e={{EndTimestampUTC}}")
    source = Source.model_construct(name=key.source, secret=None, adapter=adapter, record_legs=frozenset())
    sources = {key.source: source}
    leg = "CallType=Incoming&CallID=1"
    lines = (f"{leg}&Event=pickup&s=0", f"{leg}&Event=hangup&e=1795412670000", f"{leg}&Event=start&s=1795419840000")
    events = [
        CallbackEvent(key.source, f"2026-11-23T07:44:{second}.000000Z", line)
        for second, line in zip(("00", "30", "00"), lines, strict=True)
    ]
    batch = read_batch(events, sources)
    facts = dict(chain.from_iterable(batch.facts[key]))
    assert _nonsense("skewed") == 1
    Evaluator(sources, POLICY)._evaluate_call(
        key, StoredCall(facts, 0, PublicationState.NONE, "", "1", None), events, Consequences(), {}
    )
    assert _nonsense("skewed") == 2


def _nonsense(source: str) -> float | None:
    return REGISTRY.get_sample_value("callfold_nonsense_timestamps_total", {"source": source})


async def _running(commit: GroupCommit) -> asyncio.Task[None]:
    return asyncio.get_running_loop().create_task(commit.run())


async def test_events_that_arrive_during_a_write_leave_together_in_the_next_one() -> None:
    batches: list[list[bytes]] = []
    writing, go_on = asyncio.Event(), asyncio.Event()

    async def write(batch: object) -> None:
        batches.append(list(batch))  # type: ignore[call-overload]
        writing.set()
        await go_on.wait()

    commit = GroupCommit(write)
    task = await _running(commit)
    first = commit.submit(b"1")
    await asyncio.wait_for(writing.wait(), LIMIT_S)
    others = [commit.submit(b"%d" % number) for number in range(2, 700)]
    assert not first.done()
    go_on.set()
    await asyncio.wait_for(asyncio.gather(first, *others), LIMIT_S)
    assert [len(batch) for batch in batches] == [1, 500, 198]
    assert [event for batch in batches for event in batch] == [b"%d" % number for number in range(1, 700)]
    task.cancel()


async def test_a_batch_that_could_not_be_written_fails_its_events_and_not_the_next() -> None:
    failing = True

    async def write(_: object) -> None:
        if failing:
            raise SpoolUnavailableError("full")

    commit = GroupCommit(write)
    task = await _running(commit)
    with pytest.raises(SpoolUnavailableError):
        await asyncio.wait_for(commit.submit(b"1"), LIMIT_S)
    failing = False
    await asyncio.wait_for(commit.submit(b"2"), LIMIT_S)
    task.cancel()


async def test_too_many_waiting_events_are_refused_at_once() -> None:
    async def write(_: object) -> None:
        await asyncio.Event().wait()

    commit = GroupCommit(write)
    with pytest.raises(SpoolUnavailableError, match="too many"):
        _flood(commit)


def _flood(commit: GroupCommit) -> None:
    for number in range(100_000):
        commit.submit(b"%d" % number)


def test_a_recording_job_is_read_back_and_anything_else_is_refused() -> None:
    job = RecordingJob(
        ACME,
        CallRef("513"),
        513,
        "7",
        None,
        "call-7",
        "agent",
        fetch=True,
        state="waiting",
        recording_url=None,
        started_at=AT,
        record={"a": 1},
    )
    assert RecordingJob.decode(job.encode()) == job
    assert (job.name, job.id) == ("call-7", "acme/513/recording/call-7")
    spoilt = [
        (b'"v":1', b'"v":3'),
        (b'"call-7"', b'"../x"'),
        (b'"acme"', b'"../acme"'),
        (b'"2026-', b'"-'),
        (b'"513"', b'"5/13"'),
    ]
    for body in (b"", b"[]", b'{"v":1}', b'{"v":2,"a":1}', *(job.encode().replace(*change) for change in spoilt)):
        with pytest.raises(ValueError, match=r".*"):
            RecordingJob.decode(body)


async def test_a_background_task_that_ends_takes_its_process_down() -> None:
    async def returns() -> None:
        return

    async def is_cancelled_by_a_library() -> None:
        raise asyncio.CancelledError

    for work in (returns, is_cancelled_by_a_library):
        with pytest.raises(ExceptionGroup) as ended:
            async with background(work()):
                await asyncio.wait_for(asyncio.Event().wait(), LIMIT_S)
        assert ended.group_contains(BackgroundEndedError)


async def test_a_background_task_whose_cancellation_is_swallowed_is_cancelled_again() -> None:
    swallowed: list[str] = []

    async def deaf() -> None:
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                swallowed.append("once")
                if len(swallowed) > 1:
                    raise

    async with asyncio.timeout(LIMIT_S):
        async with background(deaf()):
            await asyncio.sleep(0)
    assert len(swallowed) == 2


async def test_a_generator_with_background_tasks_can_be_left_in_its_middle() -> None:
    ended = asyncio.Event()

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def numbers() -> AsyncGenerator[int, None]:
        async with background(endless()):
            yield 1
            yield 2

    async with aclosing(numbers()) as some:
        assert await anext(some) == 1
        await asyncio.sleep(0)
    assert ended.is_set()
