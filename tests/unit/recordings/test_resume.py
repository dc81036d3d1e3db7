"""A download that breaks is resumed, or begun anew - and what is whole in the end is one content, never two halves."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import gzip
import os
import random
import tempfile
import time
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson
import pytest

from shared.config.sources import load_sources
from shared.domain.ids import SourceName
from shared.domain.recording_reasons import Reason
from shared.errors import ConfigError
from shared.runtime.process import background
from simulator.audio import recording
from tests.helpers.pace import LIMIT_S
from tests.helpers.scripted_http import RESET, STALL, Scripted, head, rest, scripted, whole
from tests.helpers.servers import eventually
from worker.download.client import Client
from worker.download.download_directory import check_directory, keep_swept, prepare, sweep
from worker.download.failures import FetchError
from worker.download.inspection import RefusedError
from worker.download.limits import Limits
from worker.download.partial_file import Partial, forget, partial

WAV, OTHER = recording("7", 1.5), recording("8", 1.5)
HALF = len(WAV) // 2
TAG, OTHER_TAG = 'ETag: "a"', 'ETag: "b"'
DATE, NOW = "Last-Modified: Mon, 23 Nov 2026 07:44:00 GMT", "Date: Mon, 23 Nov 2026 07:45:00 GMT"
OTHER_DATE, TOO_SOON = "Last-Modified: Mon, 23 Nov 2026 07:49:00 GMT", "Date: Mon, 23 Nov 2026 07:44:59 GMT"
LIMITS = Limits(max_bytes=1_000_000, stall_s=LIMIT_S, min_bytes_per_second=1)
IMPATIENT = replace(LIMITS, stall_s=0.3)
PAGE = head(200).replace(b"audio/wav", b"text/html; charset=utf-8")
NAME = "acme/513/recording/x"


def _raw(content: bytes) -> bytes:
    return zlib.compress(content)[2:-4]


BOMB = gzip.compress(gzip.compress(bytes(2_000_000)))
RAW_BOMB = _raw(WAV[:8] + bytes(2_000_000))


@asynccontextmanager
async def _client(server: Scripted, path: Path, limits: Limits = LIMITS) -> AsyncIterator[Client]:
    sources = path / "sources.toml"
    sources.write_text(f'[sources.acme]\nsecret = "x"\nrecording_origin = "{server.origin}"\nrecordings_per_second = 1000\n')
    async with Client(load_sources(sources)[SourceName("acme")], limits, asyncio.Semaphore(1)) as client:
        yield client


async def _fetch(server: Scripted, path: Path, *, seen: int | None = None, kept: bool = False, limits: Limits = LIMITS) -> bytes:
    async with _client(server, path, limits) as client:
        with partial(path / "parts", NAME, is_kept=kept) as part:
            async with client.fetch(f"{server.origin}/rec?sectok=s3cret", part, seen_bytes=seen) as found:
                content = found.file.read()
                assert found.bytes == len(content)
                return content


async def _refused(server: Scripted, path: Path, **more: Any) -> FetchError:  # noqa: ANN401
    with pytest.raises(FetchError) as refused:
        await _fetch(server, path, **more)
    assert "s3cret" not in str(refused.value)
    return refused.value


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (whole(WAV, TAG, cut=HALF), rest(WAV, HALF, TAG)),
        ([*whole(WAV, TAG, cut=HALF), RESET], None),
        (whole(WAV, DATE, NOW, cut=HALF), rest(WAV, HALF, DATE)),
    ],
)
async def test_a_broken_download_is_resumed_where_it_broke(
    server: Scripted, tmp_path: Path, first: list[Any], second: list[Any] | None
) -> None:
    server.answers = [first, second or whole(WAV, TAG)]
    assert await _fetch(server, tmp_path) == WAV
    if second:
        assert server.asked[1]["range"] == f"bytes={HALF}-"
        assert server.asked[1]["if-range"] in {'"a"', "Mon, 23 Nov 2026 07:44:00 GMT"}
    assert len(server.asked) == 2
    assert server.asked[0]["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    "lines",
    [
        ['ETag: W/"a"'],
        ['ETag: W/"a"', DATE, NOW],
        ["ETag: a", DATE, NOW],
        ["Accept-Ranges: none", TAG],
        [],
        [DATE],
        [DATE, TOO_SOON],
        [DATE, DATE.replace("Last-Modified", "Date")],
        ["Last-Modified: yesterday", NOW],
        ["Last-Modified: Mon, 23 Nov 0 07:44:00 GMT", "Date: Mon, 23 Nov 99999 07:44:00 +9999999"],
        [DATE, "Date: Mon, 23 Nov 2026 07:45:00 -0000"],
    ],
)
async def test_without_a_strong_validator_nothing_is_resumed(server: Scripted, tmp_path: Path, lines: list[str]) -> None:
    server.answers = [whole(WAV, *lines, cut=HALF), whole(WAV)]
    assert (await _refused(server, tmp_path, kept=True)).reason is Reason.INTERRUPTED
    assert await _fetch(server, tmp_path, kept=True) == WAV
    assert "range" not in server.asked[1]


@pytest.mark.parametrize(
    "answer",
    [
        whole(OTHER, OTHER_TAG),  # it is another now
        rest(OTHER, HALF, OTHER_TAG),  # and the server heeds no If-Range
        rest(OTHER, HALF, TAG, told=f"bytes {HALF - 7}-{len(WAV) - 8}/{len(WAV)}"),
        rest(OTHER, HALF, TAG, told=f"bytes {HALF}-{len(WAV) - 1}/{len(WAV) + 1}"),
        rest(OTHER, HALF, TAG, told=f"bytes {HALF}-{len(WAV) + 5}/{len(WAV)}"),
        rest(OTHER, HALF, TAG, told="bytes"),
        rest(OTHER, HALF, TAG, told=f"bytes {HALF}-{'9' * 4500}/{len(WAV)}"),
        rest(OTHER, HALF, TAG, told=f"bytes {HALF}-{len(WAV) - 1}/{'9' * 4500}"),
        rest(OTHER, HALF, TAG, "Content-Encoding: gzip"),
        [head(416, f"Content-Range: bytes */{len(WAV) + 1}", "Content-Length: 0")],
    ],
)
async def test_two_contents_are_never_mixed(server: Scripted, tmp_path: Path, answer: list[Any]) -> None:
    server.answers = [whole(WAV, TAG, cut=HALF), answer, whole(OTHER, OTHER_TAG)]
    assert await _fetch(server, tmp_path) == OTHER


@pytest.mark.parametrize(
    ("told", "repeated"),
    [
        ([TAG], []),
        ([TAG], [DATE]),
        ([TAG], ['ETag: W/"a"']),
        ([DATE, NOW], [OTHER_DATE]),
        ([DATE, NOW], []),
        ([DATE, NOW], [DATE, 'ETag: W/"b"']),
    ],
)
async def test_what_does_not_repeat_a_strong_validator_is_never_the_other_half(
    server: Scripted, tmp_path: Path, told: list[str], repeated: list[str]
) -> None:
    server.answers = [whole(WAV, *told, cut=HALF), rest(OTHER, HALF, *repeated), whole(OTHER, OTHER_TAG)]
    assert await _fetch(server, tmp_path) == OTHER
    assert ["range" in asked for asked in server.asked] == [False, True, False]


async def test_a_range_beyond_the_end_does_not_make_a_part_of_another_length_whole(server: Scripted, tmp_path: Path) -> None:
    with partial(tmp_path / "parts", NAME, is_kept=True) as part:
        part.restart('"a"', len(WAV))
        part.append(WAV[:HALF])
    server.answers = [[head(416, f"Content-Range: bytes */{HALF}", "Content-Length: 0")], whole(OTHER)]
    assert await _fetch(server, tmp_path, kept=True) == OTHER


async def test_answers_about_ranges_that_never_make_sense_are_given_up(server: Scripted, tmp_path: Path) -> None:
    wrong = rest(WAV, HALF, TAG, told="bytes 1-2/3")
    server.answers = [step for _ in range(9) for step in (whole(WAV, TAG, cut=HALF), wrong)]
    assert (await _refused(server, tmp_path)).reason is Reason.UNEXPECTED_STATUS
    assert len(server.asked) == 6


async def test_a_part_that_was_the_whole_is_the_whole(server: Scripted, tmp_path: Path) -> None:
    server.answers = [[head(416, f"Content-Range: bytes */{len(WAV)}", "Content-Length: 0")]]
    with partial(tmp_path / "parts", NAME, is_kept=True) as part:
        part.restart('"a"', None)
        part.append(WAV)
    assert await _fetch(server, tmp_path, kept=True) == WAV
    assert server.asked[0]["range"] == f"bytes={len(WAV)}-"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ([head(200, f"Content-Length: {len(WAV)}"), WAV[:-10]], Reason.INTERRUPTED),
        ([head(200, "Transfer-Encoding: chunked"), b"400\r\n" + WAV[:1024] + b"\r\n", RESET], Reason.INTERRUPTED),
        ([head(200, "Transfer-Encoding: chunked"), b"400\r\n" + WAV[:1024] + b"\r\n"], Reason.INTERRUPTED),
        ([head(200), WAV[:1024]], Reason.TRUNCATED),  # ends with its connection
        ([RESET], Reason.UNREACHABLE),
        ([head(200, "Content-Length: 9000"), WAV[:100], STALL], Reason.STALLED),
        ([STALL], Reason.STALLED),
        ([head(200, "Content-Length: 2000000"), bytes(1_000_001)], Reason.TOO_LARGE),
        ([head(200, "Content-Encoding: gzip"), gzip.compress(bytes(1_000_001))], Reason.TOO_LARGE),
        ([head(200, "Content-Encoding: gzip"), gzip.compress(WAV)[:-9]], Reason.TRUNCATED),
        ([head(200, "Content-Encoding: br"), b"\x0b\x02\x80RIFF"], Reason.COMPRESSED),
        ([head(200, "Content-Encoding: gzip"), b"no such call"], Reason.NOT_A_RECORDING),
        ([head(200), b"hb is no zlib, though it begins like it"], Reason.NOT_A_RECORDING),
        ([head(200), zlib.compress(b"<html>log in")], Reason.NOT_A_RECORDING),
        ([head(200, "Content-Encoding: deflate"), zlib.compress(b"<html>log in")], Reason.LOGIN_PAGE),
        ([head(200, "Content-Encoding: gzip"), gzip.compress(b"\n<html>log in")[:-4]], Reason.LOGIN_PAGE),
        ([head(200, "Content-Encoding: deflate"), zlib.compress(WAV)[:-9]], Reason.TRUNCATED),
        ([head(200, "Content-Encoding: deflate"), zlib.compress(bytes(1_000_001))], Reason.TOO_LARGE),
        ([head(200), BOMB], Reason.TOO_LARGE),
        ([head(200, "Content-Encoding: deflate"), RAW_BOMB], Reason.TOO_LARGE),
        ([head(302, "Content-Length: 0", "Location: /again")], Reason.TOO_MANY_REDIRECTS),
        ([head(200), b"\xef\xbb\xbf\r\n <html>log in"], Reason.LOGIN_PAGE),
        ([head(200), b"\r", b"\n", b"<", b"html>log in"], Reason.LOGIN_PAGE),
        ([head(200), "\ufeff<html>log in".encode("utf-16-le")], Reason.LOGIN_PAGE),
        ([head(200, "Content-Encoding: gzip"), gzip.compress(b"\n<html>log in")], Reason.LOGIN_PAGE),
        ([PAGE, b"please log in"], Reason.LOGIN_PAGE),
        ([PAGE, b"please log in" * 10, STALL], Reason.LOGIN_PAGE),
        ([PAGE], Reason.LOGIN_PAGE),
        ([head(200), b"please log in"], Reason.NOT_A_RECORDING),
    ],
)
async def test_what_is_not_whole_is_told_for_what_it_is(
    server: Scripted, tmp_path: Path, answer: list[Any], reason: Reason
) -> None:
    server.answers = [answer]
    limits = IMPATIENT if reason is Reason.STALLED else LIMITS
    assert (await _refused(server, tmp_path, limits=limits)).reason is reason


NOISE = random.Random(7).randbytes(9000)  # noqa: S311 - no secret
DAMAGED = gzip.compress(WAV)[:-4000] + NOISE[:100] + gzip.compress(WAV)[-3900:]


@pytest.mark.parametrize(
    ("encoding", "body", "reason"),
    [
        ("br", NOISE, Reason.COMPRESSED),
        ("zstd", NOISE, Reason.COMPRESSED),
        ("gzip", gzip.compress(WAV)[:-500], Reason.TRUNCATED),
        ("", gzip.compress(WAV)[:-500], Reason.TRUNCATED),
        ("gzip", DAMAGED, Reason.COMPRESSED),
        ("deflate", zlib.compress(WAV)[:-500], Reason.TRUNCATED),
        ("br, gzip", gzip.compress(NOISE), Reason.COMPRESSED),
        ("br", b"no such call", None),
        ("gzip", gzip.compress(b'{"error": "no such call"}', mtime=0)[:-4], None),
        ("gzip", gzip.compress(b"<html>" + NOISE)[:-500], None),
    ],
)
async def test_what_cannot_be_decompressed_is_refused_as_it_was_sent(
    server: Scripted, tmp_path: Path, encoding: str, body: bytes, reason: Reason | None
) -> None:
    server.answers = [[head(200, f"Content-Length: {len(body)}", f"Content-Encoding: {encoding}"), body]]
    refused: list[tuple[Reason, bytes, int, str]] = []

    async def note(error: RefusedError) -> None:
        content = error.content
        refused.append((error.reason, content.file.read(), content.bytes, content.sha256))

    async with _client(server, tmp_path) as client:
        with partial(tmp_path / "parts", NAME, is_kept=True) as part, pytest.raises(FetchError):
            async with client.fetch(f"{server.origin}/rec", part, seen_bytes=None, on_refused=note):
                pass
    assert refused == ([] if reason is None else [(reason, body, len(body), sha256(body).hexdigest())])


@pytest.mark.parametrize(
    ("told", "body"),
    [
        *(
            (told, WAV)
            for told in ("none", "binary", "UTF-8", "aws-chunked", "gzip", "deflate", "br", "identity, gzip", "", "x", ",")
        ),
        *(
            (told, gzip.compress(WAV))
            for told in ("gzip", "x-gzip", "GZIP", "identity, gzip", "none", "deflate", "br, gzip", "utf-8")
        ),
        *((told, zlib.compress(WAV, level)) for told in ("deflate", "gzip", "none") for level in (0, 1, 9)),
        ("br", b"\r\n" + WAV),
        ("deflate", _raw(WAV)),
        ("identity, deflate", _raw(WAV) + b"\r\n"),
        ("gzip, gzip", gzip.compress(gzip.compress(WAV))),
        ("deflate, gzip", gzip.compress(zlib.compress(WAV))),
        ("deflate, gzip", gzip.compress(_raw(WAV))),
        ("gzip", gzip.compress(WAV) + b"\r\n"),
        ("gzip", gzip.compress(WAV) + b"\0\0more"),
    ],
)
@pytest.mark.parametrize("kind", ["audio/wav", "text/html"])
async def test_the_bytes_say_whether_they_are_compressed(
    server: Scripted, tmp_path: Path, told: str, body: bytes, kind: str
) -> None:
    answer = head(200, f"Content-Encoding: {told}", f"Content-Length: {len(body)}").replace(b"audio/wav", kind.encode())
    server.answers = [[answer, body]]
    assert (await _fetch(server, tmp_path)).lstrip() == WAV


async def test_compressed_bytes_that_nobody_told_of_are_decompressed(server: Scripted, tmp_path: Path) -> None:
    for body in (gzip.compress(WAV), zlib.compress(WAV)):
        server.answers = [whole(body)]
        assert await _fetch(server, tmp_path) == WAV


async def test_a_recording_that_is_called_a_page_is_a_recording(server: Scripted, tmp_path: Path) -> None:
    server.answers = [[PAGE, WAV[:2], WAV[2:]]]
    assert await _fetch(server, tmp_path) == WAV


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize(
    "line", [b'ETag: "caf\xe9"', b'ETag: "\xc3\xa9"', b"Last-Modified: a\x85b", b"Content-Encoding: ", b"Date: \xff"]
)
async def test_headers_that_are_no_ascii_break_nothing(server: Scripted, tmp_path: Path, line: bytes, *, kept: bool) -> None:
    odd = head(200, f"Content-Length: {len(WAV)}")[:-2] + line + b"\r\n\r\n"
    server.answers = [[odd, WAV[:HALF]], [odd, WAV]]
    assert (await _refused(server, tmp_path, kept=kept)).reason is Reason.INTERRUPTED
    assert await _fetch(server, tmp_path, kept=kept) == WAV
    server.answers = [[odd.replace(line, b"Content-Encoding: caf\xe9"), WAV]]
    assert await _fetch(server, tmp_path, kept=kept) == WAV


async def test_a_download_slower_than_the_minimum_is_given_up_and_a_slow_one_above_it_is_not(
    server: Scripted, tmp_path: Path
) -> None:
    drip: list[bytes | object] = [head(200, f"Content-Length: {len(WAV)}"), *(WAV[n : n + 64] for n in range(0, len(WAV), 64))]
    server.answers = [drip]
    assert await _fetch(server, tmp_path) == WAV
    demanding = Limits(1_000_000, stall_s=0.001, min_bytes_per_second=1e12)
    assert (await _refused(server, tmp_path, limits=demanding)).reason is Reason.STALLED


async def test_what_is_unpacked_lies_in_the_directory_of_downloads(
    server: Scripted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    packed = gzip.compress(WAV)
    server.answers = [[head(200, "Content-Encoding: gzip", f"Content-Length: {len(packed)}"), packed]]
    assert await _fetch(server, tmp_path) == WAV


@pytest.mark.parametrize("behind", [b"", bytes(20_000)])
async def test_a_body_packed_in_several_members_is_unpacked_to_its_end(server: Scripted, tmp_path: Path, behind: bytes) -> None:
    streamed = WAV[:4] + b"\xff" * 4 + WAV[8:40] + b"\xff" * 4 + WAV[44:]
    members = b"".join(gzip.compress(piece) for piece in (streamed[:HALF], b"", streamed[HALF:]))
    packed = members + behind
    server.answers = [[head(200, "Content-Encoding: gzip", f"Content-Length: {len(packed)}"), packed]]
    assert await _fetch(server, tmp_path, seen=len(streamed)) == streamed
    bomb = gzip.compress(bytes(400_000)) * 3
    server.answers = [[head(200, "Content-Encoding: gzip", f"Content-Length: {len(bomb)}"), bomb]]
    assert (await _refused(server, tmp_path)).reason is Reason.TOO_LARGE
    for wrong, reason in (
        (gzip.compress(WAV) + gzip.compress(WAV)[:-8] + b"x" * 8, Reason.COMPRESSED),
        (members[:-9], Reason.TRUNCATED),
    ):
        server.answers = [[head(200, "Content-Encoding: gzip", f"Content-Length: {len(wrong)}"), wrong]]
        assert (await _refused(server, tmp_path)).reason is reason


async def test_breaks_without_end_are_bounded(server: Scripted, tmp_path: Path) -> None:
    server.answers = [whole(WAV, TAG, cut=HALF), *(rest(WAV, HALF + n, TAG, cut=HALF + n + 1) for n in range(100))]
    assert (await _refused(server, tmp_path)).reason is Reason.INTERRUPTED
    assert len(server.asked) == 20


async def test_a_download_goes_on_for_as_long_as_each_piece_brings_it_further(server: Scripted, tmp_path: Path) -> None:
    long, piece = recording("7", 50), 16 * 1024
    starts = range(piece, len(long), piece)
    server.answers = [whole(long, TAG, cut=piece), *(rest(long, start, TAG, cut=start + piece) for start in starts)]
    assert await _fetch(server, tmp_path) == long
    assert len(server.asked) == 1 + len(starts) > 40


async def test_nobody_there_is_unreachable(tmp_path: Path) -> None:
    async with scripted() as gone:
        pass
    assert (await _refused(gone, tmp_path)).reason is Reason.UNREACHABLE


@pytest.mark.parametrize("size", [b"\0\0\0\0", b"\xff\xff\xff\xff"])
@pytest.mark.parametrize("is_audio_open", [True, False])  # some writers bring the length of the audio up to date as they go
async def test_a_header_that_tells_no_length_is_believed_once_two_tries_saw_the_same(
    server: Scripted, tmp_path: Path, size: bytes, *, is_audio_open: bool
) -> None:
    streamed = WAV[:4] + size + WAV[8:40] + (size if is_audio_open else WAV[40:44]) + WAV[44:]
    still_written = streamed[:-100] if is_audio_open else WAV[:4] + size + recording("7", 1)[8:]
    server.answers = [whole(still_written), whole(streamed)]
    first = await _refused(server, tmp_path)
    second = await _refused(server, tmp_path, seen=first.size)
    assert (first.reason, second.reason, second.size) == (Reason.GROWING, Reason.GROWING, len(streamed))
    assert await _fetch(server, tmp_path, seen=second.size) == streamed


async def test_a_part_outlives_its_process_only_where_it_surely_is_the_beginning(
    server: Scripted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = tmp_path / "parts"

    def begin() -> Path:
        forget(parts, NAME)
        with partial(parts, NAME, is_kept=True) as part:
            part.restart('"a"', len(WAV))
            part.append(WAV[:HALF])
        (note,) = parts.glob("*.note")
        return note

    begin()
    server.answers = [rest(WAV, HALF, TAG)]
    assert await _fetch(server, tmp_path, kept=True) == WAV
    assert server.asked[-1]["range"] == f"bytes={HALF}-"
    server.answers = [whole(WAV, TAG)]
    spoils: tuple[Callable[[Path], object], ...] = (
        lambda note: note.unlink(),
        lambda note: note.write_bytes(b"{"),
        lambda note: note.write_bytes(orjson.dumps(orjson.loads(note.read_bytes()) | {"boot": "another"})),
    )
    for spoil in spoils:
        spoil(begin())
        assert await _fetch(server, tmp_path, kept=True) == WAV
        assert "range" not in server.asked[-1]
    with monkeypatch.context() as elsewhere:  # a system that does not tell one start from another
        elsewhere.setattr("worker.download.partial_file._BOOT_ID", tmp_path / "nowhere")
        forget(parts, NAME)
        with partial(parts, NAME, is_kept=True) as part:
            part.restart('"a"', len(WAV))
            part.append(WAV[:HALF])
            assert not part.is_kept
        assert await _fetch(server, tmp_path, kept=True) == WAV
        assert "range" not in server.asked[-1]
    begin()
    (file,) = parts.glob("*.part")
    with closing(file.open("rb")) as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert await _fetch(server, tmp_path, kept=True) == WAV
        assert "range" not in server.asked[-1]
        assert file.read_bytes() == WAV[:HALF], "another's part is not touched"
    forget(parts, NAME)
    assert list(parts.iterdir()) == []


def test_parts_nobody_has_touched_for_days_are_swept(tmp_path: Path) -> None:
    for name, age_s in (
        ("old.part", 3 * 86400),
        ("old.note", 3 * 86400),
        ("new.part", 3600),
        ("new.note", 3 * 86400),
        ("other.txt", 3 * 86400),
    ):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time.time() - age_s,) * 2)
    sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.note", "new.part", "other.txt"]


async def test_parts_are_swept_while_a_worker_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.download.download_directory._SWEEP_S", 0.01)
    (tmp_path / "old.part").touch()
    os.utime(tmp_path / "old.part", (time.time() - 3 * 86400,) * 2)

    async def is_gone() -> bool:
        return not (tmp_path / "old.part").exists()

    async with background(keep_swept(tmp_path)):
        await eventually(is_gone)


async def test_a_sweep_without_descriptors_ends_no_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.download.download_directory._SWEEP_S", 0.01)
    (tmp_path / "old.part").touch()
    os.utime(tmp_path / "old.part", (time.time() - 3 * 86400,) * 2)
    failures = iter([OSError(errno.EMFILE, os.strerror(errno.EMFILE))])
    glob = Path.glob

    def fails_once(path: Path, pattern: str) -> Iterator[Path]:
        for failure in failures:
            raise failure
        return glob(path, pattern)

    monkeypatch.setattr(Path, "glob", fails_once)

    async def is_gone() -> bool:
        return not (tmp_path / "old.part").exists()

    async with background(keep_swept(tmp_path)):
        await eventually(is_gone)


def test_a_directory_of_downloads_that_cannot_be_written_is_refused_unless_it_is_only_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == [], "nothing is left of the probe"
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="CALLFOLD_RECORDING_DIR"):
        prepare(tmp_path / "file")

    def fails(number: int) -> None:
        def open_(**_: object) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr("worker.download.download_directory.tempfile.TemporaryFile", open_)

    fails(errno.EROFS)
    with pytest.raises(ConfigError, match="Read-only"):
        prepare(tmp_path)
    fails(errno.ENOSPC)
    prepare(tmp_path)  # calls are folded all the same
    with pytest.raises(ConfigError, match="No space"):
        check_directory(tmp_path)


def test_a_part_without_name_leaves_nothing(tmp_path: Path) -> None:
    with partial(tmp_path, NAME, is_kept=False) as part:
        part.append(b"secret audio")
        assert isinstance(part, Partial)
        assert not part.is_kept
        assert list(tmp_path.iterdir()) == []


_SOON = b"HTTP/1.1 100 Continue\r\n\r\n"
_HEAD = b"HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("first", "again"),
    [
        (b"", _SOON),
        (b"HTTP/1.1 200 x\r\n", b"X-A: b\r\n"),
        (_HEAD + b"1;", b"x"),
        (_HEAD + b"4\r\nRIFF\r\n0\r\n", b"X-A: b\r\n"),
    ],
    ids=["continue", "headers", "chunk-extension", "trailers"],
)
async def test_a_drip_that_is_no_body_does_not_go_on_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: bytes, again: bytes
) -> None:
    monkeypatch.setattr("worker.download.client._CONNECT_TIMEOUT_S", 1)

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(first)
        with suppress(ConnectionError):
            while not writer.is_closing():
                writer.write(again)
                await writer.drain()
                await asyncio.sleep(0.05)

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    dripping = Scripted()
    dripping.port = server.sockets[0].getsockname()[1]
    try:
        async with asyncio.timeout(LIMIT_S):
            assert (await _refused(dripping, tmp_path, limits=IMPATIENT)).reason is Reason.STALLED
    finally:
        server.close()


async def test_a_part_is_of_one_link_and_one_without_validator_takes_no_room(server: Scripted, tmp_path: Path) -> None:
    with partial(tmp_path, NAME, is_kept=True, link="https://a/1") as part:
        part.restart('"a"', len(WAV))
        part.append(WAV[:HALF])
    with partial(tmp_path, NAME, is_kept=True, link="https://a/1") as part:
        assert part.size == HALF
    with partial(tmp_path, NAME, is_kept=True, link="https://a/2") as part:
        assert part.size == 0, "the other leg's, perhaps, with the same validator"
        part.restart(None, len(OTHER))
        part.append(OTHER[:HALF])
    assert sum(path.stat().st_size for path in tmp_path.glob("*.part")) == 0
