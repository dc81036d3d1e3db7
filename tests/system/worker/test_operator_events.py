"""Operator events of a running system: an archive that is away is raised and cleared once by all workers, also if one is killed."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from shared.archive.local_disk import INCOMPLETE
from shared.clock import utc_now
from tests.helpers.servers import Servers, callfold, eventually, exit_code, metric


@pytest.mark.volume
@pytest.mark.parametrize("point", ["", "ops.claimed", "ops.published"])
async def test_an_archive_that_is_away_is_raised_once_and_cleared_once(servers: Servers, point: str) -> None:
    began = utc_now()
    archive = servers.directory / "archive"
    archive.mkdir()
    blocker = archive / INCOMPLETE
    blocker.write_text("no directory")  # so that nothing can be written
    async with servers.fleet(CALLFOLD_OPS_HOLD_SECONDS="1") as fleet:
        first = fleet.add("first", "worker", {"CALLFOLD_CRASH_AT": point})
        second = fleet.add("second", "worker", {})
        await first.start()
        if point:  # it dies with the event, and the other one takes it over
            await exit_code(first)
        await second.start()

        async def counts(number: int) -> bool:
            return await metric(second, 'callfold_ops_conditions{condition="archive_away"}') == number

        await eventually(lambda: counts(1))
        await eventually(lambda: _has(servers, began, 1))
        await asyncio.to_thread(blocker.unlink)
        await eventually(lambda: counts(0))
        await eventually(lambda: _has(servers, began, 2))
    lines = await _tail(servers, began)
    bodies = {event["id"]: event for event in lines}
    assert [event["data"]["state"] for event in bodies.values()] == ["raised", "cleared"]
    assert all(bodies[event["id"]] == event for event in lines)
    raised, cleared = bodies.values()
    assert began < raised["time"] == cleared["data"]["since"] < cleared["time"]
    if not point:
        assert len(lines) == len(bodies)


async def _has(servers: Servers, began: str, number: int) -> bool:
    return len({event["id"] for event in await _tail(servers, began)}) >= number


async def _tail(servers: Servers, began: str) -> list[dict[str, Any]]:
    arguments = ("tail", "--ops", "ops.archive_away.*", "--since", began, "--until", "now", "--json")
    code, out, err = await callfold(*arguments, **servers.environment())
    assert code == 0, err
    return [orjson.loads(line) for line in out.splitlines()]
