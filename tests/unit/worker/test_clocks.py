"""Clocks that are wrong: no call is closed early by the clock of an ingress, no event is received in the future, and it is said."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest
from aiormq.channel import Channel
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from shared.amqp.delivery import Delivery
from shared.amqp.topology import MARKER, MARKER_BODY, SENT_AT, SENT_BY
from shared.domain.call import derive
from shared.domain.closing import Policy
from shared.domain.facts import CLOCK
from shared.domain.ids import CallKey, CallRef, SourceName
from shared.domain.raw_event import CallbackEvent, DialEvent, RawEvent, TimerEvent, Undecodable
from shared.domain.sender_clock import latest_time, moved_back
from shared.domain.times import milliseconds, rfc3339
from shared.outage import Outage
from shared.runtime import store_watch
from shared.state import redis_clock
from shared.state.pbx_clocks import PbxClockNote
from shared.state.redis_clock import RedisClock
from worker.folding import ingress_clocks, pbx_clocks
from worker.folding.ingress_clocks import IngressClocks
from worker.folding.pbx_clocks import PbxClocks

SOURCE = SourceName("acme")
KEY = CallKey(SOURCE, CallRef("513"))
POLICY = Policy(settle_s=10, leg_grace_s=120, max_call_s=14400)
TRUE = datetime(2026, 11, 23, 7, 44, tzinfo=UTC)
MINUTES_10, DAYS_3 = timedelta(minutes=10), timedelta(days=3)


def _at(seconds: float, wrong: timedelta = timedelta()) -> str:
    return rfc3339(TRUE + timedelta(seconds=seconds) + wrong)


@pytest.mark.parametrize("wrong", [-DAYS_3, -MINUTES_10, timedelta()])
def test_silence_is_counted_from_the_merge_not_by_the_clock_of_ingress(wrong: timedelta) -> None:
    facts = {"leg:API:1:pickup": _at(0, wrong), "leg:API:1:hangup": _at(5, wrong)}
    merged_ms = milliseconds(_at(5))
    assert derive(KEY, facts, POLICY, merged_at_ms=merged_ms).wake_at == _at(15)
    early = derive(KEY, facts | {CLOCK: _at(14.9)}, POLICY, merged_at_ms=merged_ms)
    assert (early.closing, early.wake_at) == (None, _at(15))
    closed = derive(KEY, facts | {CLOCK: _at(15)}, POLICY, merged_at_ms=merged_ms)
    assert closed.closing is not None
    assert (closed.started_at, closed.ended_at) == (_at(0, wrong), _at(5, wrong)), "the merge dates nothing"


def test_an_old_timer_closes_no_call_whose_next_callback_comes_from_a_clock_that_is_behind() -> None:
    facts = {CLOCK: _at(100), "leg:API:1:pickup": _at(0, -MINUTES_10), "leg:API:1:hangup": _at(101, -MINUTES_10)}
    assert derive(KEY, facts, POLICY, merged_at_ms=milliseconds(_at(101))).closing is None


@pytest.mark.parametrize("ahead", [MINUTES_10, DAYS_3])
@pytest.mark.parametrize("is_sent_known", [True, False])
def test_what_a_clock_ahead_received_is_moved_back_as_a_whole(ahead: timedelta, *, is_sent_known: bool) -> None:
    """Times between the events of a message stay. How long the message took can at most shorten them."""
    events: list[RawEvent | Undecodable] = [
        CallbackEvent(SOURCE, _at(0, ahead), "a=1"),
        DialEvent(SOURCE, _at(2, ahead), 513, {}),
    ]
    now = TRUE + timedelta(seconds=3)
    latest = latest_time(events, _at(3, ahead) if is_sent_known else "")
    moved = moved_back([*events, TimerEvent(SOURCE, _at(9), CallRef("513")), Undecodable(b"x", "bad")], latest, now)
    late = 0 if is_sent_known else 1
    assert [getattr(event, "received_at", "") for event in moved] == [_at(late), _at(2 + late), _at(9), ""]


def test_a_time_that_no_clock_shows_moves_no_other_event() -> None:
    events = [CallbackEvent(SOURCE, "8999-01-01T00:00:00.000000Z", "a=1"), CallbackEvent(SOURCE, _at(1), "b=1")]
    moved = moved_back(events, latest_time(events, ""), TRUE + timedelta(seconds=5))
    assert [getattr(event, "received_at", "") for event in moved] == [_at(5), _at(1)]


class _Time:
    """The local clock and the monotonic one, as a test sets them."""

    def __init__(self) -> None:
        self.local_s, self.monotonic_s = TRUE.timestamp(), 50.0

    def time(self) -> float:
        return self.local_s

    def monotonic(self) -> float:
        return self.monotonic_s


def test_the_clock_of_redis_goes_on_when_the_local_one_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    here = _Time()
    monkeypatch.setattr(redis_clock, "time", here)
    clock = RedisClock()
    assert (clock.now(), clock.offset_s) == (TRUE, None)
    clock.measured(TRUE.timestamp() - 600, began=49.9, ended=50.0)
    assert clock.offset_s == pytest.approx(600, abs=0.1)
    here.local_s += 86_400
    here.monotonic_s += 30
    assert abs(clock.now() - (TRUE - timedelta(seconds=570))) < timedelta(seconds=0.1)
    clock.measured(0, began=0, ended=40)
    assert clock.offset_s == pytest.approx(600, abs=0.1), "a slow answer says nothing"


def test_a_process_says_once_that_its_clock_is_off_and_once_that_it_agrees() -> None:
    with capture_logs() as lines:
        for offset_s in (0.4, -0.9, 600.0, 601.0, 602.0, None, 0.1, 0.1):
            store_watch.report_clock(offset_s)
    assert [(line["event"], line.get("offset_s")) for line in lines] == [("clock_differs", 600.0), ("clock_agrees", None)]
    assert "ahead of that of Redis" in lines[0]["detail"]
    assert REGISTRY.get_sample_value("callfold_clock_offset_seconds") == pytest.approx(0.1)


class _Machines:
    """Deliveries of machines whose clocks are off, at a time that the test moves on."""

    def __init__(self) -> None:
        self.true_s = TRUE.timestamp()
        self.clocks = IngressClocks(cast("RedisClock", self))

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.true_s, UTC)

    def deliver(self, name: str, offset_s: float, *, waited_s: float = 0.01) -> None:
        sent = rfc3339(self.now() + timedelta(seconds=offset_s - waited_s))
        self._observe(b"[1]", {SENT_AT: sent, SENT_BY: name})

    def mark(self, *, waited_s: float) -> None:
        self._observe(MARKER_BODY, {MARKER: str(round((self.true_s - waited_s) * 1000))})

    def _observe(self, body: bytes, headers: Mapping[str, object]) -> None:
        self.clocks.observe([Delivery(body, headers, "", 1, cast("Channel", None))])


def _offset(name: str) -> float | None:
    return REGISTRY.get_sample_value("callfold_ingress_clock_offset_seconds", {"machine": name})


def test_an_ingress_ahead_is_named_at_once_and_one_behind_after_a_while() -> None:
    machines = _Machines()
    with capture_logs() as lines:
        machines.deliver("fast", 600)
        assert [(line["event"], line["machine"], line["offset_s"]) for line in lines] == [
            ("ingress_clock_differs", "fast", 600.0)
        ]
        for _ in range(60):
            machines.true_s += 1
            machines.mark(waited_s=0.1)
            for name, offset_s in (("fast", 600), ("slow", -600), ("right", 0.2)):
                machines.deliver(name, offset_s)
        assert [line["machine"] for line in lines] == ["fast", "slow"]
        for _ in range(60):
            machines.true_s += 1
            machines.deliver("slow", 0)
            machines.deliver("fast", 0)
    assert [line["event"] for line in lines[2:]] == ["ingress_clock_agrees"]
    assert [_offset("slow"), _offset("fast")] == pytest.approx([0, 0], abs=0.1)


def test_a_backlog_and_a_message_delivered_again_are_no_wrong_clock() -> None:
    machines = _Machines()
    with capture_logs() as lines:
        for waited_s in range(900, 0, -5):
            machines.true_s += 1
            machines.mark(waited_s=waited_s)
            machines.deliver("honest", 0, waited_s=waited_s)
        for number in range(120):
            machines.true_s += 1
            machines.mark(waited_s=0.1)
            machines.deliver("honest", 0, waited_s=300 if number % 19 else 0.1)
    assert lines == []


def test_a_marker_of_no_round_hides_no_clock_that_is_behind() -> None:
    machines = _Machines()
    with capture_logs() as lines:
        for _ in range(60):
            machines.true_s += 1
            machines.mark(waited_s=machines.true_s)  # of round 0, as a report or a probe of the queue is
            machines.deliver("behind", -600)
    assert [line["event"] for line in lines] == ["ingress_clock_differs"]
    assert _offset("behind") == pytest.approx(-600, abs=0.1)


def _sample(received_s: float, ahead_s: float, event: str = "hangup", what: str = "end") -> list[tuple[str, str]]:
    return [(f"leg:API:1:{event}", _at(received_s)), (f"leg:API:1:at.{what}", _at(received_s + ahead_s))]


def _pbx_offset(source: str) -> float | None:
    return REGISTRY.get_sample_value("callfold_pbx_clock_offset_seconds", {"source": source})


def test_the_clock_of_a_pbx_is_estimated_by_its_least_delayed_events_and_named_once() -> None:
    clocks = PbxClocks()
    fast, slow, right = (CallKey(SourceName(name), CallRef("7")) for name in ("fast", "slow", "right"))
    stored: dict[SourceName, PbxClockNote] = {}
    with capture_logs() as lines:
        for second in range(0, 900, 10):
            delay_s = (second % 70) / 10
            facts = {
                fast: [_sample(second, 240 - delay_s), [("dial", _at(second))]],
                slow: [_sample(second, -7200 - delay_s, "pickup", "pickup")],
                right: [_sample(second, -delay_s, "missed"), [("leg:API:1:pickup", _at(0)), ("leg:API:1:at.end", _at(9))]],
            }
            stored |= clocks.observe(facts)
        assert [(line["event"], line["source"], line["offset_s"]) for line in lines] == [
            ("pbx_clock_differs", "fast", 240.0),
            ("pbx_clock_differs", "slow", -7200.0),
        ]
        assert "local time instead of UTC" in lines[1]["detail"]
        assert "NTP" in lines[0]["detail"]
        assert [note.ahead_s for note in stored.values()] == [240, -7200, 0]
        for second in range(900, 1800, 10):
            stored |= clocks.observe({key: [_sample(second, 0)] for key in (fast, slow)})
    assert [line["event"] for line in lines[2:]] == ["pbx_clock_agrees"]
    assert (_pbx_offset("fast"), stored[slow.source].ahead_s) == (0, 0)


@pytest.fixture
def fresh_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no other test have logged that a clock differs."""
    monkeypatch.setattr(pbx_clocks, "_DIFFERENCES", Outage(pbx_clocks.log, "pbx_clock_differs", "pbx_clock_agrees"))
    outage = Outage(ingress_clocks.log, "ingress_clock_differs", "ingress_clock_agrees")
    monkeypatch.setattr(ingress_clocks, "_DIFFERENCES", outage)


@pytest.mark.usefixtures("fresh_logs")
def test_a_clock_that_was_corrected_in_the_night_agrees_with_the_first_event_of_the_day() -> None:
    clocks = PbxClocks()
    key = CallKey(SourceName("night"), CallRef("7"))
    with capture_logs() as lines:
        for second in range(0, 900, 10):
            clocks.observe({key: [_sample(second, 60)]})
        assert _pbx_offset("night") == 60
        clocks.observe({key: [_sample(8 * 3600, -0.2)]})
        assert _pbx_offset("night") == pytest.approx(-0.2)
        clocks.observe({key: [_sample(600, 60)]})  # folded again by a redrive
        assert _pbx_offset("night") == pytest.approx(-0.2)
        clocks.observe({key: [_sample(9 * 3600, -45)]})  # one that was held up
    assert [line["event"] for line in lines] == ["pbx_clock_differs", "pbx_clock_agrees"]


@pytest.mark.usefixtures("fresh_logs")
def test_a_pbx_that_is_seldom_used_and_behind_is_named() -> None:
    clocks = PbxClocks()
    with capture_logs() as lines:
        for hour in range(3):
            clocks.observe({CallKey(SourceName("seldom"), CallRef("7")): [_sample(hour * 3600, -45)]})
    assert [line["event"] for line in lines] == ["pbx_clock_differs"]


@pytest.mark.usefixtures("fresh_logs")
def test_an_ingress_whose_clock_was_corrected_during_a_pause_agrees_at_once() -> None:
    machines = _Machines()
    with capture_logs() as lines:
        for _ in range(60):
            machines.true_s += 1
            machines.deliver("paused", 60)
        machines.true_s += 300
        machines.deliver("paused", 0)
    assert _offset("paused") == pytest.approx(0, abs=0.1)
    assert [line["event"] for line in lines] == ["ingress_clock_differs", "ingress_clock_agrees"]


def test_the_metric_of_a_machine_that_is_gone_is_removed() -> None:
    machines = _Machines()
    machines.deliver("gone", 5)
    machines.true_s += 700
    machines.deliver("other", 0)
    assert _offset("gone") is None
    assert _offset("other") == pytest.approx(0, abs=0.1)
