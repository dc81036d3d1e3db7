"""When ingress holds that the fold queue is nearly full, and when a publisher may attempt it again."""

from __future__ import annotations

from typing import cast

import pytest

from ingress.fold_depth import FoldDepth
from shared.amqp.publisher import Publisher
from shared.amqp.queue_gate import QueueGate


class _Publisher:
    def __init__(self) -> None:
        self.gate = QueueGate("callbacks", "callbacks.fold")


def _depth(limit_bytes: int) -> tuple[FoldDepth, QueueGate]:
    publisher = _Publisher()
    return FoldDepth(cast("Publisher", publisher), limit_bytes), publisher.gate


def test_the_gate_closes_at_nine_tenths_of_the_limit_and_opens_below_eight() -> None:
    depth, gate = _depth(1_000_000)
    for _ in range(1000):
        depth.published(1000)
    closed = []
    for messages in (0, 500, 899, 900, 850, 800, 799, 0):
        depth.judge(messages)
        closed.append(gate.is_closed)
        for _ in range(1000 if messages <= 100 else 0):
            depth.published(1000)
    assert closed == [False, False, False, True, True, True, False, False]


def test_messages_of_others_count_as_large_as_what_is_not_drained() -> None:
    depth, gate = _depth(100_000_000)
    for _ in range(50):
        depth.published(1_000_000, is_drained=True)
    depth.published(300)
    depth.judge(100_000)  # 50 of a megabyte and the others of 300 bytes: 80 MB
    assert not gate.is_closed
    depth.judge(200_000)
    assert gate.is_closed


def test_a_process_that_published_nothing_holds_nothing_back() -> None:
    depth, gate = _depth(1000)
    depth.judge(1_000_000)
    assert not gate.is_closed


class _Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_the_pauses_between_probes_grow_to_more_than_a_minute_and_one_probe_is_sent_in_each() -> None:
    clock = _Clock()
    gate = QueueGate("callbacks", "callbacks.fold", clock=clock)
    pauses = []
    for _ in range(12):
        gate.reject()
        began = clock.now
        while not gate.take_probe():
            clock.now += 0.25
        pauses.append(clock.now - began)
        assert not gate.take_probe()
    assert pauses[0] <= 1.5
    assert 60 <= pauses[-1] <= 120
    assert sum(pauses) < 12 * 120


@pytest.mark.parametrize(("quiet_s", "is_short"), [(1, False), (61, True)])
def test_a_queue_that_rejects_again_soon_keeps_the_pauses_long(quiet_s: float, is_short: bool) -> None:  # noqa: FBT001
    clock = _Clock()
    gate = QueueGate("callbacks", "callbacks.fold", clock=clock)
    for _ in range(8):
        gate.reject()
    clock.now += 200
    assert gate.take_probe()
    gate.accept()
    assert gate.problem == ""
    clock.now += quiet_s
    gate.reject()
    clock.now += 2
    assert gate.take_probe() is is_short
