"""`callfold simulate`: a simulated FocalScope against a running ingress, and a comparison of the published events."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import orjson

from console.commands.common import select_sources
from console.counts import counted
from shared.amqp.delivery import Delivery
from shared.config.settings import Settings
from shared.domain.adapter_link import make_link
from shared.domain.ids import SourceName
from shared.errors import CallfoldError, ConfigError
from shared.streams.events import read_event
from shared.streams.journal import journal
from simulator.compare import Event, differences
from simulator.faults import Faults
from simulator.focalscope import FocalScope, Plan

FAULTS = Faults(reorder=0.3, duplicate=0.3, delay=0.3, burst=0.1, max_delay_s=0.5)
_TIMEOUT_S = 60
_CONNECT_S = 5
# The address by which to reach a server that listens on all addresses.
_LOOPBACK_OF = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - nothing is bound
_REASONS = {
    400: "its `adapter` for this source differs",
    401: "its secret for this source, or the one in the `adapter`, differs",
    404: "it has no such source",
}


@dataclass(frozen=True, slots=True)
class Load:
    """The target and the size of a simulation."""

    ingress_url: str
    source: SourceName
    calls: int
    per_second: float
    port: int
    seed: int
    faults: bool


def local_ingress(settings: Settings) -> str:
    """Return the URL at which programs on this machine reach the configured ingress.

    Raises:
        ConfigError: CALLFOLD_INGRESS_PORT is 0 (any free port).
    """
    if not settings.ingress_port:
        raise ConfigError("CALLFOLD_INGRESS_PORT is 0. Pass the URL of the ingress with --ingress.")
    host = _LOOPBACK_OF.get(settings.ingress_host, settings.ingress_host)
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.ingress_port}"


async def simulate(settings: Settings, load: Load, *, as_json: bool) -> int:
    """Simulate calls and compare the published events. Returns 1 if a call differs or a callback was not accepted.

    Raises:
        CallfoldError: no ingress listens there, or it rejected a callback, as it would every other.
    """
    source = select_sources(settings, load.source)[load.source]
    secret = source.secret.get_secret_value() if source.secret else None
    has_recordings = source.recording_origin is not None
    plan = Plan(
        adapter=make_link(load.ingress_url, load.source, secret),
        ingress_urls=(load.ingress_url,),
        seed=load.seed,
        port=load.port,
        faults=FAULTS if load.faults else Faults(),
        recorded_share=0.7 if has_recordings else 0.0,
        # Ids that no earlier run used.
        first_request_id=time.time_ns() // 1_000_000,
        first_call_id=time.time_ns() // 1_000_000,
    )
    await _check_listening(load.ingress_url)
    if not has_recordings:
        sys.stderr.write(f"No call is recorded: [sources.{load.source}] has neither recording_origin nor recording_url.\n")
    async with journal(settings, "next") as deliveries, FocalScope(plan) as pbx:
        lines = await _run(pbx, deliveries, load)
    if as_json:
        result = {"calls": len(pbx.truths), "callbacks": dict(pbx.counters), "differences": lines}
        sys.stdout.write(orjson.dumps(result).decode() + "\n")
    else:
        answers = ", ".join(f"{counted(count, 'callback')} answered {status}" for status, count in sorted(pbx.counters.items()))
        sys.stdout.write(f"{counted(len(pbx.truths), 'call')}, {answers}\n")
        sys.stdout.writelines(f"differs: {line}\n" for line in lines)
    rejected = sum(count for status, count in pbx.counters.items() if status != "200")
    return 1 if lines or rejected else 0


async def _run(pbx: FocalScope, deliveries: AsyncIterator[Delivery], load: Load) -> list[str]:
    """Dial all calls and return the differences that are left when everything was published, or after a time limit."""
    events: list[Event] = []
    all_dialed = asyncio.Event()

    def is_complete() -> bool:
        return all_dialed.is_set() and not differences(pbx.truths, events, pbx.recordings.fingerprint)

    async def collect() -> None:
        async for delivery in deliveries:
            event = read_event(delivery)
            if event is None or event["data"]["request_id"] not in pbx.truths:
                continue  # other traffic of the running system
            events.append(event)
            if is_complete():
                return

    async with asyncio.TaskGroup() as group:
        collecting, watching = group.create_task(collect()), group.create_task(_fail_when_rejected(pbx, load))
        await pbx.run(load.calls, per_second=load.per_second)
        all_dialed.set()  # calls that others dialed in the simulator are compared as well
        if not is_complete():
            await asyncio.wait((collecting,), timeout=_TIMEOUT_S)
        collecting.cancel()
        watching.cancel()
    return differences(pbx.truths, events, pbx.recordings.fingerprint)


async def _fail_when_rejected(pbx: FocalScope, load: Load) -> None:
    """Fail with the first rejected callback, because ingress would reject all others too."""
    status = await pbx.rejected
    reason = _REASONS.get(status, "")
    raise CallfoldError(
        f"The ingress at {load.ingress_url} rejected a callback of source {load.source} with {status}{reason and ': '}{reason}. "
        "Start that ingress with the same CALLFOLD_SOURCES as this command."
    )


async def _check_listening(url: str) -> None:
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        async with asyncio.timeout(_CONNECT_S):
            _, writer = await asyncio.open_connection(parts.hostname, port)
    except (OSError, TimeoutError):
        raise CallfoldError(f"No ingress listens at {url}. Start `callfold up`, or pass another URL with --ingress.") from None
    writer.close()
    await writer.wait_closed()
