"""Sidecars on a real archive: nothing is written over, nothing forgotten, whatever was lost, sealed or in between."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from hashlib import sha256, sha512
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import pyrage
import pytest

from console.lookup.sidecar_search import RecordingSearch, sidecars_of
from shared.archive.encryption import encrypt
from shared.domain.closing import Policy
from shared.domain.recording import RecordingState
from shared.domain.recording_info import RecordingInfo
from shared.errors import BusyError
from simulator.audio import recording
from tests.helpers.recordings import GUID, WAV, job
from tests.helpers.shelf import JOB, OTHER, Shelf

DIGITS = sha256(OTHER).hexdigest()[:8]


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def _told(info: RecordingInfo) -> list[object]:
    return [info.event_suffix, info.at, *info.event_data().values()]


async def test_equal_content_changes_nothing_though_recordings_are_sealed_by_now(shelf: Shelf) -> None:
    first = await shelf.store(WAV)
    shelf.recipient = str(pyrage.x25519.Identity.generate().to_public())
    assert _told(await shelf.store(WAV, round=2)) == _told(first)
    assert shelf.files() == ["json", "wav"]
    assert await shelf.differences() == []


async def test_other_content_is_kept_beside_though_recordings_are_sealed_by_now(shelf: Shelf) -> None:
    first = await shelf.store(WAV)
    shelf.recipient = str(pyrage.x25519.Identity.generate().to_public())
    other = await shelf.store(OTHER, round=2)
    assert (other.event_suffix, other.reason) == (f"/{DIGITS}", "other_content")
    assert _told(await shelf.store(OTHER, round=3)) == _told(other)
    assert _told(await shelf.store(WAV, round=4)) == _told(first)
    assert shelf.files() == [f"{DIGITS}.wav.age", "json", "wav"]
    assert await shelf.differences() == []


@pytest.mark.parametrize("end", ["wav", "wav.age"])
async def test_a_recording_that_lost_its_sidecar_is_told_of_again_beside_another_content(shelf: Shelf, end: str) -> None:
    shelf.recipient = str(pyrage.x25519.Identity.generate().to_public()) if end == "wav.age" else None
    await shelf.store(WAV)
    shelf.file("json").unlink()
    other = await shelf.store(OTHER)
    assert shelf.files() == [f"{DIGITS}.{end}", "json", end]
    assert (other.event_suffix, other.reason) == (f"/{DIGITS}", "other_content")
    sidecar = await shelf.sidecar()
    assert [str(info.uri).rpartition("/")[2] for info in sidecar.contents] == [f"{GUID}.{DIGITS}.{end}", f"{GUID}.{end}"]
    assert await shelf.differences() == []


@pytest.mark.parametrize("end", ["wav", "wav.age"])
@pytest.mark.parametrize("content", [WAV, OTHER, recording("9", 1.5)], ids=["first", "second", "third"])
async def test_whatever_is_fetched_after_a_sidecar_was_lost_all_recordings_of_its_leg_are_told_of_again(
    shelf: Shelf, end: str, content: bytes
) -> None:
    shelf.recipient = str(pyrage.x25519.Identity.generate().to_public()) if end == "wav.age" else None
    await shelf.store(WAV)
    second = await shelf.store(OTHER, round=2)
    shelf.file("json").unlink()
    again = await shelf.store(content)
    if content == OTHER and end == "wav":
        assert (again.event_suffix, again.uri) == (second.event_suffix, second.uri)
    assert await shelf.differences() == []
    files = [name for name in shelf.files() if name != "json"]
    assert sorted(str(info.uri).removesuffix(end).rpartition("/")[2] for info in (await shelf.sidecar()).contents) == sorted(
        f"{GUID}.{name}".removesuffix(end) for name in files
    )


async def test_what_is_beside_a_lost_sidecar_and_its_first_recording_is_found_where_it_is_asked_for_again(shelf: Shelf) -> None:
    await shelf.store(WAV)
    await shelf.store(OTHER, round=2)
    shelf.file("json").unlink()
    shelf.file("wav").unlink()
    await shelf.store(WAV, is_again=True)
    assert shelf.files() == [f"{DIGITS}.wav", "json", "wav"]
    assert await shelf.differences() == []


async def test_a_file_of_another_leg_is_not_taken_up_though_its_call_id_looks_like_a_fingerprint(shelf: Shelf) -> None:
    await shelf.store(WAV)
    leg = job("12345678", guid=GUID, name=f"{GUID}.12345678", record={"revision": 1})
    await shelf.store(OTHER, job=leg, body=leg.encode())
    shelf.file("json").unlink()
    await shelf.store(recording("9", 1.5))
    assert len((await shelf.sidecar()).contents) == 2
    assert await shelf.differences() == []
    shelf.file("json").unlink()
    shelf.file("12345678.json").unlink()
    await shelf.store(recording("9", 1.5))
    assert len((await shelf.sidecar()).contents) == 2
    assert await shelf.differences() == [(f"{GUID}.12345678.wav", "has no sidecar")], "until it is asked for"


async def test_a_call_id_used_again_on_the_same_day_is_not_taken_for_the_first_call(shelf: Shelf) -> None:
    """Without GUIDs, both recordings have the same name. A PBX that was reset counts again from the beginning."""
    jobs = [job("7", guid=None, call=call, record={"revision": 1}) for call in ("call-7", "call-7.2", "20")]
    for number, one in enumerate(jobs):
        before = (await shelf.sidecars.read(one)).before
        assert before is None
        info = await shelf.store(recording(str(number), 0.5), job=one, body=one.encode())
        assert (info.state, info.reason) == (RecordingState.STORED, None)
    assert [sidecar.call for sidecar in await sidecars_of(shelf.archive, jobs)] == ["call-7", "call-7.2", "20"]
    search = RecordingSearch(shelf.archive, AsyncMock(read=AsyncMock(return_value=None)), Policy(1, 1, 1))
    for one in jobs:
        found = await search.find("acme", one.name, one.call)
        assert found is not None
        assert found.call == one.call
    assert await shelf.differences() == []


async def test_a_recording_that_lost_its_sidecar_is_not_written_again(shelf: Shelf) -> None:
    await shelf.store(WAV)
    shelf.file("json").unlink()
    before = shelf.file("wav").stat().st_mtime_ns
    info = await shelf.store(WAV)
    assert (info.event_suffix, info.reason, info.seconds) == ("", None, 1.5)
    assert shelf.file("wav").stat().st_mtime_ns == before
    assert await shelf.differences() == []


async def test_another_content_does_not_take_the_place_of_a_recording_whose_file_was_lost(shelf: Shelf) -> None:
    first = await shelf.store(WAV)
    shelf.file("wav").unlink()
    other = await shelf.store(OTHER, is_again=True)
    assert (other.event_suffix, other.reason) == (f"/{DIGITS}", "other_content")
    assert (await shelf.sidecar()).recording.sha256 == first.sha256
    assert await shelf.differences() == [(f"{GUID}.wav", "is missing")], "which is true"


@pytest.mark.parametrize("end", ["wav", "wav.age"])
@pytest.mark.parametrize("damage", ["lost", "cut"])
async def test_a_recording_whose_file_was_lost_is_restored_and_its_event_repeated(shelf: Shelf, end: str, damage: str) -> None:
    shelf.recipient = str(pyrage.x25519.Identity.generate().to_public()) if end == "wav.age" else None
    first = await shelf.store(WAV)
    file = shelf.file(end)
    if damage == "lost":
        file.unlink()
        assert _told(await shelf.store(WAV, round=2, number=3)) == _told(first)
    else:
        damaged = file.read_bytes()[:-100]
        file.write_bytes(damaged)
        again = await shelf.store(WAV, round=2, number=3)
        assert again.event_suffix, "it lies elsewhere, so that it has an event of its own"
        assert file.read_bytes() == damaged, "what is left of the first is evidence, too"
    assert await shelf.differences() == []


async def test_a_recording_whose_file_was_lost_is_not_restored_unsealed(shelf: Shelf) -> None:
    first = await shelf.store(WAV)
    shelf.file("wav").unlink()
    shelf.recipient = str(pyrage.x25519.Identity.generate().to_public())
    again = await shelf.store(WAV, round=2)
    assert shelf.files() == [f"{sha256(WAV).hexdigest()[:8]}.wav.age", "json"]
    assert again.event_suffix not in {"", first.event_suffix}
    assert _told(await shelf.store(WAV, round=3)) == _told(again)
    assert await shelf.differences() == []


@pytest.mark.parametrize("theirs", [OTHER, WAV])
@pytest.mark.parametrize("moment", [1, 2, 3, 4])
async def test_of_two_that_both_think_they_have_the_lock_neither_forgets_what_the_other_stored(
    shelf: Shelf, theirs: bytes, moment: int
) -> None:
    """`moment`: before the sidecar is read, before it tells what is begun, before the file gets its name, before the last sidecar."""
    looks = 0

    async def lose_the_lock() -> None:
        nonlocal looks
        looks += 1
        if looks == moment:
            await shelf.store(theirs)

    try:
        await shelf.store(WAV, lose_the_lock)
    except BusyError:
        await shelf.store(WAV)  # the job comes again
    assert await shelf.differences() == []
    stored = {info.sha256 for info in (await shelf.sidecar()).contents}
    assert stored == {sha256(content).hexdigest() for content in (WAV, theirs)}
    assert len(shelf.files()) == 1 + len(stored), "each once"


async def test_what_another_stored_while_a_recording_was_sealed_is_not_forgotten(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.recipient = str(pyrage.x25519.Identity.generate().to_public())
    theirs: list[RecordingInfo] = []

    def slowly(*sealing: Any) -> None:  # noqa: ANN401
        monkeypatch.setattr("worker.recordings.stored_form.encrypt", encrypt)
        theirs.append(asyncio.run(shelf.store(OTHER)))  # in the thread that seals
        encrypt(*sealing)

    monkeypatch.setattr("worker.recordings.stored_form.encrypt", slowly)
    with pytest.raises(BusyError):
        await shelf.store(WAV)
    assert (await shelf.sidecar()).recording == theirs[0]
    await shelf.store(WAV)
    assert {info.sha256 for info in (await shelf.sidecar()).contents} == {sha256(content).hexdigest() for content in (WAV, OTHER)}
    assert await shelf.differences() == []


async def test_what_was_about_to_be_stored_is_not_believed_to_be_there_because_of_its_size(shelf: Shelf) -> None:
    await shelf.store(WAV)
    sidecar = await shelf.sidecar()
    begun = replace(
        sidecar.recording, sha256=sha256(OTHER).hexdigest(), sha512=sha512(OTHER).hexdigest(), state=RecordingState.STORING
    )
    await shelf.sidecars.put(replace(sidecar, recording=begun))
    assert (await shelf.sidecars.read(JOB)).after.state is RecordingState.WAITING
    await shelf.store(OTHER)
    assert await shelf.differences() == []
    assert len((await shelf.sidecar()).contents) == 2


async def test_an_archive_that_was_moved_is_read_by_where_it_is(shelf: Shelf) -> None:
    first = await shelf.store(WAV)
    shelf.root.rename(shelf.directory / "elsewhere")
    shelf.use(shelf.directory / "elsewhere")
    assert await shelf.differences() == []
    sidecar = await shelf.sidecar()
    assert await shelf.sidecars.has_file(sidecar, sidecar.recording)
    assert _told(await shelf.store(WAV, round=2)) == _told(first)
    await shelf.store(OTHER, round=3)
    assert await shelf.differences() == []


@pytest.mark.parametrize("is_encrypted", [False, True])
async def test_recordings_are_stored_with_both_checksums_and_a_damaged_one_is_found(shelf: Shelf, is_encrypted: bool) -> None:  # noqa: FBT001
    shelf.recipient = str(pyrage.x25519.Identity.generate().to_public()) if is_encrypted else None
    info = await shelf.store(WAV)
    assert (info.sha256, info.sha512) == (sha256(WAV).hexdigest(), sha512(WAV).hexdigest())
    assert info.event_data()["sha512"] == info.sha512
    file = shelf.file("wav.age" if is_encrypted else "wav")
    assert info.file_sha512 == sha512(file.read_bytes()).hexdigest()
    written = shelf.file("json").read_text()
    assert await shelf.differences() == []
    shelf.file("json").write_text(written.replace(str(info.file_sha512), "0" * 128))
    assert [problem for _, problem in await shelf.differences()] == [f"has SHA-512 {info.file_sha512} instead of {'0' * 128}"]
    sidecar = await shelf.sidecar()
    of_previous_release = replace(sidecar.recording, sha512=None, stored_sha512=None)
    shelf.file("json").write_bytes(replace(sidecar, recording=of_previous_release).encode())
    assert (await shelf.sidecar()).recording.sha512 is None
    assert await shelf.differences() == []


async def test_a_restored_recording_of_a_previous_release_repeats_its_event(shelf: Shelf) -> None:
    first = await shelf.store(WAV)
    sidecar = await shelf.sidecar()
    older = replace(sidecar, recording=replace(sidecar.recording, sha512=None))
    shelf.file("json").write_bytes(older.encode())
    shelf.file("wav").unlink()
    again = await shelf.store(WAV, round=2)
    assert again.event_data() == replace(first, sha512=None).event_data()
    assert again.event_suffix == first.event_suffix
