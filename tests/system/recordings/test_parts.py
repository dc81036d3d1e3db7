"""Parts of recordings that wait for their next try: how much room they may take."""

from __future__ import annotations

import pytest
from aiohttp import web

from tests.helpers.recordings import WAV, Pbx, begin, job, nothing_left, submit, worker
from tests.helpers.servers import Servers, next_events


@pytest.mark.parametrize(("kept_bytes", "resumed"), [("1000000", True), ("0", False)])
async def test_a_worker_keeps_no_more_of_a_broken_download_than_it_may(
    servers: Servers, pbx: Pbx, kept_bytes: str, *, resumed: bool
) -> None:
    asked: list[str | None] = []

    async def serve(request: web.Request) -> web.StreamResponse:
        asked.append(request.headers.get("Range"))
        response, missing = await begin(request, WAV)
        if len(asked) <= 2:  # the first try goes on once, and gets nothing
            await response.write(WAV[:1000] if missing == WAV else b"")
            assert request.transport is not None
            request.transport.close()
        else:
            await response.write(missing)
        return response

    pbx.serve["7"] = serve
    async with (
        servers.subscribed("recording.#") as queue,
        worker(servers, pbx, CALLFOLD_RECORDING_KEPT_BYTES=kept_bytes),
    ):
        await submit(servers, job().encode())
        (event,) = await next_events(queue, 1)
    assert (event.routing_key, event.body["data"]["bytes"]) == ("recording.stored.acme", len(WAV))
    assert asked == [None, "bytes=1000-", "bytes=1000-" if resumed else None]
    assert nothing_left(servers)
