"""Callbacks that neither RabbitMQ nor the spool accepts: each is answered 503, and the log has a line a minute."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import orjson
import pytest
import structlog
from aiohttp.test_utils import make_mocked_request
from structlog.testing import capture_logs

from ingress.callbacks import CallbackHandler
from ingress.group_commit import GroupCommit
from ingress.outgoing_message import OutgoingMessage
from shared.config.sources import load_sources
from shared.errors import SpoolUnavailableError
from shared.runtime.process import background
from tests.helpers.intake import counted, published_at_once

VALID = "/callbacks/acme?CallType=API&Event=pickup&CallID=77&RequestID=513"
INVALID = "/callbacks/acme?CallType=nonsense"


class _Disk:
    """RabbitMQ and spool in one: accepts everything, or nothing."""

    def __init__(self) -> None:
        self.is_full = False

    async def write(self, _: Sequence[bytes]) -> None:
        await asyncio.sleep(0)
        if self.is_full:
            raise SpoolUnavailableError("the disk is full")

    async def send(self, _: OutgoingMessage) -> None:
        await self.write([])


@pytest.mark.parametrize(("target", "accepted"), [(VALID, 200), (INVALID, 400)], ids=["callback", "dead letter"])
async def test_a_flood_of_rejections_is_one_line_and_one_at_the_end(tmp_path: Path, target: str, accepted: int) -> None:
    structlog.configure(cache_logger_on_first_use=False)
    (tmp_path / "sources.toml").write_text("[sources.acme]\n")
    sources, disk = load_sources(tmp_path / "sources.toml"), _Disk()
    commit = GroupCommit(disk.write)
    handler = CallbackHandler(sources, published_at_once(sources, commit), disk.send, counted())

    async def status() -> int:
        return (await handler.answer(make_mocked_request("GET", target))).status

    with capture_logs() as logs:
        async with background(commit.run()):
            assert await status() == accepted
            disk.is_full = True
            assert {await status() for _ in range(300)} == {503}
            disk.is_full = False
            assert [await status() for _ in range(2)] == [accepted] * 2
    first, last = [line for line in logs if line["event"] != "callback_rejected"]
    assert (first["event"], first["log_level"], first["source"]) == ("callback_rejected_503", "error", "acme")
    assert "the disk is full" in first["detail"]
    assert (last["event"], last["failures"]) == ("callbacks_accepted", 300)


async def test_a_flood_of_invalid_callbacks_is_a_line_for_each_problem_and_few_problems(tmp_path: Path) -> None:
    structlog.configure(cache_logger_on_first_use=False)
    (tmp_path / "sources.toml").write_text("[sources.acme]\n[sources.other]\n")
    sources, disk = load_sources(tmp_path / "sources.toml"), _Disk()
    handler = CallbackHandler(sources, published_at_once(sources, GroupCommit(disk.write)), disk.send, counted())
    with capture_logs() as logs:
        for _ in range(100):
            await handler.answer(make_mocked_request("GET", INVALID))
        for number in range(100):
            await handler.answer(make_mocked_request("GET", f"{VALID}&{number}{'x' * 300}=1"))
        await handler.answer(make_mocked_request("GET", INVALID.replace("acme", "other")))
    assert {line["event"] for line in logs} == {"callback_rejected"}
    assert [line["source"] for line in logs] == ["acme"] * 5 + ["other"]
    assert (logs[0]["parameter"], logs[0]["failures"], logs[1]["failures"]) == ("CallID", 1, 101)


async def test_the_answer_to_an_invalid_callback_says_that_it_is_kept(tmp_path: Path) -> None:
    (tmp_path / "sources.toml").write_text("[sources.acme]\n")
    sources, disk = load_sources(tmp_path / "sources.toml"), _Disk()
    handler = CallbackHandler(sources, published_at_once(sources, GroupCommit(disk.write)), disk.send, counted())
    response = await handler.answer(make_mocked_request("GET", INVALID))
    assert isinstance(response.body, bytes)
    said = "The parameter CallID is missing or empty. The callback is kept as a dead letter. Correct the link, then redrive it."
    assert orjson.loads(response.body)["detail"] == said
