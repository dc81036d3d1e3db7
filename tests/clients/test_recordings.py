"""Recordings that the TypeScript client fetches through a real console: whole, resumed, decrypted, and refused."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pyrage
import pytest
import pytest_asyncio
from aiohttp import web

from simulator.audio import recording
from tests.helpers.console import KEY, VIEWER_KEY, World, world
from tests.helpers.cut_wire import cut_wire
from tests.helpers.node import CLIENT, PROGRAMS, node, run
from tests.helpers.recordings import GUID, WAV, job, serving, submit
from tests.helpers.servers import Servers, Stack, eventually, next_events
from tests.helpers.subscribers_broker import subscribers_broker

_README = (CLIENT / "README.md").read_text("utf-8")
_SEALED = "0f0f0f0f-0000-0000-0000-00000000000a"
_LARGE = "0f0f0f0f-0000-0000-0000-00000000000c"
_LARGE_WAV = recording("8", 60)


async def _large(_: web.Request) -> web.Response:
    return web.Response(body=_LARGE_WAV, content_type="audio/wav")


class _Stored:
    """A console, and the events of the recordings that it can send."""

    def __init__(self, here: World, events: dict[str, Any]) -> None:
        self.here = here
        self.events = events


@pytest_asyncio.fixture(scope="module")
async def stored(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[_Stored]:
    servers = Servers(stack, tmp_path_factory.mktemp("recordings"))
    identity = pyrage.x25519.Identity.generate()
    keys = servers.directory / "key.txt"
    keys.write_text(f"{identity}\n", encoding="utf-8")
    async with serving() as pbx:
        pbx.serve["8"] = _large
        text = f'[sources.acme]\nrecording_origin = "{pbx.url}"\n[sources.sealed]\nrecording_origin = "{pbx.url}"\n'
        text += f'archive_recipient = "{identity.to_public()}"\n'
        more = {"CALLFOLD_CONSOLE_KEY": KEY, "CALLFOLD_CONSOLE_VIEWER_KEYS": VIEWER_KEY, "CALLFOLD_ARCHIVE_IDENTITY": str(keys)}
        async with world(servers, text, "worker", "console", **more) as here, servers.subscribed("recording.#") as queue:
            await submit(servers, job().encode(), job(source="sealed", guid=_SEALED).encode(), job("8", guid=_LARGE).encode())
            events = [event.body for event in await next_events(queue, 3)]
            yield _Stored(here, {event["data"]["guid"]: event for event in events})


async def _fetched(event: object, **options: Any) -> Any:  # noqa: ANN401
    given = orjson.dumps(event).decode(), json.dumps({"key": VIEWER_KEY, **options})
    code, out, err = await run("node", str(PROGRAMS / "fetch.mjs"), *given)
    assert code == 0, err
    return json.loads(out)


@pytest.mark.parametrize(("guid", "content"), [(GUID, WAV), (_SEALED, WAV), (_LARGE, _LARGE_WAV)])
async def test_a_recording_arrives_whole_also_if_the_archive_encrypts_it(
    stored: _Stored, tmp_path: Path, guid: str, content: bytes
) -> None:
    result = await _fetched(stored.events[guid], console=stored.here.console, to=str(tmp_path / "a.wav"))
    assert result == {
        "path": str(tmp_path / "a.wav"),
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    assert (tmp_path / "a.wav").read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]


async def test_a_download_that_breaks_continues_where_it_ended(stored: _Stored, tmp_path: Path) -> None:
    port = int(stored.here.console.rpartition(":")[2])
    async with cut_wire(port, itertools.chain([200_000, 0, 300_000, 250_000], itertools.repeat(1 << 40))) as wire:
        console = f"http://127.0.0.1:{wire.port}/"
        result = await _fetched(stored.events[_LARGE], console=console, to=str(tmp_path / "a.wav"), attempts=8)
    assert result["bytes"] == len(_LARGE_WAV), result
    assert (tmp_path / "a.wav").read_bytes() == _LARGE_WAV
    assert wire.cut == 5  # each connection carried the rest only: all of it again would not fit


async def test_the_example_of_the_readme_fetches_each_recording_that_is_stored(stored: _Stored, tmp_path: Path) -> None:
    (text,) = [
        block for block in re.findall(r"^```js\n(.*?)^```$", _README, re.MULTILINE | re.DOTALL) if "fetchRecording" in block
    ]
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules" / "callfold-client").symlink_to(CLIENT)
    (tmp_path / "example.mjs").write_text(text, "utf-8")
    async with subscribers_broker(stored.here.servers, "transcripts.recordings") as broker:
        variables = {"AMQP_URL": broker.url, "CALLFOLD_CONSOLE": stored.here.console, "CALLFOLD_CONSOLE_KEY": VIEWER_KEY}
        async with node(tmp_path / "example.mjs", cwd=tmp_path, **variables) as program:
            await eventually(lambda: broker.has_consumer("transcripts.recordings"))
            event = stored.events[GUID]
            await broker.publish(("recording.stored.acme", event["id"], orjson.dumps(event)))
            await program.until(len)
    assert program.lines == [f"{GUID}.wav {len(WAV)}"]
    assert (tmp_path / f"{GUID}.wav").read_bytes() == WAV


async def test_another_content_than_the_event_names_is_refused_and_leaves_no_file(stored: _Stored, tmp_path: Path) -> None:
    event = {**stored.events[GUID], "data": {**stored.events[GUID]["data"], "sha256": "0" * 64}}
    result = await _fetched(event, console=stored.here.console, to=str(tmp_path / "a.wav"))
    assert (result["failed"], "SHA-256" in result["message"]) == ("RecordingError", True)
    assert list(tmp_path.iterdir()) == []


async def test_an_unknown_recording_a_wrong_key_and_a_recording_that_is_too_large_are_errors_at_once(
    stored: _Stored, tmp_path: Path
) -> None:
    event, to = stored.events[GUID], str(tmp_path / "a.wav")
    unknown = {**event, "subject": "999"}
    assert (await _fetched(unknown, console=stored.here.console, to=to))["status"] == 404
    refused = await _fetched(event, console=stored.here.console, to=to, key="wrong-key-0123456789abcdef")
    assert (refused["status"], "wrong-key" in refused["message"]) == (401, False)
    large = await _fetched(event, console=stored.here.console, to=to, maxBytes=1000)
    assert (large["failed"], "maxBytes" in large["message"]) == ("RecordingError", True)
    absent = {**event, "data": {**event["data"], "sha256": None}}
    assert "no stored recording" in (await _fetched(absent, console=stored.here.console, to=to))["message"]
    assert list(tmp_path.iterdir()) == []


async def test_a_console_that_does_not_answer_ends_the_attempts(tmp_path: Path, stored: _Stored) -> None:
    async with cut_wire(1, itertools.repeat(0)) as wire:
        console = f"http://127.0.0.1:{wire.port}"
        result = await _fetched(stored.events[GUID], console=console, to=str(tmp_path / "a.wav"), attempts=2)
    assert (result["failed"], wire.cut) == ("RecordingError", 2)
    assert "could not be fetched" in result["message"]
