"""A worker that fetches a recording keeps what it refuses, if that is possible, and deletes it once the leg has a recording."""

from __future__ import annotations

import gzip
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, BinaryIO
from unittest.mock import AsyncMock, Mock

import pytest
from structlog.testing import capture_logs

from shared.archive.deadlines import ArchiveUnavailableError
from shared.archive.local_disk import Confirm
from shared.archive.storage import Archive, Entry
from shared.config.live_sources import LiveSources
from shared.config.settings import Settings
from shared.domain.recording_info import RecordingInfo
from simulator.audio import recording
from tests.helpers.recordings import WAV, job
from tests.helpers.refused_files import kept
from tests.helpers.scripted_http import Answer, Scripted, head, whole
from worker.download.failures import FetchError
from worker.recordings.attempt import Attempt
from worker.recordings.fetching import Fetcher
from worker.recordings.job_outcome import Retry, outcome_of
from worker.recordings.refused_recordings import RefusedRecordings
from worker.recordings.sidecars import Sidecars

NOT_FOUND: Answer = [head(404, "Content-Length: 0")]
NOT_READY: Answer = [head(503, "Content-Length: 0")]
JUNK = b"\xff\xfb\x90\x64" + bytes(4000)
SHORT = recording("9", 2)
LEG = {
    "call_id": "7",
    "inferred": False,
    "picked_up_at": "2026-11-23T23:59:00.123000Z",
    "hung_up_at": "2026-11-24T00:00:00.123000Z",
}
RECORD: dict[str, Any] = {
    "revision": 1,
    "outcome": "answered",
    "talk_seconds": 60,
    "agent": LEG,
    "dialed": None,
    "other_legs": [],
}


class CountingArchive(Archive):
    """Counts what is read of refused files, and may refuse to write them."""

    reads = 0
    is_denied = False

    async def read(self, path: str) -> bytes | None:
        if "/refused/" in path:
            self.reads += 1
            self._check()
        return await super().read(path)

    async def put(self, path: str, content: BinaryIO | bytes, *, confirm: Confirm | None = None, is_new: bool = False) -> str:
        if "/refused/" in path:
            self._check()
        return await super().put(path, content, confirm=confirm, is_new=is_new)

    def entries(self, prefix: str) -> AsyncIterator[Entry]:
        self.reads += "/refused" in prefix
        return super().entries(prefix)

    def _check(self) -> None:
        if self.is_denied:
            raise ArchiveUnavailableError("acme/refused cannot be written: Permission denied")


class Desk:
    """A fetcher with an archive in a directory, and a scripted PBX."""

    def __init__(self, path: Path, server: Scripted) -> None:
        self.server = server
        self.archive = CountingArchive((path / "archive").as_uri())
        self.sidecars = Sidecars(self.archive, path / "downloads")
        self.refused = RefusedRecordings(self.archive, self.sidecars, path / "downloads", 1 << 20)
        self.settings = Settings(
            archive_url=self.archive.url, recording_dir=path / "downloads", recording_retry_seconds=(1.0, 2.0, 3.0)
        )
        sources = path / "sources.toml"
        template = f"{server.origin}/get?nId={{call_id}}"
        sources.write_text(
            f'[sources.acme]\nsecret = "x"\nrecording_origin = "{server.origin}"\nrecording_url = "{template}"\n'
            "recordings_per_second = 1000\n"
        )
        self.outcomes = AsyncMock()
        self.fetcher = Fetcher(LiveSources.load(sources), self.sidecars, self.outcomes, self.refused, self.settings)

    async def attempt(
        self, *answers: Answer, before: Attempt | None = None, record: dict[str, Any] | None = None
    ) -> Attempt | None:
        """Make an attempt. Return the next one if it failed, None if the recording is stored."""
        self.server.answers = list(answers)
        one = job(recording_url="https://pbx/rec?x=7", record=record or {"revision": 1})
        this = before or Attempt(one, one.encode(), 1, one.started_at)
        try:
            await self.fetcher.fetch(this, (await self.sidecars.read(this.job)).after, Mock(confirm=AsyncMock()))
        except (FetchError, ArchiveUnavailableError) as error:
            outcome = outcome_of(error, this, self.settings.recording_retry_seconds)
            assert isinstance(outcome, Retry), outcome
            message = this.retry(1, counts=True, reason=outcome.reason, may_have_stored=outcome.may_have_stored)
            return Attempt.of(message.body, message.headers)
        return None

    def stored(self) -> RecordingInfo:
        info = self.outcomes.publish.await_args.args[2]
        assert isinstance(info, RecordingInfo)
        return info


@pytest.fixture
async def desk(tmp_path: Path, server: Scripted) -> AsyncIterator[Desk]:
    desk = Desk(tmp_path, server)
    async with desk.fetcher.clients:
        yield desk


async def test_an_ordinary_recording_costs_no_request_for_a_refused_file(desk: Desk) -> None:
    assert await desk.attempt(whole(WAV)) is None
    following = await desk.attempt(NOT_FOUND)
    assert await desk.attempt(whole(WAV), before=following) is None
    assert desk.archive.reads == 0


@pytest.mark.parametrize("is_guid_late", [False, True])
async def test_a_refused_file_goes_once_a_later_revision_of_the_call_stores_the_recording(
    desk: Desk, *, is_guid_late: bool
) -> None:
    early = job(recording_url="https://pbx/rec?x=7", guid=None, record={"revision": 1}) if is_guid_late else None
    before = Attempt(early, early.encode(), 1, early.started_at) if early else None
    first = await desk.attempt(whole(WAV[:-10]), before=before)
    assert first is not None
    assert (await kept(desk.archive))[0] == ["7"]
    amended = job(recording_url="https://pbx/rec?x=7", record={"revision": 2})
    again = Attempt(amended, amended.encode(), 1, amended.started_at)
    reads = desk.archive.reads
    assert await desk.attempt(whole(WAV), before=again) is None
    assert desk.archive.reads == reads + 1  # the files of the source are listed once, whatever names the leg had
    assert await kept(desk.archive) == ([], [])


async def test_a_refused_file_goes_whose_worker_was_killed_before_it_was_described(desk: Desk) -> None:
    first = await desk.attempt(whole(WAV[:-10]))
    assert first is not None
    (description,) = [entry.path async for entry in desk.archive.entries("acme/refused") if entry.path.endswith(".json")]
    await desk.archive.delete(description)
    redelivered = Attempt.of(first.job.encode(), {"x-delivery-count": 1})
    assert await desk.attempt(whole(WAV), before=redelivered) is None
    assert await kept(desk.archive) == ([], [])


async def test_a_refused_file_of_the_first_link_goes_once_the_second_has_the_recording(desk: Desk) -> None:
    following = await desk.attempt(whole(JUNK), NOT_READY)
    assert following is not None
    assert following.reasons == ("not_ready",)
    assert (await kept(desk.archive))[0] == ["7"]
    assert await desk.attempt(NOT_FOUND, whole(WAV), before=following) is None
    assert await kept(desk.archive) == ([], [])


async def test_a_refused_file_that_cannot_be_kept_hides_neither_the_reason_nor_the_second_link(desk: Desk) -> None:
    desk.archive.is_denied = True
    with capture_logs() as logs:
        following = await desk.attempt(whole(JUNK), NOT_FOUND)
        assert following is not None
        assert following.reasons == ("not_a_recording",)
        assert len(desk.server.asked) == 2
        assert await desk.attempt(whole(JUNK), whole(WAV)) is None
    assert [line["event"] for line in logs if line["log_level"] == "warning"] == ["refused_file_not_kept"] * 2


@pytest.mark.parametrize(
    ("encoding", "body", "reason"),
    [("br", random.Random(7).randbytes(9000), "compressed"), ("gzip", gzip.compress(WAV)[:-500], "truncated")],  # noqa: S311
)
async def test_a_body_that_cannot_be_decompressed_is_kept(desk: Desk, encoding: str, body: bytes, reason: str) -> None:
    following = await desk.attempt(whole(body, f"Content-Encoding: {encoding}"))
    assert following is not None
    assert following.reasons == (reason,)
    refused = await desk.refused.of(following.job)
    assert refused is not None
    assert (refused.reason, refused.seconds, await desk.archive.read(refused.file)) == (reason, None, body)


async def test_a_short_recording_that_cannot_be_kept_is_stored_at_once(desk: Desk) -> None:
    desk.archive.is_denied = True
    assert await desk.attempt(whole(SHORT), record=RECORD) is None
    assert (desk.stored().seconds, desk.stored().flags) == (2, ("shorter_than_call",))


async def test_a_short_recording_is_kept_and_requested_again(desk: Desk) -> None:
    following = await desk.attempt(whole(SHORT), record=RECORD)
    assert following is not None
    assert (following.reasons, (await kept(desk.archive))[0]) == (("shorter_than_call",), ["7"])
    assert await desk.attempt(whole(recording("9", 1)), before=following) is None
    assert (desk.stored().seconds, desk.stored().flags) == (2, ("shorter_than_call",))
    assert await kept(desk.archive) == ([], [])
