"""What an attack costs good requests: a stall of the disk is none of it, and whatever slows down most of them is."""

from __future__ import annotations

import asyncio

import pytest

from tests.helpers import attacks
from tests.helpers.attacks import Timings, assert_unharmed, measuring
from tests.helpers.servers import eventually

BEFORE = Timings([0.01] * 20)
LIMIT_S = 0.25
SLOW_S = 20 * LIMIT_S


@pytest.mark.parametrize(
    ("quick", "slow", "is_harm"),
    [(77, 3, False), (17, 3, False), (190, 10, False), (60, 20, True), (17, 4, True), (10, 1, True), (0, 1, True)],
)
def test_requests_are_harmed_if_more_than_a_few_are_slow(
    monkeypatch: pytest.MonkeyPatch, quick: int, slow: int, *, is_harm: bool
) -> None:
    monkeypatch.setattr(attacks, "IS_LONG", False)
    during = Timings([0.01] * quick + [SLOW_S] * slow)
    if is_harm:
        with pytest.raises(AssertionError, match="more than"):
            assert_unharmed(during, BEFORE, limit_s=LIMIT_S)
    else:
        assert_unharmed(during, BEFORE, limit_s=LIMIT_S)


def test_the_long_form_holds_the_limit_for_99_of_100(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attacks, "IS_LONG", True)
    assert_unharmed(Timings([0.01] * 199 + [SLOW_S]), BEFORE, limit_s=LIMIT_S)
    with pytest.raises(AssertionError, match="more than"):
        assert_unharmed(Timings([0.01] * 197 + [SLOW_S] * 3), BEFORE, limit_s=LIMIT_S)


async def test_requests_that_all_become_slow_are_harmed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attacks, "IS_LONG", False)
    async with measuring(lambda: asyncio.sleep(0.05), clients=2) as during:

        async def are_measured() -> bool:
            return len(during.seconds) >= 4

        await eventually(are_measured)
    with pytest.raises(AssertionError, match="more than"):
        assert_unharmed(during, Timings([0.001] * 20), limit_s=0.002)


def test_one_failure_is_harm() -> None:
    with pytest.raises(AssertionError, match="refused"):
        assert_unharmed(Timings([0.01] * 20, ["refused"]), BEFORE, limit_s=LIMIT_S)
