"""A long recording needs no more memory than one of a second, sealed, packed or neither."""

from __future__ import annotations

import pyrage
import pytest

from tests.helpers.long_recordings import Long, growth_bytes
from tests.helpers.pace import LIMIT_S
from tests.helpers.recordings import Pbx, file_of, job, submit, worker
from tests.helpers.servers import Servers, next_events
from tests.helpers.volume import sizes

RECIPIENT = str(pyrage.x25519.Identity.generate().to_public())


@pytest.mark.parametrize("mebibytes", sizes(256, 2048))
async def test_a_long_recording_passes_through_a_worker_in_constant_memory(servers: Servers, pbx: Pbx, mebibytes: int) -> None:
    size = mebibytes << 20
    long = Long(pbx, size)
    async with servers.subscribed("recording.#") as queue, worker(servers, pbx, CALLFOLD_RECORDING_MAX_BYTES=str(size)) as fleet:
        await submit(servers, job("8", guid=None).encode())
        await next_events(queue, 1)
        with growth_bytes(fleet) as growth:
            await submit(servers, job().encode())
            (event,) = await next_events(queue, 1, timeout_s=2 * LIMIT_S * max(1, mebibytes / 256))
    data = event.body["data"]
    stored = file_of(servers, "wav")
    on_disk = stored.stat().st_size
    stored.unlink()
    assert (data["bytes"], on_disk, data["seconds"]) == (size, size, long.seconds)
    assert data["sha256"] == long.sha256
    assert growth[0] < 100 << 20, f"grew by {growth[0] >> 20} MiB"


@pytest.mark.parametrize("mebibytes", sizes(128, 256))
@pytest.mark.parametrize(
    ("is_packed", "more"), [(True, ""), (False, f'archive_recipient = "{RECIPIENT}"')], ids=["packed", "sealed"]
)
async def test_unpacking_and_sealing_need_constant_memory(
    servers: Servers, pbx: Pbx, more: str, mebibytes: int, *, is_packed: bool
) -> None:
    size = mebibytes << 20
    long = Long(pbx, size, is_packed=is_packed)
    async with servers.subscribed("recording.#") as queue, worker(servers, pbx, more) as fleet:
        await submit(servers, job("8", guid=None).encode())
        await next_events(queue, 1)
        with growth_bytes(fleet) as growth:
            await submit(servers, job().encode())
            (event,) = await next_events(queue, 1)
    assert (event.body["data"]["bytes"], event.body["data"]["sha256"]) == (size, long.sha256)
    assert (event.body["data"]["encryption"] is None) == (not more)
    assert growth[0] < 64 << 20, f"grew by {growth[0] >> 20} MiB"
