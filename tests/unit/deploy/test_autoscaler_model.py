"""The model of the autoscaler proposes, waits and steps as the controller of Kubernetes does."""

from __future__ import annotations

from tests.helpers.autoscaler import Autoscaler, Direction, Scaling, changes_of_direction

_SCALING = Scaling(minimum=2, maximum=10, lag_s=4, cpu=0.7, up=Direction(30, 2, 30), down=Direction(300, 1, 60), sync_s=15)


def _counts(figures: list[tuple[float | None, float | None]], pods: int = 2) -> list[int]:
    """Return the numbers of pods after each look, 15 s apart, if every pod is ready at once."""
    autoscaler, counts = Autoscaler(_SCALING), []
    for number, (lag_s, cpu) in enumerate(figures):
        pods = autoscaler.decide(15.0 * number, pods=pods, ready=pods, lag_s=lag_s, cpu=cpu)
        counts.append(pods)
    return counts


def test_two_workers_are_added_in_30_s_while_the_lag_lasts() -> None:
    assert _counts([(20, 1)] * 8) == [4, 4, 6, 6, 8, 8, 10, 10]


def test_a_lag_that_lasts_for_less_than_the_window_adds_none() -> None:
    assert _counts([(1, 0.3), (16, 0.3), (1, 0.3), (1, 0.3)]) == [2, 2, 2, 2]


def test_workers_that_are_busy_stay_although_the_lag_is_gone() -> None:
    assert _counts([(0.5, 0.68)] * 60, pods=6) == [6] * 60


def test_idle_workers_go_one_by_one_after_five_minutes() -> None:
    counts = _counts([(20, 1)] + [(0.5, 0.1)] * 40, pods=6)
    assert counts[:20] == [8, *[8] * 19]
    assert counts[20:30] == [7, 7, 7, 7, 6, 6, 6, 6, 5, 5]
    assert counts[-1] == 2


def test_without_a_figure_nothing_goes() -> None:
    assert _counts([(None, 0.1)] * 40, pods=6) == [6] * 40
    assert _counts([(None, None)] * 40, pods=6) == [6] * 40


def test_within_a_tenth_of_the_target_nothing_changes() -> None:
    assert _counts([(4.3, 0.1)] * 10, pods=5) == [5] * 10


def test_changes_of_direction_are_counted_between_steps() -> None:
    assert changes_of_direction([2, 2, 4, 4, 6, 6, 5, 5, 4, 4, 5]) == 2
    assert changes_of_direction([2, 2, 2]) == 0
