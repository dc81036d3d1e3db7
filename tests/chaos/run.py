"""One chaos run: start the system, load and nemesis, stop, let the auditor judge, and write the report."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Any

import orjson

from console.local.child_process import kill_with_parent
from tests.chaos.holds import Holds
from tests.chaos.links import ROOT
from tests.chaos.losses import Losses
from tests.chaos.options import Options
from tests.chaos.processes import Supervisor, launch
from tests.chaos.recovery import Prober
from tests.chaos.subscribers.processes import add_subscribers
from tests.chaos.system import PROBE, SOURCE, System, end_process, running

_WARM_UP_S = 8
_LIMIT_S = 240
_HELD = 5
_AUDITOR = (sys.executable, "-m", "tests.chaos.audit")


class RunFailedError(Exception):
    """The run itself failed, which says nothing of the system under test."""


async def chaos(options: Options, directory: Path) -> Mapping[str, Any]:
    """Run it; returns the report."""
    began = time.time()
    _say(f"chaos: {options.command}")
    async with (
        running(options, directory) as system,
        _auditor(system),
        _supervised(system) as supervisor,
        _subscribed(system, supervisor),
        _load(system) as load,
    ):
        until = f"until {options.losses} losses" if options.losses else f"for {options.seconds:g} s"
        _say(f"the system is up after {time.time() - began:.0f} s; {options.rate:g} callbacks a second {until}")
        prober = Prober(system.audit, system.adapter(PROBE), PROBE, rate=options.rate)
        await asyncio.sleep(_WARM_UP_S)
        if await prober.recovered() is None:
            raise RunFailedError("no call was published before the first fault")
        nemesis, holds = Losses(system, supervisor, prober, options), Holds(system)
        if options.losses:
            await holds.place(_HELD)
            await nemesis.lose(options.losses)
        else:
            await nemesis.rage(options.seconds)
        await _end_of(load)
        _say("the load has ended; the auditor waits until nothing more is published")
        verdict = await _judged(system)
        spools = [str(path.relative_to(directory)) for path in system.spools if not await asyncio.to_thread(_is_empty, path)]
        report = _report(options, system, supervisor, verdict, round(time.time() - began))
        if options.losses:
            if violations := await holds.violations():
                report["violations"]["holds"] = violations
            report["figures"] |= {**nemesis.figures(), **holds.figures}
    if spools:
        report["violations"]["left"] = [*report["violations"].get("left", []), f"callbacks are left in {', '.join(spools)}"]
    return report


@asynccontextmanager
async def _auditor(system: System) -> AsyncIterator[None]:
    """Collect what is published, from the first call on."""
    async with _process(*_AUDITOR, "collect", str(system.audit), *system.amqp_urls):
        yield


@asynccontextmanager
async def _load(system: System) -> AsyncIterator[asyncio.subprocess.Process]:
    options = system.options
    command = (sys.executable, "-m", "tests.chaos.load", str(system.audit), str(system.pbx_port), system.adapter(SOURCE))
    async with _process(*command, str(options.rate), str(options.seed)) as process:
        assert process.stdout is not None
        if await process.stdout.readline() != b"ready\n":
            raise RunFailedError("the simulated FocalScope did not start")
        yield process


@asynccontextmanager
async def _subscribed(system: System, supervisor: Supervisor) -> AsyncIterator[None]:
    """Run the subscribers, if the options want them. The newcomer begins in the middle of the run."""
    if not system.options.subscribers:
        yield
        return
    processes = await add_subscribers(system, system.settings)
    async with AsyncExitStack() as closing:
        for process in (*processes, *filter(None, [system.newcomer])):
            closing.push_async_callback(end_process, process)
        await asyncio.gather(*(process.start() for process in processes))
        supervisor.watch(processes)
        task = asyncio.create_task(_begin_later(system, supervisor))
        try:
            yield
        finally:
            for process in (*processes, *filter(None, [system.newcomer])):
                supervisor.leave(process)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def _begin_later(system: System, supervisor: Supervisor) -> None:
    await asyncio.sleep(_WARM_UP_S + system.options.seconds / 2)
    if system.newcomer is not None:
        await launch(system.newcomer)
        supervisor.watch([system.newcomer])


async def _end_of(load: asyncio.subprocess.Process) -> None:
    assert load.stdin is not None
    assert load.stdout is not None
    load.stdin.write(b"stop\n")
    async with asyncio.timeout(_LIMIT_S):
        if await load.stdout.readline() != b"done\n":
            raise RunFailedError("the simulated FocalScope failed")


@asynccontextmanager
async def _supervised(system: System) -> AsyncIterator[Supervisor]:
    supervisor = Supervisor()
    supervisor.watch([*system.ingresses, *system.workers])
    task = asyncio.create_task(supervisor.run())
    try:
        yield supervisor
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def _process(*command: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *kill_with_parent(),
        *command,
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(10):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()


async def _judged(system: System) -> Mapping[str, Any]:
    arguments = ("judge", str(system.audit), str(system.archive), ",".join(system.queues), *system.amqp_urls)
    async with _process(*_AUDITOR, *arguments) as process:
        code = await process.wait()
    path = system.audit / "verdict.json"
    if code not in {0, 1} or not path.exists():
        raise RunFailedError(f"the auditor failed with exit code {code}")
    verdict: Mapping[str, Any] = orjson.loads(path.read_bytes())
    return verdict


def _is_empty(spool: Path) -> bool:
    """Return whether no file of a spool holds a callback: the spool itself, and callbacks that waited for the fold."""
    import sqlite3  # noqa: PLC0415

    for path in spool.glob("*.sqlite"):
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            (count,) = database.execute("select count(*) from messages").fetchone()
        if count:
            return False
    return True


def _report(options: Options, system: System, supervisor: Supervisor, verdict: Mapping[str, Any], seconds: int) -> dict[str, Any]:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return {
        "command": options.command,
        "commit": commit.stdout.strip(),
        "seconds": seconds,
        "cores": len(os.sched_getaffinity(0)),
        "skipped": system.skipped,
        "exits": supervisor.exits,
        "figures": verdict["figures"],
        "violations": verdict["violations"],
        "excused": verdict["excused"],
    }


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
