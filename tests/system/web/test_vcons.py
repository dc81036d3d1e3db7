"""vCons over HTTP: a consumer of `recording.stored` asks for the call, and checks what it gets against the recording."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from hashlib import sha512
from typing import Any

import pytest_asyncio

from tests.helpers.console import AUTHORIZED, KEY, World, world
from tests.helpers.recordings import WAV, serving
from tests.helpers.servers import AGENT_GUID, VENDOR_LINES, Servers, callfold, next_events
from tests.helpers.vcons import problems_of, record_of, recordings_of

_PUBLIC = "https://calls.example.com"
_VCON = {"Accept": "application/vcon+json"}


@pytest_asyncio.fixture(scope="module")
async def here(shared_servers: Servers) -> AsyncIterator[World]:
    """A console without history: it finds the events in the journal."""
    async with serving() as pbx:
        text = f'[sources.acme]\nrecording_url = "{pbx.url}/rec?nId={{call_id}}"\n'
        more = {"CALLFOLD_CONSOLE_KEY": KEY, "CALLFOLD_PUBLIC_URL": _PUBLIC}
        async with world(shared_servers, text, "ingress", "worker", "console", **more) as made:
            yield made


async def _vcon(here: World, call: str, **headers: str) -> tuple[int, Any, Any]:
    return await here.get(f"/calls/{call}", headers=AUTHORIZED | _VCON | headers)


async def test_a_consumer_of_recording_stored_gets_the_vcon_of_its_call(here: World, shared_servers: Servers) -> None:
    async with shared_servers.subscribed("#") as queue:
        await here.call_back(list(VENDOR_LINES))
        events = {event.message_id: event.body for event in await next_events(queue, 3)}
        stored = [event for event in events.values() if event["type"] == "callfold.recording.stored.v1"]
        call = f"{stored[0]['data']['source']}/{stored[0]['subject']}"
        status, vcon, headers = await _vcon(here, call)
        assert (status, problems_of(vcon), headers["Content-Type"]) == (200, [], "application/vcon+json")
        assert record_of(vcon) == events["acme/513/1"]["data"]
        for dialog in vcon["dialog"]:
            assert dialog["url"].startswith(_PUBLIC)
            _, audio, _ = await here.get(dialog["url"].removeprefix(_PUBLIC), headers=AUTHORIZED)
            assert audio == WAV
            digest = base64.urlsafe_b64encode(sha512(audio).digest()).rstrip(b"=").decode()
            assert dialog["content_hash"] == f"sha512-{digest}"
        assert {each["recording"]["sha512"] for each in recordings_of(vcon)} == {event["data"]["sha512"] for event in stored}

        # The same again is the same, and is not sent again.
        assert (await _vcon(here, call))[1] == vcon
        assert (await _vcon(here, call, **{"If-None-Match": headers["ETag"]}))[:2] == (304, b"")

        # A late leg amends the call: a second vCon, which refers to the first.
        late = "CallType=API&CallID=1000000087851&RequestID=513&ResponderAgent=Eva"
        await here.call_back([f"{late}&Event=missed"])
        (amended,) = await next_events(queue, 1)
    assert amended.message_id == "acme/513/2"
    _, second, _ = await _vcon(here, call)
    assert (second["amended"], record_of(second)["revision"]) == ({"uuid": vcon["uuid"]}, 2)
    assert (await _vcon(here, f"{call}?revision=1"))[1] == vcon
    code, printed, _ = await callfold("vcon", "acme", "513", "--revision", "1", **here.environment())
    assert (code, printed.count("\n")) == (0, 1)
    assert f'"uuid":"{vcon["uuid"]}"' in printed


async def test_what_cannot_be_a_vcon_is_refused_with_the_reason(here: World) -> None:
    await here.call_back([f"CallType=API&Event=pickup&CallID=600&RequestID=600&Guid={AGENT_GUID}"])
    await here.detail("acme/600", status="talking")
    for path, expected in (
        ("acme/600", "acme/600 has no published revision yet: the call is not complete."),
        ("acme/513?revision=9", "acme/513 has revisions 1 to 2, not 9."),
        ("acme/99999", "Unknown call acme/99999: it was never received, or is no longer retained."),
    ):
        status, problem, _ = await _vcon(here, path)
        assert (status, problem["title"]) == (404, expected)
    status, problem, _ = await _vcon(here, "acme/513", Accept="text/html")
    assert (status, problem["title"].partition(".")[0]) == (
        406,
        "A call is available as application/json and as application/vcon+json",
    )
    status, problem, _ = await here.get("/calls/acme/513?revision=1", headers=AUTHORIZED)
    assert (status, problem["parameter"]) == (406, "revision")
    status, problem, _ = await _vcon(here, "acme/513?revision=0")
    assert (status, problem["parameter"]) == (400, "revision")
    code, _, error = await callfold("vcon", "acme", "600", **here.environment())
    assert (code, "not complete" in error) == (1, True)
