"""No timer overtakes a callback that is not folded yet, whatever process stands still, dies or comes, between any two steps."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from shared.amqp.in_flight import InFlight
from shared.domain.barrier import NEVER_CONSUMED_MS, Member, Reports, Round, Spool, complete_round, folded_until
from tests.helpers.barrier_model import Channel, Model
from tests.helpers.volume import sizes

CHANNELS = st.integers(0, 3)
SMALL = st.integers(0, 2)


class BarrierMachine(RuleBasedStateMachine):
    """Any step of any process at any time, as hypothesis chooses."""

    def __init__(self) -> None:
        super().__init__()
        self.model = _at_work(2)

    def channel(self, number: int) -> Channel:
        """One of the latest channels: the broker has long forgotten the others."""
        return self.model.channels[-1 - number % min(4, len(self.model.channels))]

    @rule(ms=st.sampled_from([1, 1, 5, 70_000]))
    def time_passes(self, ms: int) -> None:
        self.model.wait(ms)

    @rule()
    def a_callback_is_confirmed(self) -> None:
        self.model.confirm_callback()

    @rule()
    def a_worker_registers(self) -> None:
        self.model.register()

    @precondition(lambda self: self.model.channels)
    @rule(number=CHANNELS)
    def a_worker_consumes(self, number: int) -> None:
        self.model.consume(self.channel(number))

    @precondition(lambda self: self.model.channels and self.model.ready)
    @rule(number=CHANNELS, count=SMALL)
    def the_broker_delivers(self, number: int, count: int) -> None:
        for _ in range(1 + count):
            self.model.deliver(self.channel(number))

    @precondition(lambda self: self.model.channels)
    @rule(number=CHANNELS, choice=SMALL)
    def a_worker_folds(self, number: int, choice: int) -> None:
        self.model.read(self.channel(number))
        self.model.settle(self.channel(number), choice)

    @precondition(lambda self: self.model.channels)
    @rule(number=CHANNELS)
    def a_worker_reads(self, number: int) -> None:
        self.model.read(self.channel(number))

    @precondition(lambda self: self.model.channels)
    @rule(number=CHANNELS)
    def a_worker_reports(self, number: int) -> None:
        self.model.report(self.channel(number))

    @precondition(lambda self: self.model.channels)
    @rule(number=CHANNELS, order=SMALL)
    def the_broker_closes_a_channel(self, number: int, order: int) -> None:
        self.model.close(self.channel(number), order)

    @precondition(lambda self: self.model.channels)
    @rule(number=CHANNELS)
    def a_worker_stops(self, number: int) -> None:
        self.model.cancel(self.channel(number))

    @precondition(lambda self: self.model.channels)
    @rule(number=CHANNELS)
    def a_worker_changes_its_prefetch(self, number: int) -> None:
        self.model.renew(self.channel(number))

    @precondition(lambda self: self.model.channels)
    @rule(number=CHANNELS)
    def a_worker_unregisters(self, number: int) -> None:
        self.model.unregister(self.channel(number))

    @rule(frozen=CHANNELS, seed=st.integers(0, 1000))
    def all_but_one_go_on(self, frozen: int, seed: int) -> None:
        channels = [channel for channel in self.model.channels if channel is not self.channel(frozen)]
        _calm(random.Random(seed), self.model, channels)  # noqa: S311 - a seed, no secret

    @rule()
    def a_round_is_opened(self) -> None:
        self.model.open_round()

    @precondition(lambda self: self.model.openings)
    @rule(number=SMALL, steps=st.integers(1, 6))
    def a_round_goes_on(self, number: int, steps: int) -> None:
        opening = self.model.openings[-1 - number % len(self.model.openings)]
        for _ in range(steps):
            self.model.go_on(opening)

    @invariant()
    def what_timers_go_by_is_folded(self) -> None:
        self.model.conclude()

    def teardown(self) -> None:
        """Whatever came before, the barrier moves on once who stopped has gone, and everybody else goes on."""
        for channel in self.model.channels:
            if channel.is_cancelled:
                self.model.close(channel, 0)
        self.model.register()
        for channel in self.model.channels:
            self.model.consume(channel)
        self.model.wait(NEVER_CONSUMED_MS)  # for who registered and died
        before = self.model.moves
        for _ in range(3):
            _pass_together(self.model, self.model.receivers())
        assert self.model.moves > before, "a barrier that stands still proves nothing"


@pytest.mark.parametrize("examples", sizes(200, 20_000))
def test_no_history_that_hypothesis_finds_overtakes_a_callback(examples: int) -> None:
    run_state_machine_as_test(
        BarrierMachine,
        settings=settings(max_examples=examples, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck)),
    )


def _walk(seed: int, turns: int) -> int:
    """One long random history: chaos and calm in turn. Returns how many times the barrier moved on."""
    chance = random.Random(seed)  # noqa: S311 - a seed, no secret
    model = Model()
    for _ in range(turns):
        for _ in range(chance.randrange(12)):
            _any_step(chance, model)
            model.conclude()
        for _ in range(chance.randrange(4)):
            frozen = chance.choice([*model.channels[-3:], None, None])
            _calm(chance, model, [channel for channel in model.channels if channel is not frozen])
    return model.moves


def _any_step(chance: random.Random, model: Model) -> None:
    """One step of one process, or of the broker; what is closed goes on for a while with what it has read."""
    open_ = [channel for channel in model.channels if not channel.is_closed]
    if len(open_) < 2 or (len(open_) < 4 and chance.random() < 0.1):
        model.register()
        return
    one = chance.choice([*open_, *open_, *model.channels[-5:]])
    steps: dict[Callable[[], None], int] = {
        lambda: model.wait(70_000 if chance.random() < 0.05 else 1): 2,
        lambda: model.consume(one): 2,
        model.confirm_callback: 3,
        lambda: model.deliver(one): 4,
        lambda: model.read(one): 3,
        lambda: model.settle(one, chance.randrange(3)): 3,
        lambda: model.report(one): 3,
        model.open_round: 1,
        lambda: _go_on(chance, model): 6,
        lambda: model.close(one, chance.randrange(3)): 1,
        lambda: model.cancel(one): 1,
        lambda: model.renew(one): 1,
        lambda: model.unregister(one): 1,
    }
    chance.choices([*steps], [*steps.values()])[0]()


def _go_on(chance: random.Random, model: Model) -> None:
    if model.openings:
        model.go_on(chance.choice(model.openings[-3:]))


def _calm(chance: random.Random, model: Model, running: list[Channel]) -> None:
    """Everybody who runs takes all the steps there are for it to take, in an order of chance."""
    model.wait(chance.randrange(1, 20))
    model.confirm_callback()
    model.open_round()
    opening = model.openings[-1]
    begin: list[Callable[[], None]] = [partial(model.consume, channel) for channel in running]
    begin += [partial(model.go_on, opening)] * (2 + len(running))
    begin += [lambda: model.deliver(chance.choice(running))] * (chance.randrange(6) if running else 0)
    chance.shuffle(begin)
    for step in begin:
        step()
    takers = model.receivers()
    while model.ready and takers:
        chance.shuffle(takers)
        for channel in takers:
            model.deliver(channel)
    for channel in running:
        for _ in range(len(channel.stream) - channel.oldest):
            model.read(channel)
            model.settle(channel, 0)
        model.report(channel)
        model.conclude()


@pytest.mark.parametrize("seeds", sizes(10, 2000))
def test_in_random_histories_the_barrier_moves_on_and_is_never_wrong(seeds: int) -> None:
    moved = sum(_walk(seed, 60) for seed in range(seeds))
    assert moved > 5 * seeds, "a barrier that stands still proves nothing"


def _at_work(count: int) -> Model:
    """Workers that have passed a round together, and settled everything."""
    model = Model()
    for _ in range(count):
        model.register()
        model.consume(model.channels[-1])
    for _ in range(2):
        _pass_together(model, model.channels)
    assert model.concluded_ms is not None
    return model


def _pass_together(model: Model, channels: list[Channel], *, opening: int = -1) -> None:
    model.wait(1)
    if opening == -1:
        model.open_round()
    for _ in range(2 + len(model.channels)):
        model.go_on(model.openings[opening])
    _settle_all(model, channels)


def _settle_all(model: Model, channels: list[Channel]) -> None:
    """Give everything that waits to these channels, one each in turn; they fold and report it."""
    while model.ready:
        for channel in channels:
            model.deliver(channel)
    for channel in channels:
        for _ in channel.stream:
            model.read(channel)
            model.settle(channel, 0)
        model.report(channel)
    model.conclude()


def _frozen_with_a_callback(model: Model) -> Channel:
    frozen = model.channels[0]
    model.confirm_callback()
    model.deliver(frozen)
    return frozen


def test_a_consumer_that_stands_still_holds_the_barrier_until_its_connection_is_closed() -> None:
    model = _at_work(3)
    frozen, others = _frozen_with_a_callback(model), model.channels[1:]
    before = model.concluded_ms
    for _ in range(5):
        _pass_together(model, others)
        assert model.concluded_ms == before
    model.close(frozen, 0)
    for _ in range(2):
        _pass_together(model, others)
    assert (model.concluded_ms or 0) > (before or 0)


def test_a_count_that_comes_late_does_not_count() -> None:
    """The worker that opened the round stands still. It counts after others have passed a later one, and one of them is gone by then."""
    model = _at_work(3)
    _frozen_with_a_callback(model)
    model.wait(1)
    model.open_round()
    late = model.openings[-1]
    _pass_together(model, model.channels[1:])
    model.close(model.channels[2], 0)
    for _ in range(5):
        model.go_on(late)
    model.conclude()
    assert late.to_send == 0


def test_a_newcomer_that_took_what_waited_ahead_of_the_markers_holds_the_barrier() -> None:
    model = _at_work(2)
    before = model.concluded_ms
    model.register()
    newcomer, others = model.channels[2], model.channels[:2]
    model.confirm_callback()
    model.wait(1)
    model.open_round()
    model.go_on(model.openings[-1])  # counted, when the newcomer did not consume yet
    model.consume(newcomer)
    model.deliver(newcomer)
    for _ in range(3):
        model.go_on(model.openings[-1])
    _settle_all(model, others)
    assert model.concluded_ms == before


def test_a_consumer_that_stops_holds_the_barrier_until_what_it_had_is_settled_or_back_and_passed() -> None:
    model = _at_work(2)
    leaving, other = _frozen_with_a_callback(model), model.channels[1]
    before = model.concluded_ms
    model.cancel(leaving)
    _pass_together(model, [other])
    assert model.concluded_ms == before
    model.close(leaving, 0)
    model.conclude()
    assert model.concluded_ms == before
    _pass_together(model, [other])
    assert (model.concluded_ms or 0) > (before or 0)


def test_a_consumer_whose_prefetch_changed_holds_the_barrier_until_what_it_had_is_settled() -> None:
    model = _at_work(2)
    old, other = _frozen_with_a_callback(model), model.channels[1]
    before = model.concluded_ms
    model.renew(old)
    new = model.channels[2]
    model.consume(new)
    for _ in range(2):
        _pass_together(model, [other, new])
        model.unregister(old)
        assert model.concluded_ms == before
    model.read(old)
    model.settle(old, 0)
    model.unregister(old)
    for _ in range(2):
        _pass_together(model, [other, new])
    assert (model.concluded_ms or 0) > (before or 0)


def test_one_that_registered_and_never_consumed_holds_the_barrier_for_a_minute_and_no_longer() -> None:
    model = _at_work(2)
    model.register()
    before = model.concluded_ms
    _pass_together(model, model.channels[:2])
    assert model.concluded_ms == before
    model.wait(NEVER_CONSUMED_MS)
    _pass_together(model, model.channels[:2])
    assert (model.concluded_ms or 0) > (before or 0)


def test_a_queue_that_does_not_answer_in_time_has_no_consumers_and_proves_nothing() -> None:
    assert complete_round([Round(7, 7, 0)], []) is None


def test_markers_pass_in_the_order_of_deliveries_and_only_once_all_before_them_is_settled() -> None:
    in_flight = InFlight("a")
    for tag, marker in ((1, None), (2, 71), (3, None), (4, 72)):
        in_flight.add(tag, marker)
    in_flight.settle(2)
    assert in_flight.passed_round == 0, "what came before the marker is not settled"
    in_flight.settle(4)
    in_flight.settle(1)
    assert in_flight.passed_round == 71
    in_flight.settle(3)
    assert in_flight.passed_round == 72


def test_a_spool_of_one_source_holds_the_timers_of_that_source_only() -> None:
    rounds, members = [Round(2, 2000, 1)], [Member("a", 0, at_work_since=1, passed=2)]
    spools = [Spool("1/acme", 500, 2000), Spool("2/acme", 700, 2000), Spool("3/other", None, 2000), Spool("4/late", 2500, 2000)]
    until = folded_until(Reports(rounds, members, spools, 2000))
    assert until is not None
    assert (until.ms, until.of("acme"), until.of("other"), until.of("late")) == (2000, 500, 2000, 2000)
    until = folded_until(Reports(rounds, members, [*spools, Spool("5", 600, 2000)], 2000))
    assert until is not None
    assert (until.ms, until.of("acme"), until.of("other")) == (600, 500, 600)
    assert until.before(100).of("acme") == 400
