"""The estimated share of lost callbacks is the share that the simulator drops, whatever else happens to callbacks."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import timedelta
from urllib.parse import urlencode

import pytest

from shared.domain.adapter_link import SAMPLE_LINK, Adapter, make_link, parse_link
from shared.domain.call import Call, derive
from shared.domain.facts import CLOCK, Fact, facts_of
from shared.domain.ids import CallKey, CallRef, SourceName
from shared.domain.lost_callbacks import FEWEST_EXPECTED, Losses, count_losses, estimate_losses
from shared.domain.raw_event import CallbackEvent
from shared.domain.times import rfc3339
from simulator.faults import Faults, inject_faults
from simulator.scenario import Dialed, Scenario, Step, play
from tests.helpers.folding import SOURCE, T0, at
from tests.helpers.servers import POLICY
from tests.helpers.volume import sizes

LINKS = {"every placeholder": parse_link(make_link("http://127.0.0.1", "acme", None)), "sample": parse_link(SAMPLE_LINK)}
_LATER = rfc3339(T0 + timedelta(days=1))
_AT_MS = round(T0.timestamp() * 1000)
# In which proportion the kinds of calls occur.
_KINDS = {
    Scenario.ANSWERED: 5,
    Scenario.AGENT_HANGS_UP_FIRST: 2,
    Scenario.DIALED_MISSED: 2,
    Scenario.AGENT_MISSED: 1,
}


def _calls(adapter: Adapter, calls: int, faults: Faults, seed: int) -> Iterator[Call]:
    """Yield the calls that are left of simulated ones, a day later. Of some of them no callback arrives."""
    rng = random.Random(seed)  # noqa: S311 - a simulation
    for number in range(calls):
        (scenario,) = rng.choices([*_KINDS], [*_KINDS.values()])
        _, steps = play(scenario, Dialed(number, 2 * number, "1001", "4512345678", _AT_MS, recorded=False), rng, speed=1)
        sent, _ = inject_faults(steps, faults, rng)
        facts = {CLOCK: _LATER}
        for step in sent:
            for name, value in _facts(adapter, step):
                facts[name] = min(value, facts.get(name, value))
        if len(facts) > 1:
            yield derive(CallKey(SOURCE, CallRef(str(number))), facts, POLICY)


def _facts(adapter: Adapter, step: Step) -> list[Fact]:
    query = urlencode({name: step.values.get(meaning, "") for name, meaning in adapter.meanings.items()})
    return facts_of(CallbackEvent(SOURCE, at(step.at_s), query), adapter)[1]


def _losses(calls: Iterator[Call]) -> Losses:
    counts = [count_losses(call) for call in calls]
    return Losses(sum(each.expected for each in counts), sum(each.lost for each in counts))


# Enough calls that the statistical error of the estimate is at most a third of what is allowed, except in the small sizes.
@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize(
    ("drop", "calls"),
    [
        pytest.param(0.01, 14_000, marks=pytest.mark.volume),
        pytest.param(0.02, 7_000, marks=pytest.mark.volume),
        pytest.param(0.05, 3_000, marks=pytest.mark.volume),
        pytest.param(0.10, 1_400, marks=pytest.mark.volume),
        pytest.param(0.20, 700, marks=pytest.mark.volume),
        (0.05, 600),
        (0.20, 300),
    ],
)
def test_the_estimate_is_within_a_fifth_of_the_truth(link: str, drop: float, calls: int) -> None:
    losses = _losses(_calls(LINKS[link], calls, Faults(drop=drop, duplicate=0.1, reorder=0.1), seed=11))
    estimate = estimate_losses(losses)
    assert estimate is not None
    assert abs(estimate.share - drop) <= drop / 5, (estimate, losses)
    assert estimate.low < drop < estimate.high


@pytest.mark.parametrize("runs", sizes(4, 60))
def test_the_estimate_has_no_bias(runs: int) -> None:
    """Over many runs with heavy losses, the errors of the estimates cancel out."""
    drop, calls = 0.2, 150
    counts = [
        _losses(_calls(LINKS["sample"], calls, Faults(drop=drop, duplicate=0.2, reorder=0.2), seed)) for seed in range(runs)
    ]
    expected, lost = (sum(each) for each in zip(*counts, strict=True))
    assert abs(lost / expected - drop) < 4 * (drop * (1 - drop) / expected) ** 0.5


@pytest.mark.parametrize("link", LINKS)
def test_without_losses_nothing_seems_lost(link: str) -> None:
    losses = _losses(_calls(LINKS[link], 100, Faults(duplicate=0.3, reorder=0.3, delay=0.3), seed=3))
    assert losses.lost == 0
    assert losses.expected > FEWEST_EXPECTED


def test_few_calls_say_nothing() -> None:
    assert estimate_losses(Losses(FEWEST_EXPECTED - 1, 50)) is None
    estimate = estimate_losses(Losses(FEWEST_EXPECTED, 0))
    assert estimate is not None
    assert (estimate.share, estimate.low) == (0, 0)
    assert 0.01 < estimate.high < 0.02


def _receipts(*names: str) -> dict[str, str]:
    return {CLOCK: _LATER} | {f"leg:{name}": at(second) for second, name in enumerate(names)}


@pytest.mark.parametrize(
    ("facts", "losses"),
    [
        pytest.param(_receipts("API:7:pickup", "Outgoing:8:pickup"), Losses(3, 2), id="both hangups are lost"),
        pytest.param(_receipts("Outgoing:8:hangup"), Losses(2, 2), id="the whole leg of the agent is lost"),
        pytest.param(_receipts("Outgoing:8:missed", "API:7:hangup"), Losses(2, 1), id="the pickup of the agent is lost"),
        pytest.param(_receipts("API:7:hangup"), Losses(), id="picked up or missed, which is unknown"),
        pytest.param(_receipts("API:7:pickup", "API:7:hangup"), Losses(1, 0), id="a leg alone"),
        pytest.param(
            _receipts("API:6:hangup", "API:6:missed", "API:7:pickup", "Outgoing:8:hangup"), Losses(2, 1), id="two agents"
        ),
    ],
)
def test_what_callbacks_prove(facts: dict[str, str], losses: Losses) -> None:
    assert count_losses(derive(CallKey(SOURCE, CallRef("513")), facts, POLICY)) == losses


def test_a_call_without_request_id_proves_its_hangup_and_a_login_proves_nothing() -> None:
    key = CallKey(SourceName("acme"), CallRef("call-7"))
    assert count_losses(derive(key, _receipts("Incoming:7:pickup"), POLICY)) == Losses(1, 1)
    assert count_losses(derive(key, _receipts("Login:7:pickup"), POLICY)) == Losses()


def test_an_open_call_proves_nothing_yet() -> None:
    facts = _receipts("API:7:pickup", "Outgoing:8:pickup") | {CLOCK: at(60)}
    assert count_losses(derive(CallKey(SOURCE, CallRef("513")), facts, POLICY)) == Losses()
