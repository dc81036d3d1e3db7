"""`callfold simulate`: a FocalScope that dials against a running ingress, and a comparison of what was published."""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import dataclass

import orjson

from console.journal import journal
from shared.adapter import make_link
from shared.errors import ConfigError
from shared.ids import SourceName
from shared.settings import Settings
from simulator.compare import Event, differences
from simulator.faults import Faults
from simulator.focalscope import FocalScope, Plan

FAULTS = Faults(reorder=0.3, duplicate=0.3, delay=0.3, burst=0.1, max_delay_s=0.5)
_TIMEOUT_S = 60


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


async def simulate(settings: Settings, load: Load, *, as_json: bool) -> int:
    """Dial, wait until all was published, compare; returns 1 if a call differs or a callback was not taken."""
    source = settings.load_sources().get(load.source)
    if source is None:
        raise ConfigError(f"There is no source {load.source} in the sources file.")
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
        first_request_id=int(time.time()),
        first_call_id=time.time_ns() // 1_000_000,
    )
    events: list[Event] = []
    async with journal(settings, "next") as deliveries, FocalScope(plan) as pbx:

        async def collect() -> None:
            async for delivery in deliveries:
                event = orjson.loads(delivery.body)
                if event["data"]["request_id"] not in pbx.truths:
                    continue  # other traffic of a system that is in use
                events.append(event)
                if not differences(pbx.truths, events, pbx.fingerprint) and len(pbx.truths) == load.calls:
                    return

        async with asyncio.TaskGroup() as group:
            collecting = group.create_task(collect())
            await pbx.run(load.calls, per_second=load.per_second)
            await asyncio.wait((collecting,), timeout=_TIMEOUT_S)
            collecting.cancel()
        found = differences(pbx.truths, events, pbx.fingerprint)
    refused = sum(count for status, count in pbx.counters.items() if status not in ("200", "recording_not_ready"))
    if as_json:
        told = {"calls": len(pbx.truths), "callbacks": dict(pbx.counters), "differences": found}
        sys.stdout.write(orjson.dumps(told).decode() + "\n")
    else:
        sys.stdout.write(f"{len(pbx.truths)} calls, callbacks by status {dict(pbx.counters)}\n")
        sys.stdout.writelines(f"differs: {line}\n" for line in found)
    return 1 if found or refused else 0
