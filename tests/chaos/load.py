"""The simulated FocalScope of a chaos run, as a process: it dials at a steady rate, logs every callback, and serves recordings.

    python -m tests.chaos.load DIRECTORY PORT ADAPTER RATE SEED

A line on standard input ends the dialing; it answers `done` when every callback was sent. It serves recordings until standard
input is closed.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import random
import sys
import time
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

import orjson

from shared.domain.adapter_link import Placeholder
from simulator.faults import Faults
from simulator.focalscope import FocalScope, Plan
from simulator.scenario import Step, Truth

# About as many callbacks has a call, with the repeated and the lost ones.
CALLBACKS_A_CALL = 3.6
_FAULTS = Faults(reorder=0.2, duplicate=0.05, delay=0.2, burst=0.05, drop=0.02, max_delay_s=0.5)
# Calls of kinds that the simulator has not: an agent who hangs up before anyone was dialed, and calls of one leg.
_OTHERS = ("agent_hung_up", "incoming", "incoming_missed")
_OTHERS_EVERY = 12
_RECORDED_PER_S = 2.0


class CallbackLog:
    """A line when a callback is sent, and one when it is answered or given up."""

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("ab")
        self._numbers = itertools.count()

    def sent(self, source: str, query: str) -> int:
        number = next(self._numbers)
        self._write({"n": number, "sent": time.time(), "source": source, "query": query})
        return number

    def answered(self, number: int, status: int | str) -> None:
        self._write({"n": number, "answered": time.time(), "status": status})

    def _write(self, line: dict[str, object]) -> None:
        self._file.write(orjson.dumps(line) + b"\n")
        self._file.flush()


class LoggedFocalScope(FocalScope):
    """Logs what it sends and which recordings it serves."""

    def __init__(self, plan: Plan, directory: Path) -> None:
        super().__init__(plan)
        self._log = CallbackLog(directory / "callbacks-load.jsonl")
        self._recordings_log = (directory / "recordings.jsonl").open("ab")
        self._more = random.Random(plan.seed + 1)  # noqa: S311 - repeatable on purpose
        self._source = plan.adapter.partition("/callbacks/")[2].partition("?")[0]

    async def _send_callback(self, url: str) -> None:
        assert self._session is not None
        number = self._log.sent(self._source, urlsplit(url).query.partition("&")[2])  # without the secret
        try:
            async with self._session.get(url) as response:
                await response.read()
                self._log.answered(number, response.status)
        except Exception as error:  # noqa: BLE001 - whatever it was, there was no answer
            self._log.answered(number, type(error).__name__)

    def _add_recordings(self, truth: Truth, *, over_s: float) -> None:
        super()._add_recordings(truth, over_s=over_s)
        for leg in truth.legs:
            if leg.recorded:
                self._log_recording(leg.guid, *self.recordings.fingerprint(leg.call_id))
        self.truths.pop(truth.request_id, None)  # the auditor knows better, and there are very many

    def _log_recording(self, guid: str, size: int, sha256: str) -> None:
        self._recordings_log.write(orjson.dumps({"guid": guid, "bytes": size, "sha256": sha256}) + b"\n")
        self._recordings_log.flush()

    def begin_other(self, kind: str) -> None:
        """Begin a call of a kind that the simulator has not."""
        rng, call_id = self._more, next(self._call_ids)
        guid = str(hashlib.md5(str(call_id).encode(), usedforsecurity=False).hexdigest())
        values: dict[str, str] = {
            Placeholder.CALL_TYPE_NAME: "API" if kind == "agent_hung_up" else "Incoming",
            Placeholder.CALL_ID: str(call_id),
            Placeholder.REQUEST_ID: str(next(self._request_ids)) if kind == "agent_hung_up" else "",
            Placeholder.GUID: f"{guid[:8]}-{guid[8:12]}-{guid[12:16]}-{guid[16:20]}-{guid[20:]}",
        }
        first, last = ("hangup", "missed") if kind == "incoming_missed" else ("pickup", "hangup")
        at_s = rng.uniform(0.1, 0.5)
        steps = [Step(at_s, values | {Placeholder.EVENT_NAME: first})]
        steps.append(Step(at_s + rng.uniform(0.001, 1), values | {Placeholder.EVENT_NAME: last}))
        task = asyncio.get_running_loop().create_task(self._send_callbacks(steps))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    async def dial_until(self, stopped: asyncio.Event, *, per_second: float) -> None:
        """Dial at an even rate, and send every callback of the calls that were begun."""
        began = time.monotonic()
        for number in itertools.count():
            if stopped.is_set():
                break
            if number % _OTHERS_EVERY == 0:
                self.begin_other(_OTHERS[number // _OTHERS_EVERY % len(_OTHERS)])
            else:
                self._start(f"100{number % 4 + 1}", f"+45{30000000 + number % 1000000}")
            await asyncio.sleep(max(0.0, began + (number + 1) / per_second - time.monotonic()))
        await self.finished()


async def main() -> None:
    directory, port, adapter, rate, seed = sys.argv[1:]
    per_second = float(rate) / CALLBACKS_A_CALL
    plan = Plan(
        adapter=adapter,
        seed=int(seed),
        faults=_FAULTS,
        speed=20,
        recorded_share=min(0.5, _RECORDED_PER_S / per_second),
        port=int(port),
        first_request_id=time.time_ns() // 1_000_000,
        first_call_id=time.time_ns() // 1_000_000,
    )
    commands = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    stopped = asyncio.Event()
    async with LoggedFocalScope(plan, Path(directory)) as pbx:
        dialing = loop.create_task(pbx.dial_until(stopped, per_second=per_second))
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        if not await commands.readline():
            dialing.cancel()
            return
        stopped.set()
        await dialing
        sys.stdout.write("done\n")
        sys.stdout.flush()
        await commands.read()


if __name__ == "__main__":
    asyncio.run(main())
