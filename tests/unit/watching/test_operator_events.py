"""Operator events: whatever workers observe, and wherever they die, raised and cleared alternate, and each id has one body."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared import metrics
from shared.amqp.publisher import Message
from shared.amqp.single_publish import publish_alone
from shared.amqp.topology import OPS
from shared.domain.condition import Kind, Observation, confirmed, observed, read_record
from shared.domain.times import rfc3339
from shared.errors import BrokerUnavailableError
from shared.runtime.ops_reporter import LEASE_S, OpsReporter
from tests.helpers.pace import LIMIT_S

START = datetime(2026, 11, 30, 12, tzinfo=UTC)
HOLD_S = 60.0
SUBJECT = "archive"


class KilledError(Exception):
    """The worker dies here."""


@dataclass
class System:
    """Redis, RabbitMQ and the clock of several workers; the next worker dies at the given step of its I/O, if any."""

    now: datetime = START
    records: dict[str, bytes] = field(default_factory=dict)
    published: list[Message] = field(default_factory=list)
    is_down: bool = False
    steps_left: int | None = None

    def clock(self) -> str:
        return rfc3339(self.now)

    def seconds(self) -> float:
        return self.now.timestamp()

    def _step(self) -> None:
        if self.steps_left is not None:
            self.steps_left -= 1
            if self.steps_left < 0:
                raise KilledError

    async def read(self) -> dict[str, bytes]:
        return dict(self.records)

    async def swap(self, name: str, before: bytes | None, after: bytes | None) -> bool:
        self._step()
        if self.records.get(name) != before:
            return False
        self.records.pop(name, None)
        if after is not None:
            self.records[name] = after
        self._step()
        return True

    async def publish(self, message: Message) -> None:
        self._step()
        if self.is_down:
            raise BrokerUnavailableError("RabbitMQ is away")
        self.published.append(message)
        self._step()

    def worker(self, name: str) -> OpsReporter:
        return OpsReporter(self, self.publish, holder=name, now=self.clock, hold_s=HOLD_S, clock=self.seconds)

    def first_publications(self) -> list[Message]:
        return list({message.message_id: message for message in self.published}.values())

    def states(self) -> list[str]:
        return [message.message_id.rpartition("/")[2] for message in self.first_publications()]


def _seen(system: System, *, is_bad: bool, ago_s: float = 0) -> Observation:
    at = rfc3339(system.now - timedelta(seconds=ago_s))
    return Observation(Kind.ARCHIVE_AWAY, SUBJECT, is_bad=is_bad, at=at, detail=f"seen at {at}", figures={"ago": ago_s})


def _assert_sound(system: System) -> None:
    bodies: dict[str, bytes] = {}
    for message in system.published:
        assert bodies.setdefault(message.message_id, message.body) == message.body
    states = system.states()
    assert states == ["raised", "cleared"] * (len(states) // 2) + ["raised"] * (len(states) % 2)
    times = [orjson.loads(message.body)["time"] for message in system.first_publications()]
    assert times == sorted(times)


STEPS = st.lists(
    st.tuples(
        st.integers(0, 2),  # the worker
        st.booleans(),  # what it sees
        st.sampled_from([0, 3, 300]),  # since when, in seconds
        st.sampled_from([0.5, 5, 61, 1000]),  # until the next step
        st.booleans(),  # whether RabbitMQ is away
        st.none() | st.integers(0, 12),  # the step of its I/O at which it dies
    ),
    max_size=25,
)


@settings(max_examples=40, deadline=None)
@given(STEPS)
async def test_events_alternate_and_each_id_has_one_body(
    steps: Iterable[tuple[int, bool, float, float, bool, int | None]],
) -> None:
    system = System()
    workers = {number: system.worker(f"worker-{number}") for number in range(3)}
    for number, is_bad, ago_s, pause_s, is_down, dies_at in steps:
        system.is_down, system.steps_left = is_down, dies_at
        try:
            await workers[number].report([_seen(system, is_bad=is_bad, ago_s=ago_s)], configured={}, may_publish=True)
        except KilledError:
            workers[number] = system.worker(f"worker-{number}-{len(system.published)}-{system.now}")
        _assert_sound(system)
        system.now += timedelta(seconds=pause_s)
    system.is_down, system.steps_left = False, None
    for _ in range(4):  # in the end everything is good, and published
        system.now += timedelta(seconds=HOLD_S + LEASE_S)
        await workers[0].report([_seen(system, is_bad=False)], configured={}, may_publish=True)
    _assert_sound(system)
    record = read_record(system.records.get(f"archive_away/{SUBJECT}"))
    assert record is None or (record.event is None and not record.is_raised)
    assert len(system.states()) % 2 == 0


@pytest.mark.parametrize("dies_at", range(8))
async def test_another_worker_publishes_the_bytes_of_one_that_died(dies_at: int) -> None:
    system = System(steps_left=dies_at)
    with suppress(KilledError):
        await system.worker("first").report([_seen(system, is_bad=True, ago_s=7)], configured={}, may_publish=True)
    stored = read_record(next(iter(system.records.values()), None))
    body = stored.event.body.encode() if stored and stored.event else None
    system.steps_left = None
    system.now += timedelta(seconds=LEASE_S + 1)
    await system.worker("second").report([_seen(system, is_bad=True)], configured={}, may_publish=True)
    assert system.states() == ["raised"]
    if body is not None:
        assert {message.body for message in system.published} == {body}


async def test_workers_that_see_the_same_publish_it_once() -> None:
    system = System()
    workers = [system.worker(f"worker-{number}") for number in range(3)]
    for is_bad in (True, False):
        for _ in range(30):
            for worker in workers:
                await worker.report([_seen(system, is_bad=is_bad)], configured={}, may_publish=True)
            system.now += timedelta(seconds=5)
    assert [message.routing_key for message in system.published] == ["ops.archive_away.raised", "ops.archive_away.cleared"]
    raised, cleared = (orjson.loads(message.body) for message in system.published)
    assert raised["time"] == raised["data"]["since"] == cleared["data"]["since"] == rfc3339(START)
    assert cleared["time"] == cleared["data"]["cleared_at"] == rfc3339(START + timedelta(seconds=150))
    assert (raised["source"], raised["subject"], raised["type"]) == ("/callfold/ops", SUBJECT, "callfold.ops.archive_away.v1")


async def test_nothing_is_raised_before_the_last_clear_is_published() -> None:
    system = System()
    worker = system.worker("worker")
    for number, is_bad in enumerate([True, *[False] * 3, *[True] * 3]):
        system.is_down = 0 < number < 6
        await worker.report([_seen(system, is_bad=is_bad)], configured={}, may_publish=True)
        system.now += timedelta(seconds=HOLD_S)
    assert system.states() == ["raised", "cleared"]
    await worker.report([_seen(system, is_bad=True)], configured={}, may_publish=True)
    assert system.states() == ["raised", "cleared", "raised"]


async def test_a_condition_that_comes_and_goes_is_one() -> None:
    system = System()
    worker = system.worker("worker")
    for number in range(200):
        await worker.report([_seen(system, is_bad=number % 2 == 0)], configured={}, may_publish=True)
        system.now += timedelta(seconds=HOLD_S / 2)
    assert system.states() == ["raised"]
    assert metrics.OPS_CONDITIONS.labels("archive_away")._value.get() == 1


async def test_what_redis_has_lost_is_stored_again() -> None:
    system = System()
    worker = system.worker("worker")
    await worker.report([_seen(system, is_bad=True)], configured={}, may_publish=True)
    system.records.clear()
    for _ in range(3):
        await worker.report([_seen(system, is_bad=False)], configured={}, may_publish=True)
        system.now += timedelta(seconds=HOLD_S)
    assert system.states() == ["raised", "cleared"]


@pytest.mark.parametrize("later", [0, 1])
async def test_a_redis_that_returns_to_an_earlier_state_clears_nothing_twice(later: int) -> None:
    system = System()
    worker = system.worker("worker")
    await worker.report([_seen(system, is_bad=True)], configured={}, may_publish=True)
    earlier = dict(system.records)
    for is_bad in [False, False, *[True] * later, False, False]:
        system.now += timedelta(seconds=HOLD_S)
        await worker.report([_seen(system, is_bad=is_bad)], configured={}, may_publish=True)
    system.records = earlier
    for _ in range(3):
        system.now += timedelta(seconds=HOLD_S)
        await worker.report([_seen(system, is_bad=False)], configured={}, may_publish=True)
    _assert_sound(system)
    assert len(system.published) == 2 + 2 * later


async def test_a_trouble_that_was_raised_by_a_clock_far_ahead_is_cleared_once_the_clock_is_right() -> None:
    system = System(now=START + timedelta(days=4000), is_down=True)
    await system.worker("first").report([_seen(system, is_bad=True)], configured={}, may_publish=True)
    system.now, system.is_down = START, False
    worker = system.worker("second")
    for _ in range(4):
        await worker.report([_seen(system, is_bad=False)], configured={}, may_publish=True)
        system.now += timedelta(seconds=HOLD_S)
    assert system.states() == ["raised", "cleared"]
    assert orjson.loads(system.published[-1].body)["time"] <= system.clock()


async def test_a_subject_that_is_not_configured_any_more_is_cleared() -> None:
    system = System()
    worker = system.worker("worker")
    await worker.report([_seen(system, is_bad=True)], configured={}, may_publish=True)
    configured: list[dict[Kind, list[str]]] = [{Kind.SPOOLING: []}, {Kind.ARCHIVE_AWAY: [SUBJECT]}, {Kind.ARCHIVE_AWAY: []}]
    for number, of_kinds in enumerate(configured):
        for _ in range(3):
            system.now += timedelta(seconds=HOLD_S)
            await worker.report([], configured=of_kinds, may_publish=True)
        assert system.states() == ["raised", "cleared"][: 1 + number // 2]


async def test_a_failed_publish_is_repeated_less_and_less_often() -> None:
    system = System(is_down=True)
    worker = system.worker("worker")
    attempts = []

    async def refuse(message: Message) -> None:
        attempts.append(system.now)
        raise BrokerUnavailableError(message.exchange)

    worker._publish = refuse
    for _ in range(300):
        await worker.report([_seen(system, is_bad=True)], configured={}, may_publish=True)
        system.now += timedelta(seconds=1)
    assert 6 <= len(attempts) <= 8
    assert len(system.records) == 1


def test_the_record_of_a_later_release_changes_nothing() -> None:
    assert read_record(b'{"kind":"new_kind"}') is None
    assert read_record(b"\xff") is None


@pytest.mark.parametrize(
    "damage", ["since", "bad_at", "good_at", "cleared_at", "leased_until", "subject", "detail", "event.body"]
)
@pytest.mark.parametrize("value", ["x", 7, ["2026-11-30T12:00:00.000000Z"], "2026-11-30"])
async def test_a_damaged_record_ends_no_process(damage: str, value: object) -> None:
    system = System(is_down=True)
    await system.worker("first").report([_seen(system, is_bad=True)], configured={}, may_publish=True)
    ((name, text),) = system.records.items()
    row = orjson.loads(text)
    of, _, key = damage.rpartition(".")
    (row[of] if of else row)[key] = value
    system.records[name] = orjson.dumps(row)
    system.is_down = False
    system.now += timedelta(days=1)
    for is_bad in (True, False, False):
        await system.worker("second").report([_seen(system, is_bad=is_bad)], configured={}, may_publish=True)
        system.now += timedelta(seconds=HOLD_S)
    assert "raised" in system.states()


def test_a_second_trouble_never_has_the_time_of_the_first() -> None:
    seen = _seen(System(), is_bad=True)
    later = rfc3339(START + timedelta(seconds=1))
    raised = observed(None, seen, now=rfc3339(START), hold_s=0)
    assert raised is not None
    assert raised.event is not None
    cleared = observed(confirmed(raised, raised.event.id), replace(seen, is_bad=False), now=later, hold_s=0)
    assert cleared is not None
    assert cleared.event is not None
    again = observed(confirmed(cleared, cleared.event.id), seen, now=later, hold_s=0)
    assert again is not None
    assert again.event is not None
    assert again.since > cleared.cleared_at
    assert again.event.id != raised.event.id


async def test_a_rabbitmq_that_does_not_answer_is_an_error() -> None:
    event = Message(OPS, "ops.archive_away.raised", b"{}", "id")
    with pytest.raises(BrokerUnavailableError):
        await publish_alone(["amqp://guest:guest@127.0.0.1:1/"], "tests", event, timeout_s=LIMIT_S)
