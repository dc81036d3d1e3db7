"""A long recording needs no more memory than one of a second, sealed, packed or neither."""

from __future__ import annotations

import pyrage
import pytest

from tests.helpers.long_recordings import Long, growth_bytes
from tests.helpers.pace import PACE
from tests.helpers.recordings import Pbx, file_of, job, submit, worker
from tests.helpers.servers import Servers, next_events

SIZE, LESS = 2 << 30, 256 << 20
RECIPIENT = str(pyrage.x25519.Identity.generate().to_public())


async def test_two_gibibytes_pass_through_a_worker_in_constant_memory(servers: Servers, pbx: Pbx) -> None:
    long = Long(pbx, SIZE)
    async with servers.subscribed("recording.#") as queue, worker(servers, pbx, CALLFOLD_RECORDING_MAX_BYTES=str(SIZE)) as fleet:
        await submit(servers, job("8", guid=None).encode())
        await next_events(queue, 1)
        with growth_bytes(fleet) as growth:
            await submit(servers, job().encode())
            (event,) = await next_events(queue, 1, timeout_s=240 * PACE)
    data = event.body["data"]
    stored = file_of(servers, "wav")
    size = stored.stat().st_size
    stored.unlink()
    assert (data["bytes"], size, data["seconds"]) == (SIZE, SIZE, long.seconds)
    assert data["sha256"] == long.sha256
    assert growth[0] < 100 << 20, f"grew by {growth[0] >> 20} MiB"


@pytest.mark.parametrize(
    ("is_packed", "more"), [(True, ""), (False, f'archive_recipient = "{RECIPIENT}"')], ids=["packed", "sealed"]
)
async def test_unpacking_and_sealing_need_constant_memory(servers: Servers, pbx: Pbx, more: str, *, is_packed: bool) -> None:
    long = Long(pbx, LESS, is_packed=is_packed)
    async with servers.subscribed("recording.#") as queue, worker(servers, pbx, more) as fleet:
        await submit(servers, job("8", guid=None).encode())
        await next_events(queue, 1)
        with growth_bytes(fleet) as growth:
            await submit(servers, job().encode())
            (event,) = await next_events(queue, 1)
    assert (event.body["data"]["bytes"], event.body["data"]["sha256"]) == (LESS, long.sha256)
    assert (event.body["data"]["encryption"] is None) == (not more)
    assert growth[0] < LESS // 4, f"grew by {growth[0] >> 20} MiB"
