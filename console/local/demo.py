"""`callfold demo`: the whole system on private servers, with simulated calls.

Every published call and archived recording is compared with what the simulator did.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import orjson
from rich.console import Console
from rich.json import JSON

from console.commands.output import output
from console.counts import counted
from console.local.child_process import while_all_run
from console.local.ports import free_port
from console.local.processes import Fleet
from console.local.progress_view import Progress, live
from console.local.simulate import FAULTS
from console.local.stack import LocalStack
from console.local.up import default_directories
from shared.amqp.delivery import Delivery
from shared.config.settings import load_settings
from shared.domain.adapter_link import SAMPLE_LINK, make_link
from shared.runtime.store import open_store
from shared.streams.events import read_event
from shared.streams.journal import journal
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
"""The callbacks of a real call, from the vendor's article."""


@dataclass(frozen=True, slots=True)
class _Result:
    """The outcome of a run: the differences between simulated and published calls, and where archive and logs are."""

    calls: int
    seed: int
    differences: list[str]
    seconds: float
    archive: str
    logs: str


async def demo(directory: Path, *, calls: int, seed: int, as_json: bool) -> int:
    """Run it. Returns 0 if every call was published as it happened, 1 if there are differences.

    With `as_json`, stdout has only the result. Progress goes to stderr.

    Raises:
        ConfigError: the directory is in use, a server is not installed, or a process cannot work as configured.
        ProcessFailedError: a child process exited or was not ready in time; with the end of its log.
    """
    console = output(on_stderr=as_json)
    started = time.monotonic()
    directory = directory.absolute()  # noqa: ASYNC240 - reads the working directory of the process, not the disk
    await asyncio.to_thread(_delete_last_run, directory)
    secret = secrets.token_urlsafe(24)
    port = free_port()
    link = make_link(f"http://127.0.0.1:{port}", "demo", secret)
    console.print(f"Callfold demo: {counted(calls, 'call')}, seed {seed}. Starting a private RabbitMQ and Redis ...")
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
            fleet.add_ingresses_and_workers([port, second_port], workers=2)
            await while_all_run(fleet.start_all(), stack.servers)
            console.print(f"Two ingress and two worker processes are ready after {time.monotonic() - started:.1f} s.")
            mismatches = await while_all_run(_run(pbx, calls, urls[0], console), [*fleet.processes, *stack.servers])
    seconds = round(time.monotonic() - started, 1)
    result = _Result(calls, seed, mismatches, seconds, str(directory / "archive"), str(directory / "logs"))
    if as_json:
        sys.stdout.write(orjson.dumps(result).decode() + "\n")
    else:
        _report(console, result)
    return 1 if mismatches else 0


async def _run(pbx: FocalScope, calls: int, ingress_url: str, console: Console) -> list[str]:
    settings = load_settings()
    progress = Progress(total=calls)
    events: list[Event] = []
    async with (
        open_store(settings) as store,
        journal(settings, "first") as deliveries,
        live(console, progress, store, settings, pbx),
        asyncio.TaskGroup() as group,
    ):
        collecting = group.create_task(_collect(deliveries, events, progress))
        await pbx.run(calls, per_second=_CALLS_PER_S)
        await _replay_vendor_lines(pbx, ingress_url)
        with suppress(TimeoutError):
            async with asyncio.timeout(_FINISH_TIMEOUT_S):
                while _differences(pbx, events) or not _vendor_event(events):
                    await progress.changed.wait()
                    progress.changed.clear()
        collecting.cancel()
    vendor = _vendor_event(events)
    if vendor is None:
        return [f"the vendor's four callbacks produced no event {_VENDOR_ID}"]
    console.print("\nThe vendor's four callbacks of RequestID 513 produced this event:")
    console.print(JSON.from_data(vendor))
    console.print("Its durations come from the replay: the vendor's callbacks carry no times, so the times of receipt count.")
    return _differences(pbx, events) + [
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


def _differences(pbx: FocalScope, events: list[Event]) -> list[str]:
    simulated = [event for event in events if event["data"]["source"] == "demo"]
    return differences(pbx.truths, simulated, pbx.recordings.fingerprint)


def _vendor_event(events: list[Event]) -> Event | None:
    return next((event for event in events if event["id"] == _VENDOR_ID), None)


async def _replay_vendor_lines(pbx: FocalScope, ingress_url: str) -> None:
    for call_id in ("1000000087849", "1000000087850"):
        pbx.recordings.add(call_id, seconds=3)
    async with aiohttp.ClientSession(raise_for_status=True) as session:
        for line in VENDOR_LINES:
            async with session.get(f"{ingress_url}/callbacks/default?{line}") as response:
                await response.read()


def _delete_last_run(directory: Path) -> None:
    for part in ("servers", "archive", "spool", "logs"):
        shutil.rmtree(directory / part, ignore_errors=True)
    directory.mkdir(parents=True, exist_ok=True)


def _write_sources(directory: Path, link: str, secret: str, pbx_url: str) -> Path:
    path = directory / "sources.toml"
    path.touch(mode=0o600)
    path.write_text(
        f"""# Written by `callfold demo`: the simulator, and the vendor's sample call.
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


def _report(console: Console, result: _Result) -> None:
    for line in result.differences[:20]:
        console.print(f"[red]differs:[/] {line}", highlight=False)
    kinds = Counter(path.suffix for path in Path(result.archive).rglob("*.*"))
    files = f"{counted(kinds['.wav'], 'recording')}, {counted(kinds['.json'], 'sidecar')}"
    console.print(f"archive  {result.archive}  ({files})", highlight=False)
    console.print(f"logs     {result.logs}", highlight=False)
    count = len(result.differences)
    summary = f"[red]{counted(count, 'difference')}[/]" if count else "[green]every one was published exactly as it happened[/]"
    calls = counted(result.calls, "simulated call")
    console.print(f"{calls} and the vendor's: {summary}. {result.seconds:.0f} s. Nothing is left running.")
