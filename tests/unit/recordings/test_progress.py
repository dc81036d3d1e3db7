"""What the metric of the oldest job needs never fails a job."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest

from shared.state.store import Store
from worker.recordings.attempt import Attempt
from worker.recordings.progress import Progress


@pytest.mark.parametrize("first_seen", ["2026-11-30T12:00:00", "2026-11-30", "yesterday", ""])
async def test_a_header_that_is_no_time_fails_no_job(first_seen: str) -> None:
    attempt = SimpleNamespace(first_seen=first_seen, job=SimpleNamespace(id="acme/513/recording/one"))
    store = SimpleNamespace(clock=SimpleNamespace(now=lambda: None), unfinished_recordings=None)
    await Progress(cast("Store", store), 60).begin(cast("Attempt", attempt))
