"""`callfold demo`: the main job to its end on this machine - dialed, called back, folded, published, archived, compared."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import orjson
from rich.console import Console
from rich.json import JSON

from console.commands.output import counted, output
from console.local.processes import Fleet, free_port
from console.local.progress_view import Progress, live
from console.local.simulate import FAULTS
from console.local.stack import LocalStack
from console.local.up import default_directories, describe
from console.streams.events import read_event
from console.streams.journal import journal
from shared.amqp.consumer import Delivery
from shared.config.settings import load_settings
from shared.domain.adapter_link import SAMPLE_LINK, make_link
from shared.state.store import Store
from simulator.compare import COMPLETED, STORED, Event, differences
from simulator.focalscope import FocalScope, Plan
from simulator.scenario import SECTOK

_CALLS_PER_S = 20
_FINISH_TIMEOUT_S = 30
_VENDOR_ID = "default/513/1"
VENDOR_LINES = (
    "CallType=API&Event=pickup&CallID=1000000087849&RequestID=513&EventCode=2&IsCallRecorded=&Guid=bfa2dbc8-ab8a-34c8-f243-c2aad8c446ff",
    "CallType=Outgoing&Event=pickup&CallID=1000000087850&RequestID=513&EventCode=2&IsCallRecorded=&Guid=923041af-adb5-a8ae-f29c-e60ea5e17448",
    "CallType=Outgoing&Event=hangup&CallID=1000000087850&RequestID=513&EventCode=1&IsCallRecorded=1&Guid=923041af-adb5-a8ae-f29c-e60ea5e17448",
    "CallType=API&Event=hangup&CallID=1000000087849&RequestID=513&EventCode=1&IsCallRecorded=1&Guid=bfa2dbc8-ab8a-34c8-f243-c2aad8c446ff",
)
"""The callbacks of a real call, as the vendor's article shows them."""


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What came of it: `differences` between what happened and what was published, none where all is well; where it lies."""

    calls: int
    seed: int
    differences: list[str]
    seconds: float
    archive: str
    logs: str


async def demo(directory: Path, *, calls: int, seed: int, as_json: bool) -> int:
    """Run it; returns 0 when every call was published as it was, 1 with the differences otherwise.

    With `as_json` only the verdict is on stdout, what happens on the way on stderr.
    """
    console = output(on_stderr=as_json)
    started = time.monotonic()
    directory = directory.absolute()  # noqa: ASYNC240 - asks the process for its directory, not the disk
    await asyncio.to_thread(_forget_last_time, directory)
    secret = secrets.token_urlsafe(24)
    port = free_port()
    link = make_link(f"http://127.0.0.1:{port}", "demo", secret)
    console.print(f"Callfold demo: {counted(calls, 'call')}, seed {seed}. Starting private RabbitMQ and Redis ...")
    second_port = free_port()
    urls = tuple(f"http://127.0.0.1:{each}" for each in (port, second_port))
    plan = Plan(adapter=link, ingress_urls=urls, seed=seed, faults=FAULTS)
    async with LocalStack(directory / "servers") as stack, FocalScope(plan) as pbx:
        shared = {
            "CALLFOLD_AMQP_URL": stack.amqp_url,
            "CALLFOLD_REDIS_URL": stack.redis_url,
            "CALLFOLD_SOURCES": str(await asyncio.to_thread(_write_sources, directory, link, secret, pbx.url)),
            "CALLFOLD_RECORDING_RETRY_SECONDS": "0.5,1,2,5",
            "CALLFOLD_DRAIN_SECONDS": "0",
            **default_directories(directory),
        }
        os.environ.update(shared)
        async with Fleet(directory / "logs", shared) as fleet:
            describe(fleet, [port, second_port], workers=2)
            await fleet.start_all()
            console.print(f"Two ingress and two worker processes are ready after {time.monotonic() - started:.1f} s.")
            found = await _run(pbx, calls, urls[0], console)
    verdict = _Verdict(
        calls, seed, found, round(time.monotonic() - started, 1), str(directory / "archive"), str(directory / "logs")
    )
    if as_json:
        sys.stdout.write(orjson.dumps(verdict).decode() + "\n")
    else:
        _report(console, verdict)
    return 1 if found else 0


async def _run(pbx: FocalScope, calls: int, ingress_url: str, console: Console) -> list[str]:
    settings = load_settings()
    progress = Progress(total=calls)
    events: list[Event] = []
    async with (
        aclosing(Store(settings.redis_url.get_secret_value())) as store,
        journal(settings, "first") as deliveries,
        live(console, progress, store, settings, pbx),
        asyncio.TaskGroup() as group,
    ):
        collecting = group.create_task(_collect(deliveries, events, progress))
        await pbx.run(calls, per_second=_CALLS_PER_S)
        await _replay_vendor_lines(pbx, ingress_url)
        with suppress(TimeoutError):
            async with asyncio.timeout(_FINISH_TIMEOUT_S):
                while differences(pbx.truths, _ours(events), pbx.recordings.fingerprint) or not _vendor_event(events):
                    await progress.changed.wait()
                    progress.changed.clear()
        collecting.cancel()
    vendor = _vendor_event(events)
    if vendor is None:
        return [f"the vendor's four lines gave no event {_VENDOR_ID}"]
    console.print("\nThe vendor's four callback lines of RequestID 513 gave this event:")
    console.print(JSON.from_data(vendor))
    console.print("Its durations are those of the replay: the vendor's lines tell no times, so the times of receipt count.")
    return differences(pbx.truths, _ours(events), pbx.recordings.fingerprint) + [
        f"{counted(count, 'callback')} answered {status}" for status, count in pbx.counters.items() if status != "200"
    ]


async def _collect(deliveries: AsyncIterator[Delivery], events: list[Event], progress: Progress) -> None:
    async for delivery in deliveries:
        event = read_event(delivery)
        if event is None:
            continue
        events.append(event)
        if event["type"] == COMPLETED:
            progress.outcomes[event["data"]["outcome"]] += 1
        elif event["type"] == STORED:
            progress.recordings += 1
        progress.changed.set()


def _ours(events: list[Event]) -> list[Event]:
    return [event for event in events if event["data"]["source"] == "demo"]


def _vendor_event(events: list[Event]) -> Event | None:
    return next((event for event in events if event["id"] == _VENDOR_ID), None)


async def _replay_vendor_lines(pbx: FocalScope, ingress_url: str) -> None:
    for call_id in ("1000000087849", "1000000087850"):
        pbx.recordings.add(call_id, seconds=3)
    async with aiohttp.ClientSession(raise_for_status=True) as session:
        for line in VENDOR_LINES:
            async with session.get(f"{ingress_url}/callbacks/default?{line}") as response:
                await response.read()


def _forget_last_time(directory: Path) -> None:
    for part in ("servers", "archive", "spool", "logs"):
        shutil.rmtree(directory / part, ignore_errors=True)
    directory.mkdir(parents=True, exist_ok=True)


def _write_sources(directory: Path, link: str, secret: str, pbx_url: str) -> Path:
    path = directory / "sources.toml"
    path.touch(mode=0o600)
    path.write_text(
        f"""# Written by `callfold demo`: the simulator and the vendor's sample.
[sources.demo]
secret = "{secret}"
adapter = "{link}"
recording_origin = "{pbx_url}"

[sources.default]
adapter = "{SAMPLE_LINK}"
recording_url = "{pbx_url}/_cros_/master/?uid=form_faster_downloadcall&sectok={SECTOK}&nId={{call_id}}"
""",
        "utf-8",
    )
    return path


def _report(console: Console, verdict: _Verdict) -> None:
    for line in verdict.differences[:20]:
        console.print(f"[red]differs:[/] {line}", highlight=False)
    kinds = Counter(path.suffix for path in Path(verdict.archive).rglob("*.*"))
    files = f"{counted(kinds['.wav'], 'recording')}, {counted(kinds['.json'], 'sidecar')}"
    console.print(f"archive  {verdict.archive}  ({files})", highlight=False)
    console.print(f"logs     {verdict.logs}", highlight=False)
    count = len(verdict.differences)
    told = f"[red]{counted(count, 'difference')}[/]" if count else "[green]every one was published exactly as it happened[/]"
    calls = counted(verdict.calls, "simulated call")
    console.print(f"{calls} and the vendor's: {told}. {verdict.seconds:.0f} s. Nothing is left running.")
