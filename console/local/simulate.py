"""`callfold simulate`: a FocalScope that dials against a running ingress, and a comparison of what was published."""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

import orjson

from console.commands.common import wanted_sources
from console.commands.output import counted
from console.streams.events import read_event
from console.streams.journal import journal
from shared.config.settings import Settings
from shared.domain.adapter_link import make_link
from shared.domain.ids import SourceName
from shared.errors import CallfoldError, ConfigError
from simulator.compare import Event, differences
from simulator.faults import Faults
from simulator.focalscope import FocalScope, Plan

FAULTS = Faults(reorder=0.3, duplicate=0.3, delay=0.3, burst=0.1, max_delay_s=0.5)
_TIMEOUT_S = 60
_CONNECT_S = 5
# Where one listens on every address.
_LOOPBACK_OF = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - nothing is bound
_REASONS = {
    400: "it does not understand the callback: its `adapter` of the source is another than here",
    401: "it has another secret of the source than here, or the `adapter` has",
    404: "it knows no such source",
}


@dataclass(frozen=True, slots=True)
class Load:
    """What to simulate: against which ingress and source, how much."""

    ingress_url: str
    source: SourceName
    calls: int
    per_second: float
    port: int
    seed: int
    faults: bool


def local_ingress(settings: Settings) -> str:
    """Say where the ingress of the settings is for programs of this machine.

    Raises:
        ConfigError: its port is any free one, so nobody can tell.
    """
    if not settings.ingress_port:
        raise ConfigError("CALLFOLD_INGRESS_PORT is 0: say with --ingress where the ingress is.")
    host = _LOOPBACK_OF.get(settings.ingress_host, settings.ingress_host)
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.ingress_port}"


async def simulate(settings: Settings, load: Load, *, as_json: bool) -> int:
    """Dial, wait until all was published, compare; returns 1 if a call differs or a callback was not taken.

    Raises:
        CallfoldError: nothing listens there, or a callback was refused: it would be every time.
    """
    source = wanted_sources(settings, load.source)[load.source]
    secret = source.secret.get_secret_value() if source.secret else None
    has_recordings = source.recording_origin is not None
    plan = Plan(
        adapter=make_link(load.ingress_url, load.source, secret),
        ingress_urls=(load.ingress_url,),
        seed=load.seed,
        port=load.port,
        faults=FAULTS if load.faults else Faults(),
        recorded_share=0.7 if has_recordings else 0.0,
        # Ids that no earlier run has used.
        first_request_id=time.time_ns() // 1_000_000,
        first_call_id=time.time_ns() // 1_000_000,
    )
    await _check_listening(load.ingress_url)
    if not has_recordings:
        sys.stderr.write(f"No call is recorded: [sources.{load.source}] has neither recording_origin nor recording_url.\n")
    events: list[Event] = []
    async with journal(settings, "next") as deliveries, FocalScope(plan) as pbx:
        all_dialed = asyncio.Event()

        def is_told() -> bool:
            return all_dialed.is_set() and not differences(pbx.truths, events, pbx.recordings.fingerprint)

        async def collect() -> None:
            async for delivery in deliveries:
                event = read_event(delivery)
                if event is None or event["data"]["request_id"] not in pbx.truths:
                    continue  # other traffic of a system that is in use
                events.append(event)
                if is_told():
                    return

        async with asyncio.TaskGroup() as group:
            collecting, watching = group.create_task(collect()), group.create_task(_fail_when_refused(pbx, load))
            await pbx.run(load.calls, per_second=load.per_second)
            all_dialed.set()  # others may have dialed meanwhile: their calls are compared as well
            if not is_told():
                await asyncio.wait((collecting,), timeout=_TIMEOUT_S)
            collecting.cancel()
            watching.cancel()
        found = differences(pbx.truths, events, pbx.recordings.fingerprint)
    refused = sum(count for status, count in pbx.counters.items() if status != "200")
    if as_json:
        told = {"calls": len(pbx.truths), "callbacks": dict(pbx.counters), "differences": found}
        sys.stdout.write(orjson.dumps(told).decode() + "\n")
    else:
        answers = ", ".join(f"{counted(count, 'callback')} answered {status}" for status, count in sorted(pbx.counters.items()))
        sys.stdout.write(f"{counted(len(pbx.truths), 'call')}, {answers}\n")
        sys.stdout.writelines(f"differs: {line}\n" for line in found)
    return 1 if found or refused else 0


async def _fail_when_refused(pbx: FocalScope, load: Load) -> None:
    """End it all with the first callback that is refused for what it is: the others would be, too."""
    status = await pbx.refused
    reason = _REASONS.get(status, "")
    raise CallfoldError(
        f"The ingress at {load.ingress_url} refused a callback of source {load.source} with {status}{reason and ': '}{reason}. "
        "It must have the same CALLFOLD_SOURCES as this command."
    )


async def _check_listening(url: str) -> None:
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        async with asyncio.timeout(_CONNECT_S):
            _, writer = await asyncio.open_connection(parts.hostname, port)
    except (OSError, TimeoutError):
        raise CallfoldError(f"Nothing listens at {url}: start `callfold up`, or name another with --ingress.") from None
    writer.close()
    await writer.wait_closed()
