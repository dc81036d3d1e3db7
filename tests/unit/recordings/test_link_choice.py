"""Which links of a recording are requested, in which order, and what their answers say of it."""

from __future__ import annotations

import asyncio
import gzip
from pathlib import Path
from unittest.mock import AsyncMock

import pytest

from shared.config.sources import Source, load_sources
from shared.domain.ids import SourceName
from shared.domain.recording_reasons import Reason
from shared.errors import BusyError
from tests.helpers.pace import LIMIT_S
from tests.helpers.recordings import GUID, WAV, job
from tests.helpers.scripted_http import Answer, Scripted, head, rest, whole
from tests.helpers.wav_files import FMT, chunk, riff
from worker.download.client import Client
from worker.download.failures import FetchError, Result
from worker.download.limits import Limits
from worker.download.retry_after import Pauses
from worker.download.targets import recording_links
from worker.recordings.attempt import Attempt
from worker.recordings.job_outcome import End, JobOutcome, Retry, Wait, outcome_of
from worker.recordings.link_choice import downloaded, forget_parts

LIMITS = Limits(max_bytes=1_000_000, stall_s=LIMIT_S, min_bytes_per_second=1)
SCHEDULE_S = (0.1, 0.2)
TEMPLATE = "recording_url = '{origin}/get?nId={{call_id}}'"
SENT = "https://localhost:8080/rec?sectok=s3cret"
NOT_FOUND: Answer = [head(404, "Content-Length: 0")]
PAGE: Answer = [head(200), b"<html>log in"]
EMPTY: Answer = [head(200, "Content-Length: 0")]
NO_AUDIO: Answer = whole(riff(FMT, chunk(b"data", b"")))  # a header alone
UNCERTAIN = "localhost:8080/rec?a=b"
NO_RECORDING: Answer = [head(200), b'{"error":"unknown"}']


def _source(server: Scripted, path: Path, keys: str = TEMPLATE) -> Source:
    sources = path / "sources.toml"
    more = keys.format(origin=server.origin)
    sources.write_text(
        f'[sources.acme]\nsecret = "x"\nrecording_origin = "{server.origin}"\nrecordings_per_second = 1000\n{more}\n'
    )
    return load_sources(sources)[SourceName("acme")]


async def _attempt(
    server: Scripted,
    path: Path,
    sent: str | None,
    *answers: Answer,
    keys: str = TEMPLATE,
    guid: str | None = GUID,
    on_refused: AsyncMock | None = None,
) -> bytes | JobOutcome:
    """Make the last attempt of a job whose earlier ones found nothing."""
    server.answers = list(answers) or [NOT_FOUND]
    source = _source(server, path, keys)
    one = job(recording_url=sent, guid=guid)
    attempt = Attempt(one, one.encode(), len(SCHEDULE_S) + 1, one.started_at, reasons=("not_found",) * len(SCHEDULE_S))
    try:
        links = recording_links(source, one)
        async with (
            Client(source, LIMITS, asyncio.Semaphore(1)) as client,
            downloaded(client, links, attempt, path / "parts", is_kept=True, on_refused=on_refused or AsyncMock()) as recording,
        ):
            return recording.file.read()
    except (FetchError, BusyError) as error:
        return outcome_of(error, attempt, SCHEDULE_S)


def _paths(server: Scripted) -> list[str]:
    return [asked["path"] for asked in server.asked]


@pytest.mark.parametrize(
    "sent",
    [None, "", "null", "{{RecordingURL}}", "0", "https://pbx/", "ftp://pbx/x", "https://pbx/?uid=form_faster_downloadcall"],
)
async def test_without_a_usable_url_the_template_is_requested(server: Scripted, tmp_path: Path, sent: str | None) -> None:
    assert await _attempt(server, tmp_path, sent, whole(WAV)) == WAV
    assert _paths(server) == ["/get?nId=7"]
    server.asked.clear()
    ended = await _attempt(server, tmp_path, sent, keys="")
    assert isinstance(ended, End)
    assert (ended.result, ended.reason) == (Result.FAILED, Reason.NO_RECORDING_LINK)
    assert _paths(server) == []


@pytest.mark.parametrize(
    "file", [b"\xff\xfb\x90\x64" + bytes(4000), b"\xd5" * 4000, b"\xff" * 4000, b"\x55" * 4000, bytes(9) + b"<" * 4000]
)
@pytest.mark.parametrize(("second", "kind"), [(NOT_FOUND, "audio/wav"), (EMPTY, "text/html")])
async def test_a_file_that_is_no_recording_is_not_absent_and_is_kept(
    server: Scripted, tmp_path: Path, second: Answer, file: bytes, kind: str
) -> None:
    kept = AsyncMock()
    first: Answer = [head(200).replace(b"audio/wav", kind.encode()), file]
    ended = await _attempt(server, tmp_path, SENT, first, second, on_refused=kept)
    assert isinstance(ended, End)
    assert (ended.reason, ended.result) == (Reason.NOT_A_RECORDING, Result.FAILED)
    kept.assert_awaited_once()
    text = b'{"error": "unknown"}'
    ended = await _attempt(server, tmp_path, SENT, whole(text), second, on_refused=kept)
    assert isinstance(ended, End)
    assert ended.result is Result.ABSENT
    kept.assert_awaited_once()


@pytest.mark.parametrize(
    "wrong",
    [
        NOT_FOUND, EMPTY, PAGE, NO_RECORDING, [head(403)], [head(500)], [head(302, "Location: http://evil/")], [head(302, "Location: /dial")],
        [head(200, "Content-Encoding: gzip"), gzip.compress(b"<html>log in")],
    ],
)  # fmt: skip
async def test_a_url_that_seems_wrong_leads_to_the_template(server: Scripted, tmp_path: Path, wrong: Answer) -> None:
    keys = f"{TEMPLATE}\ndial_url = '{{origin}}/dial?agent={{{{agent}}}}&to={{{{number}}}}'\nrecording_paths = ['/rec', '/get']"
    assert await _attempt(server, tmp_path, SENT, wrong, whole(WAV), keys=keys) == WAV
    assert _paths(server) == ["/rec?sectok=s3cret", "/get?nId=7"]


async def test_a_url_that_is_not_allowed_leads_to_the_template(server: Scripted, tmp_path: Path) -> None:
    keys = f"{TEMPLATE}\nrecording_paths = ['/get']"
    assert await _attempt(server, tmp_path, SENT, whole(WAV), keys=keys) == WAV
    assert _paths(server) == ["/get?nId=7"]
    ended = await _attempt(server, tmp_path, SENT, keys="recording_paths = ['/get']")
    assert isinstance(ended, End)
    assert ended.reason is Reason.PATH_NOT_ALLOWED


@pytest.mark.parametrize("answer", [[head(503)], [head(200, "Content-Length: 99"), WAV[:9]], [head(200), WAV[:-100]]])
async def test_a_right_link_with_another_problem_is_requested_alone(server: Scripted, tmp_path: Path, answer: Answer) -> None:
    await _attempt(server, tmp_path, SENT, answer)
    assert _paths(server) == ["/rec?sectok=s3cret"]


@pytest.mark.parametrize(
    ("job_and_source", "answers", "end"),
    [
        ((SENT, "", GUID), [NOT_FOUND], (Result.ABSENT, Reason.NOT_FOUND)),
        ((SENT, "", GUID), [EMPTY], (Result.ABSENT, Reason.EMPTY)),
        ((SENT, TEMPLATE, GUID), [NOT_FOUND, EMPTY], (Result.ABSENT, Reason.EMPTY)),
        ((SENT, TEMPLATE, GUID), [NOT_FOUND, PAGE], (Result.FAILED, Reason.LOGIN_PAGE)),
        ((SENT, TEMPLATE, GUID), [PAGE, NOT_FOUND], (Result.ABSENT, Reason.NOT_FOUND)),
        ((None, TEMPLATE, GUID), [NOT_FOUND], (Result.ABSENT, Reason.NOT_FOUND)),
        (("localhost:8080/rec?a=b", "", GUID), [NOT_FOUND], (Result.FAILED, Reason.NO_RECORDING_LINK)),
        (("localhost:8080/rec?a=b", TEMPLATE, GUID), [NOT_FOUND, NOT_FOUND], (Result.ABSENT, Reason.NOT_FOUND)),
        (("localhost:8080/rec?a=7", "", GUID), [NOT_FOUND], (Result.ABSENT, Reason.NOT_FOUND)),
        (("localhost:8080/rec?a=17", "", GUID), [EMPTY], (Result.FAILED, Reason.NO_RECORDING_LINK)),
        (("https://pbx/rec?a=7#in-doubt", "", GUID), [NOT_FOUND], (Result.FAILED, Reason.NO_RECORDING_LINK)),
        (("https://pbx/rec?a=7#in-doubt", TEMPLATE, GUID), [NOT_FOUND, NOT_FOUND], (Result.ABSENT, Reason.NOT_FOUND)),
        ((f"/rec/{GUID.upper()}.wav", "", GUID), [NOT_FOUND], (Result.ABSENT, Reason.NOT_FOUND)),
        (("/rec/x.wav", "", GUID), [NOT_FOUND], (Result.FAILED, Reason.NO_RECORDING_LINK)),
        (("https%3A%2F%2Fpbx%2Frec", "", GUID), [NOT_FOUND], (Result.FAILED, Reason.NO_RECORDING_LINK)),
        (("https://pbx/rec/null.wav", "", GUID), [NOT_FOUND], (Result.FAILED, Reason.NO_RECORDING_LINK)),
        ((None, "recording_url = '{origin}/get/{{guid}}.wav'", GUID), [NOT_FOUND], (Result.ABSENT, Reason.NOT_FOUND)),
        ((None, "recording_url = '{origin}/get/{{guid}}.wav'", None), [], (Result.FAILED, Reason.NO_RECORDING_LINK)),
        ((None, "recording_url = '{origin}/get?r={{request_id}}'", GUID), [NOT_FOUND], (Result.FAILED, Reason.NO_RECORDING_LINK)),
        ((None, "recording_url = '{origin}/latest.wav'", GUID), [NOT_FOUND], (Result.FAILED, Reason.NO_RECORDING_LINK)),
        ((SENT, "", GUID), [[head(302, "Location: /login")], NOT_FOUND], (Result.FAILED, Reason.REDIRECTED)),
        ((SENT, "", GUID), [[head(200)]], (Result.FAILED, Reason.INTERRUPTED)),
        ((SENT, "", GUID), [NO_AUDIO], (Result.ABSENT, Reason.EMPTY)),
        ((UNCERTAIN, "", GUID), [NO_AUDIO], (Result.FAILED, Reason.NO_RECORDING_LINK)),
        ((None, "recording_url = '{origin}/get?r={{request_id}}'", GUID), [NO_AUDIO], (Result.FAILED, Reason.NO_RECORDING_LINK)),
        ((UNCERTAIN, "recording_url = '{origin}/latest.wav'", GUID), [NO_AUDIO, NO_AUDIO], (Result.FAILED, Reason.NO_RECORDING_LINK)),
        ((UNCERTAIN, TEMPLATE, GUID), [NO_AUDIO, NO_AUDIO], (Result.ABSENT, Reason.EMPTY)),
        ((UNCERTAIN, TEMPLATE, GUID), [NO_AUDIO, NOT_FOUND], (Result.ABSENT, Reason.NOT_FOUND)),
        ((SENT, "", GUID), [[head(302, "Location: /login")], NO_AUDIO], (Result.FAILED, Reason.REDIRECTED)),
        ((SENT, "recording_url = '{origin}/latest.wav'", GUID), [[head(403)], NOT_FOUND], (Result.FAILED, Reason.NO_RECORDING_LINK)),
    ],
)  # fmt: skip
async def test_a_recording_is_absent_only_if_the_pbx_was_asked_for_it(
    server: Scripted,
    tmp_path: Path,
    job_and_source: tuple[str | None, str, str | None],
    answers: list[Answer],
    end: tuple[Result, Reason],
) -> None:
    sent, keys, guid = job_and_source
    ended = await _attempt(server, tmp_path, sent, *answers, keys=keys, guid=guid)
    assert isinstance(ended, End)
    assert (ended.result, ended.reason) == end
    assert len(server.asked) == len(answers)


async def test_both_links_are_in_the_detail_and_one_that_is_the_same_is_requested_once(server: Scripted, tmp_path: Path) -> None:
    ended = await _attempt(server, tmp_path, SENT, NOT_FOUND, [head(403)])
    assert isinstance(ended, End | Retry)
    assert "s3cret" not in repr(ended)
    assert ended.detail == "status 403. The RecordingURL: not_found, status 404"
    ended = await _attempt(server, tmp_path, UNCERTAIN, NO_AUDIO, keys="")
    assert isinstance(ended, End)
    assert ended.detail.endswith("no recording: a header without audio"), ended.detail
    server.asked.clear()
    await _attempt(server, tmp_path, "https://localhost/get?nId=7", NOT_FOUND)
    assert len(server.asked) == 1


@pytest.mark.parametrize("first", [NOT_FOUND, EMPTY, NO_AUDIO, PAGE, whole(b"\xff\xfb\x90\x64" + bytes(4000))])
async def test_an_attempt_whose_second_link_must_wait_does_not_count(
    server: Scripted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: Answer
) -> None:
    paused = Pauses()
    paused.pause_link(f"{server.origin}/get?nId=7", LIMIT_S)
    monkeypatch.setattr("worker.download.client.Pauses", lambda: paused)
    outcome = await _attempt(server, tmp_path, SENT, first)
    assert isinstance(outcome, Wait), outcome
    assert outcome.at_least_s > 0
    assert outcome.may_have_stored is (len(first) > 1 and first[1][:1] == b"\xff")  # type: ignore[index]
    assert _paths(server) == ["/rec?sectok=s3cret"]


async def test_an_attempt_whose_second_link_finds_no_slot_does_not_count(
    server: Scripted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.download.client._SLOT_WAIT_S", 0.1)
    slots = asyncio.Semaphore(1)
    monkeypatch.setattr(slots, "release", lambda: None)  # another download is always faster
    monkeypatch.setattr(f"{__name__}.asyncio.Semaphore", lambda _: slots)
    assert isinstance(await _attempt(server, tmp_path, SENT, NOT_FOUND), Wait)
    assert len(server.asked) == 1


async def test_the_second_link_waits_for_the_rate_limit_as_a_redirect_does(
    server: Scripted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.download.client._RATE_LIMIT_WAIT_S", 0.0)
    assert await _attempt(server, tmp_path, SENT, NOT_FOUND, whole(WAV)) == WAV


async def test_each_link_has_its_own_part(server: Scripted, tmp_path: Path) -> None:
    half = len(WAV) // 2
    broken = whole(WAV, 'ETag: "a"', cut=half)
    await _attempt(server, tmp_path, SENT, NOT_FOUND, broken, [head(503)])
    assert await _attempt(server, tmp_path, SENT, NOT_FOUND, rest(WAV, half, 'ETag: "a"')) == WAV
    assert server.asked[-1]["range"] == f"bytes={half}-"
    forget_parts(tmp_path / "parts", job().id)
    assert list((tmp_path / "parts").iterdir()) == []
