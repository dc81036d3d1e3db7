"""Downloads a recording by the first of its links that works.

A RecordingURL can be cut, expired, or a link of something else. Then the source's `recording_url` is asked in the same attempt.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from shared.domain.recording_reasons import Reason
from shared.errors import NotBegunError
from worker.download.client import Client, OnRefused
from worker.download.failures import RULES, FetchError, Result
from worker.download.inspection import Recording, RefusedError
from worker.download.partial_file import forget, partial
from worker.download.sniffing import is_text_file
from worker.download.targets import Link
from worker.recordings.attempt import Attempt

_MAX_LINKS = 2


@asynccontextmanager
async def downloaded(
    client: Client, links: Sequence[Link], attempt: Attempt, directory: Path, *, is_kept: bool, on_refused: OnRefused
) -> AsyncIterator[Recording]:
    """Download a recording. `is_kept`: a partial download stays in `directory` for the next attempt.

    `on_refused` is awaited with a complete answer that is refused, unless it is a text and another link is tried. If the block
    raises FetchError, the download is discarded.

    Raises:
        NotBegunError: a link could not be requested yet; see `Client.fetch`. The attempt does not count: that link may have
            the recording.
        FetchError: no link worked. The failure is that of the last link, or of a link that brought a file.
    """
    failures: list[tuple[Link, FetchError]] = []
    files: list[FetchError] = []
    seen = {"seen_bytes": attempt.seen_bytes, "seen_audio_bytes": attempt.seen_audio_bytes}
    for number, link in enumerate(links):
        is_last = link is links[-1]

        async def refuse(error: RefusedError, *, is_last: bool = is_last) -> None:
            is_file = error.reason is not Reason.EMPTY and not is_text_file(error.content.file)
            if is_file:
                files.append(error)
            if is_file or is_last or not error.is_wrong_link:
                await on_refused(error)

        async with AsyncExitStack() as opened:
            try:
                name = _part_name(attempt.job.id, number)
                part = opened.enter_context(partial(directory, name, is_kept=is_kept, link=link.url))
                fetching = client.fetch(link.url, part, **seen, names=link.names, on_refused=refuse, is_continued=bool(failures))
                recording = await opened.enter_async_context(fetching)
            except NotBegunError as error:
                error.may_have_kept = bool(files)
                raise
            except FetchError as error:
                failures.append((link, error))
                if is_last or not error.is_wrong_link:
                    raise _concluded(failures, files) from error
                continue
            try:
                yield recording
            except FetchError:
                part.restart()
                raise
            return


def forget_parts(directory: Path, job_id: str) -> None:
    """Remove the partial downloads of a finished job."""
    for number in range(_MAX_LINKS):
        forget(directory, _part_name(job_id, number))


def _part_name(job_id: str, number: int) -> str:
    return f"{job_id}/{number}" if number else job_id


def _concluded(failures: Sequence[tuple[Link, FetchError]], files: Sequence[FetchError]) -> FetchError:
    """Return the failure of the last link. It is about the recording if a link that certainly names it was not found.

    If an earlier link brought a file that is no recording, that is the failure: the PBX does have something.
    """
    last = failures[-1][1]
    is_nothing = [RULES[error.reason].result is Result.ABSENT for _, error in failures]
    file = next((error for error in files if error is not last), None) if is_nothing[-1] else None
    failure = last if file is None else file
    failure.is_about_recording = any(link.is_certain for (link, _), nothing in zip(failures, is_nothing, strict=True) if nothing)
    failure.may_have_kept = bool(files)
    others = [(link, error) for link, error in failures if error is not failure]
    for link, error in others:
        failure.detail += f". The {'recording_url' if link.is_template else 'RecordingURL'}: {error.reason}, {error.detail}"
    return failure
