"""The history process killed in the middle of its work: the rows are those of a quiet run."""

from __future__ import annotations

import asyncio
import random
import signal
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest

from console.local.child_process import ProcessFailedError
from tests.helpers.history import all_tables, call_event
from tests.helpers.history_process import calls_of, has_calls, new_source, publish, publishing, serving, settled
from tests.helpers.servers import Servers, exit_code

pytestmark = pytest.mark.usefixtures("fresh_stack")


async def test_killed_in_mid_write_it_goes_on_to_the_rows_of_an_undisturbed_run(
    servers: Servers, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, quiet = new_source(), f"sqlite:///{tmp_path / 'quiet.sqlite'}"
    async with publishing(servers) as publisher:
        await publish(publisher, [event for event in calls_of(source, 700) for _ in range(2)])
        await publish(publisher, [call_event(number, source=source, revision=2) for number in range(1, 50)])
    async with servers.fleet(CALLFOLD_HISTORY_URL=url) as fleet:
        for point in ("history.before_commit", "history.before_ack"):
            victim = fleet.add(point, "console.history", {"CALLFOLD_CRASH_AT": point})
            with suppress(ProcessFailedError):  # it may die before it was ready
                await victim.start()
            assert await exit_code(victim) == -signal.SIGKILL
            fleet.processes.remove(victim)
    for database in (quiet, url):
        async with serving(servers, database, monkeypatch):
            await has_calls(database, source, 700)
            await settled(database)
    assert await all_tables(url) == await all_tables(quiet)


async def test_killed_again_and_again_under_load_it_loses_and_doubles_nothing(servers: Servers, url: str) -> None:
    source = new_source()
    moments = random.Random(url.split(":", maxsplit=1)[0])  # noqa: S311 - a seed, no secret
    async with servers.fleet(CALLFOLD_HISTORY_URL=url) as fleet, publishing(servers) as publisher:
        are_dead = asyncio.Event()

        async def load() -> int:
            """Publish for as long as the dying takes, however slow the machine is; returns how many calls."""
            for first in count(1, 50):
                await publish(publisher, calls_of(source, 50, first=first))
                if are_dead.is_set() and first > 1000:
                    return first + 49
                await asyncio.sleep(0.05)
            raise AssertionError

        task = asyncio.create_task(load())
        for number in range(3):
            victim = fleet.add(f"victim-{number}", "console.history", {})
            await victim.start()
            await asyncio.sleep(moments.uniform(0.1, 0.8))
            victim.send_signal(signal.SIGKILL)
            await exit_code(victim)
            fleet.processes.remove(victim)
        assert not task.done()
        are_dead.set()
        await fleet.add("heir", "console.history", {}).start()
        published = await task
        await has_calls(url, source, published)
    events = [str(row[0]) for row in (await all_tables(url))["events"] if row[3] == source]
    assert sorted(events) == sorted(f"{source}/{number}/1" for number in range(1, published + 1))
