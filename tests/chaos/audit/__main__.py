"""The auditor as a process.

    python -m tests.chaos.audit collect DIRECTORY URL...
    python -m tests.chaos.audit judge DIRECTORY ARCHIVE QUEUES URL...

`collect` runs until it is stopped. `judge` waits until nothing more is published, and writes `verdict.json`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import aio_pika
import orjson

from tests.chaos.audit.collect import collect
from tests.chaos.audit.evidence import read_evidence
from tests.chaos.audit.pace import PACE
from tests.chaos.audit.remains import dead_letters, messages_left
from tests.chaos.audit.verdict import Verdict, judge

QUIET_S = float(os.environ.get("AUDIT_QUIET_S") or 8)
"""How long nothing may be published at the end."""
LIMIT_S = float(os.environ.get("AUDIT_LIMIT_S") or 180 * PACE)
"""When to stop waiting for what is missing."""


async def _judge(directory: Path, archive: Path, queues: Sequence[str], urls: Sequence[str]) -> Verdict:
    deadline = time.monotonic() + LIMIT_S
    events = directory / "events.jsonl"
    pause_s = 1.0
    while True:
        size, began = events.stat().st_size, time.monotonic()
        verdict = await asyncio.to_thread(lambda: judge(read_evidence(directory, archive)))
        is_complete = not any(verdict.violations[kind] for kind in ("lost", "recordings", "subscribers"))
        if is_complete or time.monotonic() > deadline:
            await asyncio.sleep(QUIET_S)
            if events.stat().st_size == size or time.monotonic() > deadline:
                break
        await asyncio.sleep(pause_s + 2 * (time.monotonic() - began))
    evidence = await asyncio.to_thread(read_evidence, directory, archive)
    for url in urls:
        with suppress(aio_pika.exceptions.AMQPError, OSError, TimeoutError):
            evidence.dead = list(await dead_letters(url))
            evidence.left = await messages_left(url, queues, within_s=30)
            return judge(evidence)
    verdict = judge(evidence)
    verdict.object("left", "no node of RabbitMQ says what is left")
    return verdict


async def main() -> int:
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # that a node is away is no news
    task = asyncio.current_task()
    if task is not None:
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    what, directory, *rest = sys.argv[1:]
    try:
        if what == "collect":
            await collect(rest, Path(directory, "events.jsonl"))
        archive, queues, *urls = rest
        verdict = await _judge(Path(directory), Path(archive), queues.split(","), urls)
    except asyncio.CancelledError:
        return 0
    result = {"clean": verdict.is_clean, "violations": verdict.violations, "excused": verdict.excused, "figures": verdict.figures}
    Path(directory, "verdict.json").write_bytes(orjson.dumps(result, option=orjson.OPT_INDENT_2))
    return 0 if verdict.is_clean else 1


sys.exit(asyncio.run(main()))
