"""Troubles that last: once the whole schedule is used up, event, dead letter and sidecar tell of each by its name."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import pytest

from shared.domain.adapter_link import SAMPLE_LINK
from shared.domain.recording import RecordingJob
from simulator.focalscope import FocalScope, Plan
from simulator.recordings import Fault
from simulator.scenario import SECTOK
from tests.helpers.pace import LIMIT_S
from tests.helpers.recording_faults import ALWAYS
from tests.helpers.recordings import GUID, Pbx, dead_letter, eventually_clean, file_of, job, sidecar_of, submit, worker
from tests.helpers.servers import RETRY_S, Servers, next_events, waiting_events

TRIES = len(RETRY_S) + 1
LINK = f"https://localhost:8080/_cros_/master/?sectok={SECTOK}&nId=7"


@dataclass(frozen=True, slots=True)
class Lasting:
    """A trouble that does not pass, with the reason it is told with.

    Attributes:
        tries: what it is worth.
        host: what the origin is called; None where nobody is there.
        more: what else its source says.
        stall_s: silence that is too long; none of the others is to be mistaken for it.
    """

    reason: str
    tries: int = TRIES
    fault: Fault = Fault.NONE
    times: int = ALWAYS
    host: str | None = "127.0.0.1"
    more: str = ""
    stall_s: float = LIMIT_S


LASTING = (
    Lasting("growing", fault=Fault.GROWING, times=TRIES),
    Lasting("unreachable", host=None),
    Lasting("stalled", fault=Fault.HELD, stall_s=1),
    Lasting("interrupted", fault=Fault.RESET),
    Lasting("address_not_allowed", 1, host="localhost", more='recording_networks = ["10.0.0.0/8"]'),
)


@pytest.fixture
def deaf_port() -> Iterator[int]:
    """Give a port at which nobody listens, and nobody will."""
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.mark.parametrize("trouble", LASTING, ids=[trouble.reason for trouble in LASTING])
async def test_a_trouble_that_lasts_ends_in_one_event_one_letter_and_a_sidecar_that_tell_its_reason(
    servers: Servers, deaf_port: int, trouble: Lasting
) -> None:
    async with FocalScope(Plan(SAMPLE_LINK)) as simulated, servers.subscribed("recording.#") as queue:
        simulated.recordings.add("7", 1.5, fault=trouble.fault, times=trouble.times)
        pbx = Pbx()
        pbx.url = f"http://{trouble.host}:{simulated.port}" if trouble.host else f"http://127.0.0.1:{deaf_port}"
        async with worker(servers, pbx, trouble.more, CALLFOLD_RECORDING_STALL_SECONDS=f"{trouble.stall_s:g}"):
            await submit(servers, job(recording_url=LINK).encode())
            (event,) = await next_events(queue, 1)
            letter = await dead_letter(servers)
            await eventually_clean(servers)
            assert await waiting_events(queue) == []
        simulated.recordings.end_fault("7")  # so that nothing is held any longer
    assert (event.routing_key, event.message_id) == ("recording.failed.acme", f"acme/513/recording/{GUID}/failed")
    assert (event.body["data"]["reason"], event.body["data"]["attempts"]) == (trouble.reason, trouble.tries)
    assert letter.headers["reason"] == trouble.reason
    assert RecordingJob.decode(letter.body) == job(recording_url=LINK)
    told = sidecar_of(servers)["recording"]
    assert (told["state"], told["reason"], told["attempts"]) == ("failed", trouble.reason, trouble.tries)
    assert not file_of(servers, "wav").exists()
