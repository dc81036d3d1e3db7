"""Recordings over HTTP: whole, in ranges, sealed, as a picture; who listened is told; nothing else of the archive can be had."""

from __future__ import annotations

import array
import asyncio
import io
import json
import os
import re
import sys
import wave
from collections.abc import AsyncIterator
from typing import Any

import aio_pika
import aiohttp
import pyrage
import pytest
import pytest_asyncio
import soundfile

from shared.domain.ids import CallRef, SourceName
from shared.domain.raw_event import CallbackEvent, encode, join
from tests.helpers.console import AS_VIEWER, AUTHORIZED, KEY, VIEWER_KEY, World, world
from tests.helpers.pace import LIMIT_S
from tests.helpers.recordings import GUID, WAV, exists, job, serving, submit
from tests.helpers.servers import ROOT, Servers, eventually, lines_of, next_events

_SEALED = "0f0f0f0f-0000-0000-0000-00000000000a"
_ABSENT = "0f0f0f0f-0000-0000-0000-00000000000b"
_LARGE = "0f0f0f0f-0000-0000-0000-00000000000c"
_SPOKEN = "0f0f0f0f-0000-0000-0000-00000000000e"
_FLOAT = "0f0f0f0f-0000-0000-0000-00000000000d"
_LARGE_WAV = WAV[:44] + bytes(64 << 20)


@pytest_asyncio.fixture(scope="module")
async def here(shared_servers: Servers) -> AsyncIterator[World]:
    identity = pyrage.x25519.Identity.generate()
    keys = shared_servers.directory / "key.txt"
    keys.write_text(f"{identity}\n", encoding="utf-8")
    async with serving() as pbx:
        text = f'[sources.acme]\nrecording_origin = "{pbx.url}"\n[sources.sealed]\nrecording_origin = "{pbx.url}"\n'
        text += f'archive_recipient = "{identity.to_public()}"\n'
        more = {"CALLFOLD_CONSOLE_KEY": KEY, "CALLFOLD_CONSOLE_VIEWER_KEYS": f"other, {VIEWER_KEY}"}
        async with world(shared_servers, text, "worker", "console", **more) as made:
            reader = made.add_console("reader", CALLFOLD_ARCHIVE_IDENTITY=str(keys))
            await reader.start()
            jobs = [
                job(),
                job(source="sealed", guid=_SEALED),
                job("8", guid=_ABSENT, fetch=False, state="not_recorded"),
            ]
            async with shared_servers.subscribed("recording.#") as queue:
                await submit(shared_servers, *(each.encode() for each in jobs))
                await next_events(queue, 2)  # nothing is told of one that there is nothing to fetch of
            beside = shared_servers.directory / "archive" / "acme" / "monitor" / "2026-UTC" / "11" / "23" / f"{_ABSENT}.json"
            await eventually(lambda: exists(beside))
            yield made


_PATH = f"/recordings/acme/{GUID}"


async def _get(here: World, path: str = _PATH, method: str = "GET", console: str = "console", **headers: str) -> Any:  # noqa: ANN401
    sent = AUTHORIZED | {name.replace("_", "-"): value for name, value in headers.items()}
    return await here.ask(method, path, console=console, headers=sent)


async def test_a_whole_recording_is_what_was_stored(here: World) -> None:
    status, body, headers = await _get(here)
    assert (status, body, headers["Content-Type"]) == (200, WAV, "audio/wav")
    assert headers["Accept-Ranges"] == "bytes"
    assert headers["Content-Disposition"] == f'inline; filename="{GUID}.wav"'
    assert re.fullmatch('"[0-9a-f]{64}"', headers["ETag"])
    assert (await _get(here, f"{_PATH}?call=513"))[:2] == (200, WAV)
    assert (await _get(here, f"{_PATH}?call=514"))[0] == 404
    status, body, told = await _get(here, method="HEAD")
    assert (status, body, told["Content-Length"], told["ETag"]) == (200, b"", str(len(WAV)), headers["ETag"])


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=10-19", 10, 19),
        ("bytes=10-", 10, len(WAV) - 1),
        ("bytes=0-", 0, len(WAV) - 1),
        ("bytes=-5", len(WAV) - 5, len(WAV) - 1),
        (f"bytes=-{10 * len(WAV)}", 0, len(WAV) - 1),
        (f"bytes=5-{10**17}", 5, len(WAV) - 1),
    ],
)
async def test_a_range_is_that_part(here: World, asked: str, first: int, last: int) -> None:
    status, body, headers = await _get(here, Range=asked)
    assert (status, body) == (206, WAV[first : last + 1])
    assert headers["Content-Range"] == f"bytes {first}-{last}/{len(WAV)}"
    status, body, _ = await _get(here, method="HEAD", Range=asked)
    assert (status, body) == (206, b"")


@pytest.mark.parametrize("asked", ["bytes=-0", f"bytes={len(WAV)}-", "bytes=20-10"])
async def test_a_range_outside_is_refused_with_the_size(here: World, asked: str) -> None:
    status, told, headers = await _get(here, Range=asked)
    assert (status, told["status"], headers["Content-Range"]) == (416, 416, f"bytes */{len(WAV)}")


@pytest.mark.parametrize("asked", ["bytes=", "bytes=-", "bytes=a-b", "items=0-1", "bytes=0-1,5-6", "bytes=\u0661-\u0662", "0-1"])
async def test_a_range_that_is_not_understood_is_not_there(here: World, asked: str) -> None:
    status, body, _ = await _get(here, Range=asked)
    assert (status, body) == (200, WAV)


async def test_what_is_known_is_not_sent_again_and_a_range_of_another_content_is_the_whole(here: World) -> None:
    _, _, headers = await _get(here)
    etag = headers["ETag"]
    for known in (etag, f'"x", {etag}', f"W/{etag}", "*"):
        status, body, told = await _get(here, If_None_Match=known, Range="bytes=0-0")
        assert (status, body, told["ETag"]) == (304, b"", etag)
    assert (await _get(here, If_None_Match='"x"'))[0] == 200
    assert (await _get(here, If_Range=etag, Range="bytes=0-0"))[0] == 206
    status, body, _ = await _get(here, If_Range='"x"', Range="bytes=0-0")
    assert (status, body) == (200, WAV)


async def test_a_sealed_recording_is_heard_where_its_identity_is(here: World) -> None:
    path = f"/recordings/sealed/{_SEALED}"
    status, told, _ = await _get(here, path)
    assert (status, "CALLFOLD_ARCHIVE_IDENTITY" in told["title"]) == (409, True)
    status, body, _ = await _get(here, path, console="reader")
    assert (status, body) == (200, WAV)
    status, body, _ = await _get(here, path, console="reader", Range="bytes=44-99")
    assert (status, body) == (206, WAV[44:100])
    assert (await _get(here, f"{path}/preview"))[0] == 409
    assert (await _get(here, f"{path}/preview", console="reader"))[:2] == (200, WAV)
    assert (await _get(here, f"{path}/waveform.svg"))[0] == 409
    assert (await _get(here, f"{path}/waveform.svg", console="reader"))[0] == 200


async def test_a_recording_can_be_seen(here: World) -> None:
    status, body, headers = await _get(here, f"{_PATH}/waveform.svg")
    assert (status, headers["Content-Type"].partition(";")[0]) == (200, "image/svg+xml")
    assert body.startswith(b"<svg")
    assert b"<script" not in body
    assert (await _get(here, f"{_PATH}/waveform.svg", method="HEAD"))[:2] == (200, b"")


async def test_a_preview_is_16_bit_audio_in_ranges(here: World) -> None:
    archive = here.servers.directory / "archive" / "acme" / "monitor" / "2026-UTC" / "11" / "23"
    sidecar = json.loads((archive / f"{GUID}.json").read_text("utf-8").replace(GUID, _FLOAT))
    sidecar["recording"]["sha256"] = "f" * 64  # by which pictures are kept
    (archive / f"{_FLOAT}.json").write_text(json.dumps(sidecar), "utf-8")
    soundfile.write(archive / f"{_FLOAT}.wav", [0.5, -0.5, 2.0] * 1000, 8000, subtype="FLOAT")
    path = f"/recordings/acme/{_FLOAT}"
    status, body, headers = await _get(here, f"{path}/preview")
    assert (status, headers["Content-Type"], headers["Accept-Ranges"]) == (200, "audio/wav", "bytes")
    with wave.open(io.BytesIO(body)) as audio:
        assert (audio.getnchannels(), audio.getsampwidth(), audio.getnframes()) == (1, 2, 3000)
    assert array.array("h", body[44:50]).tolist() == [16384, -16384, 32767]
    status, part, told = await _get(here, f"{path}/preview", Range="bytes=44-49")
    assert (status, part, told["Content-Range"]) == (206, body[44:50], f"bytes 44-49/{len(body)}")
    assert headers["ETag"] != (await _get(here, path))[2]["ETag"]
    assert (await _get(here, f"{path}/preview", If_None_Match=headers["ETag"]))[0] == 304
    assert (await _get(here, f"{path}/preview", method="HEAD"))[:2] == (200, b"")
    (archive / f"{_FLOAT}.wav").write_bytes(b"<html>" * 100)
    for unreadable in (f"{path}/preview", f"{path}/waveform.svg"):
        status, told, _ = await _get(here, unreadable)
        assert (status, "Download it instead." in told["title"]) == (404, True)


async def test_what_is_not_there_says_why(here: World) -> None:
    status, told, _ = await _get(here, f"/recordings/acme/{_ABSENT}")
    assert (status, told["state"]) == (404, "not_recorded")
    for path in (f"/recordings/none/{GUID}", f"/recordings/acme/{_SEALED}", "/recordings/acme/x.json", "/recordings/acme/call-7"):
        assert (await _get(here, path))[0] == 404


@pytest.mark.parametrize(
    "path",
    [
        "/recordings/acme/..%2f..%2f..%2fkey.txt",
        "/recordings/..%2f..%2fshared/key.txt",
        "/recordings/%2e%2e/%2e%2e/key.txt",
        f"/recordings/sealed/..%2facme%2fmonitor%2f2026-UTC%2f11%2f23%2f{GUID}",
        f"/recordings/acme/{GUID}%00.wav",
        f"/recordings/acme/{GUID}.json",
        f"/recordings/acme%2f..%2fsealed/{_SEALED}",
        f"/recordings/acme/{GUID}?call=../../../../key.txt",
        f"/recordings/acme/{GUID}?call=*",
        f"/recordings//acme/{GUID}",
        "/static/..%2f..%2fkey.txt",
    ],
)
async def test_no_path_leads_out_of_the_recordings(here: World, path: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(here.console.rpartition(":")[2]))
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {KEY}\r\n\r\n".encode())
    answer = await asyncio.wait_for(reader.read(), LIMIT_S)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 400" if "?" in path else b"HTTP/1.1 404")
    assert b"AGE-SECRET-KEY" not in answer


async def test_every_download_is_told_with_who_it_was_and_a_player_counts_once(here: World) -> None:
    log = here.roles["reader"].log_path

    def lines() -> list[str]:
        return [line for line in log.read_text("utf-8").splitlines() if '"download"' in line]

    before = len(lines())
    for start in (500, 44, 900):
        assert (await here.ask("GET", _PATH, console="reader", headers=AS_VIEWER | {"Range": f"bytes={start}-"}))[0] == 206
    assert len(lines()) == before + 1
    assert (await here.ask("GET", f"{_PATH}/preview", console="reader", headers=AS_VIEWER))[0] == 200
    assert len(lines()) == before + 2
    for method, path in (("HEAD", _PATH), ("GET", f"{_PATH}/waveform.svg"), ("GET", "/recordings/acme/x")):
        await here.ask(method, path, console="reader", headers=AS_VIEWER)
    assert len(lines()) == before + 2
    assert json.loads(lines()[-1])["source"] == "acme"
    assert GUID in lines()[-1]
    assert VIEWER_KEY not in log.read_text("utf-8")


async def test_a_recording_that_cannot_be_read_to_its_end_is_cut_and_never_ends_in_an_error_page(here: World) -> None:
    archive = here.servers.directory / "archive" / "acme" / "monitor" / "2026-UTC" / "11" / "23"
    sidecar = (archive / f"{GUID}.json").read_text("utf-8").replace(GUID, _LARGE)
    (archive / f"{_LARGE}.json").write_text(sidecar, "utf-8")
    file = archive / f"{_LARGE}.wav"
    file.write_bytes(_LARGE_WAV)
    async with here.session.get(f"{here.console}/recordings/acme/{_LARGE}", headers=AUTHORIZED) as response:
        assert response.status == 200
        got = await response.content.readexactly(100_000)
        file.unlink()
        with pytest.raises(aiohttp.ClientPayloadError):
            got += await response.content.read(-1)
    assert got == _LARGE_WAV[: len(got)]
    assert (await _get(here))[0] == 200


async def test_the_transcriber_of_the_examples_adds_a_transcript_to_the_call(here: World) -> None:
    queue = f"transcriber.{here.name}"
    program = [str(ROOT / "docs" / "examples" / "transcriber.py"), "--queue", queue, "--limit", "1"]
    environment = os.environ | {"AMQP_URL": here.servers.stack.amqp_url, "CONSOLE_URL": here.console, "CONSOLE_KEY": KEY}
    running = await asyncio.create_subprocess_exec(
        sys.executable, *program, cwd=ROOT, env=environment, stderr=asyncio.subprocess.PIPE
    )
    received_at = "2026-11-23T23:59:59.999999Z"
    raw = join(encode(CallbackEvent(SourceName("acme"), received_at, line)) for line in lines_of(9200))
    async with await aio_pika.connect(here.servers.stack.amqp_url, timeout=LIMIT_S) as connection:
        channel = await connection.channel()
        await (await channel.get_exchange("callbacks")).publish(aio_pika.Message(raw), routing_key="")
        await here.detail("acme/9200", status="complete")
        await eventually(lambda: _exists(connection, queue))
        spoken = job("9200", call=CallRef("9200"), request_id=9200, guid=_SPOKEN, name=_SPOKEN)
        await submit(here.servers, spoken.encode())
        async with asyncio.timeout(LIMIT_S):
            _, said = await running.communicate()
        for name in (queue, f"{queue}.dead"):
            await channel.queue_delete(name)
    assert (running.returncode, KEY in said.decode()) == (0, False), said.decode()
    (transcript,) = (await here.detail("acme/9200", published_revision=2))["record"]["annotations"]
    assert transcript["by"] == "transcriber.py"
    assert transcript["body"] == {
        "call_id": "9200",
        "engine": "example",
        "guid": _SPOKEN,
        "text": f"[no speech recognition: {len(WAV)} bytes of audio]",
    }


async def _exists(connection: aio_pika.abc.AbstractConnection, queue: str) -> bool:
    channel = await connection.channel()
    try:
        await channel.declare_queue(queue, passive=True)
    except aio_pika.exceptions.ChannelClosed:
        return False
    await channel.close()
    return True


async def test_a_viewer_may_not_annotate_and_a_large_body_is_refused(here: World) -> None:
    path, note = "/calls/acme/513/annotations", {"type": "note", "body": {"text": "x" * (64 << 10)}}
    assert (await here.ask("POST", path, headers=AS_VIEWER, json=note))[0] == 403
    assert (await here.ask("POST", path, json=note))[0] == 401
    assert (await here.ask("POST", path, headers=AUTHORIZED, json=note))[0] == 404, "over the limit of other bodies"
    too_large = [b"x" * ((256 << 10) + 1), _endless()]
    for body in too_large:
        status, told, _ = await here.ask("POST", path, headers=AUTHORIZED | {"Content-Type": "application/json"}, data=body)
        assert (status, "256 KiB" in told["title"]) == (413, True)


async def _endless() -> AsyncIterator[bytes]:
    """Send a body without a length, which never ends."""
    for _ in range(1000):
        yield b" " * (16 << 10)
