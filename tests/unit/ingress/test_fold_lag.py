"""The lag from publish to fold, as probes and echoes show it."""

from __future__ import annotations

from ingress.fold_lag import FoldLag


def _answered() -> FoldLag:
    lag = FoldLag()
    lag.answer(lag.probe(-1), -1)
    return lag


def test_before_the_first_echo_there_is_no_lag_and_lost_probes_are_forgotten() -> None:
    lag = FoldLag()
    first = lag.probe(0)
    assert lag.seconds(500) == 0
    second = lag.probe(600)
    assert lag.seconds(601) == 0
    lag.answer(first, 602)  # it is forgotten
    assert lag.seconds(602) == 0
    lag.answer(second, 603)
    lag.probe(604)
    assert lag.seconds(606) == 2


def test_the_lag_is_the_age_of_the_oldest_probe_without_an_echo() -> None:
    lag = _answered()
    assert lag.seconds(100) == 0
    first = lag.probe(100)
    assert lag.seconds(103) == 3
    second = lag.probe(103)
    lag.answer(first, 104)
    assert lag.seconds(104) == 1
    lag.answer(second, 107)
    assert lag.seconds(110) == 0


def test_an_echo_answers_every_earlier_probe_and_each_is_reported_once() -> None:
    lag, ended = FoldLag(), []
    numbers = [lag.probe(at, answered=lambda at=at: ended.append(at)) for at in range(3)]  # type: ignore[misc]
    lag.answer(numbers[1], 5)
    assert ended == [0, 1]
    lag.answer(numbers[0], 6)
    lag.give_up(numbers[1])
    assert ended == [0, 1]
    lag.give_up_all()
    assert ended == [0, 1, 2]
    assert lag.seconds(100) == 0


def test_probes_are_rare() -> None:
    lag = FoldLag()
    assert lag.is_due(0)
    lag.probe(0)
    assert not lag.is_due(0.05)
    assert lag.is_due(0.11)


def test_the_fold_is_away_if_probes_wait_and_nothing_has_been_answered_for_a_while() -> None:
    lag = FoldLag()
    assert not lag.is_away(1000), "nothing waits"
    numbers = [lag.probe(1000 + at) for at in range(5)]
    assert not lag.is_away(1009)
    assert lag.is_away(1011)
    lag.answer(numbers[0], 1012)
    assert not lag.is_away(1021), "a backlog is folded, however long it is"
    assert lag.seconds(1021) == 20
    assert lag.is_away(1023)


def test_a_probe_that_was_lost_is_forgotten_in_the_end() -> None:
    lag = _answered()
    lag.probe(0)
    assert lag.seconds(500) == 500
    assert lag.seconds(601) == 0
