"""What counts as recovered: a batch that was wholly accepted, published, and nothing that was accepted before it still waits."""

from __future__ import annotations

import pytest

from tests.chaos.recovery import recovered_at

FIRST, SECOND, THIRD = "probe/1/1", "probe/2/1", "probe/3/1"
CASES: dict[str, tuple[list[list[str | None]], dict[str, float], float | None]] = {
    "nothing was sent": ([], {}, None),
    "a batch is published": ([[FIRST, SECOND]], {FIRST: 5, SECOND: 4}, 5),
    "one call of it waits": ([[FIRST, SECOND]], {FIRST: 5}, None),
    "one callback was not accepted": ([[FIRST, None]], {FIRST: 5}, None),
    "a later batch is whole": ([[FIRST, None], [SECOND, THIRD]], {FIRST: 5, SECOND: 6, THIRD: 7}, 7),
    "a later batch is published, an earlier call waits": ([[FIRST, None], [SECOND, THIRD]], {SECOND: 6, THIRD: 7}, None),
    "an earlier call was published last": ([[FIRST, None], [SECOND, THIRD]], {FIRST: 9, SECOND: 6, THIRD: 7}, 9),
}


@pytest.mark.parametrize("name", CASES)
def test_recovered(name: str) -> None:
    batches, published, at = CASES[name]
    assert recovered_at(batches, published) == at
