"""`make bench`: compares Callfold with the obvious implementation and a bare handler, interleaved in one run.

Absolute figures are noisy, but the ratio of two contenders that ran in turn is not. Each round runs every contender once, and
the result is the median of the rounds' ratios.

Ingress: callbacks answered 200 per second, measured by wrk. End to end: callbacks per second from the queue through the fold to
published events, for a backlog that ingress has queued. Start: CPU seconds of the command line (`start_up.py`).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import aio_pika
import aiohttp
import orjson

from console.local.child_process import kill_with_parent
from console.local.ports import free_port
from console.local.stack import LocalStack
from shared.amqp.topology import CALLBACKS_FOLD, CALLS, RECORDINGS

HERE = Path(__file__).parent
GOAL_OF_BARE, GOAL_OF_NAIVE, GOAL_END_TO_END = 0.6, 3.5, 3.0
LINE = (
    "CallType=Outgoing&Event=hangup&CallID=1000000087850&RequestID=513&EventCode=1&IsCallRecorded=1"
    "&Guid=923041af-adb5-a8ae-f29c-e60ea5e17448"
)
CALL = (
    "CallType=API&Event=pickup&CallID={n}49&RequestID={n}&EventCode=2&IsCallRecorded=&Guid=bfa2dbc8-ab8a-34c8-f243-c2aad8c446ff",
    "CallType=Outgoing&Event=pickup&CallID={n}50&RequestID={n}&EventCode=2&IsCallRecorded=&Guid=923041af-adb5-a8ae-f29c-e60ea5e17448",
    "CallType=Outgoing&Event=hangup&CallID={n}50&RequestID={n}&EventCode=1&IsCallRecorded=1&Guid=923041af-adb5-a8ae-f29c-e60ea5e17448",
    "CallType=API&Event=hangup&CallID={n}49&RequestID={n}&EventCode=1&IsCallRecorded=1&Guid=bfa2dbc8-ab8a-34c8-f243-c2aad8c446ff",
)


class Contender(NamedTuple):
    """A running contender, with its port and its private port."""

    command: str
    port: int
    private: int
    child: asyncio.subprocess.Process


class Bench:
    """Private servers and settings of one run."""

    def __init__(self, stack: LocalStack, directory: Path, options: argparse.Namespace) -> None:
        self.stack, self.directory, self.options = stack, directory, options

    def environment(self, port: int, private: int) -> dict[str, str]:
        return os.environ | {
            "PORT": str(port),
            "NAIVE_UVLOOP": "1" if self.options.naive_uvloop else "",
            "AMQP_URL": self.stack.amqp_url,
            "REDIS_URL": self.stack.redis_url,
            "CALLFOLD_AMQP_URL": self.stack.amqp_url,
            "CALLFOLD_REDIS_URL": self.stack.redis_url,
            "CALLFOLD_INGRESS_PORT": str(port),
            "CALLFOLD_METRICS_PORT": str(private),
            "CALLFOLD_SPOOL_DIR": str(self.directory / "spool"),
            "CALLFOLD_RECORDING_DIR": str(self.directory / "downloads"),
            "CALLFOLD_ARCHIVE_URL": (self.directory / "archive").as_uri(),
            "CALLFOLD_DRAIN_SECONDS": "0",
            "CALLFOLD_LOG_LEVEL": "error",
        }

    @asynccontextmanager
    async def process(self, *command: str) -> AsyncIterator[Contender]:
        """Run one contender."""
        port, private = free_port(), free_port()
        with (self.directory / "log").open("ab") as log:
            child = await asyncio.create_subprocess_exec(
                *kill_with_parent(), sys.executable, *command, env=self.environment(port, private), stdout=log, stderr=log
            )
        try:
            yield Contender(" ".join(command), port, private, child)
        finally:
            if child.returncode is None:
                child.terminate()
            async with asyncio.timeout(30):
                await child.wait()

    def log_end(self) -> str:
        return "\n".join((self.directory / "log").read_text(errors="replace").splitlines()[-20:])


CALLFOLD_INGRESS = ("-m", "ingress")
CALLFOLD_WORKER = (str(HERE / "fold_only.py"),)
NAIVE_INGRESS = (str(HERE / "naive_ingress.py"),)
NAIVE_WORKER = (str(HERE / "naive_worker.py"),)
BARE = (str(HERE / "bare_handler.py"),)


async def answers(port: int) -> None:
    """Wait until a callback is answered 200."""
    await until_ok(f"http://127.0.0.1:{port}/callbacks/default?{LINE}")


async def ready(private: int) -> None:
    """Wait until Callfold's ingress is connected to the broker; earlier requests would measure the spool."""
    await until_ok(f"http://127.0.0.1:{private}/readyz")


async def nothing_spooled(private: int) -> None:
    """Wait until Callfold's ingress has published all callbacks. One that was spooled reaches the queue later."""
    async with asyncio.timeout(60), aiohttp.ClientSession() as session:
        if await metric(session, private, "callfold_spooled_messages_total") == 0:
            return
        empty = 0
        while empty < 3:  # the size of the spool is measured once a second
            await asyncio.sleep(1)
            empty = 0 if await metric(session, private, "callfold_spool_messages") else empty + 1


async def metric(session: aiohttp.ClientSession, private: int, name: str) -> float:
    """Read a metric of Callfold that has no label."""
    async with session.get(f"http://127.0.0.1:{private}/metrics") as response:
        value = re.search(rf"^{name} (\S+)$", await response.text(), re.MULTILINE)
    if value is None:
        raise SystemExit(f"{name} is missing")
    return float(value[1])


async def until_ok(url: str) -> None:
    """Request a URL until it answers 200, for 30 s at most."""
    async with asyncio.timeout(30), aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.get(url) as response:
                    if response.ok:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.05)


async def wrk(port: int, seconds: int, connections: int) -> float:
    """Return callbacks answered 200 per second; any other status is an error."""
    url = f"http://127.0.0.1:{port}/callbacks/default?{LINE}"
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", url]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True, timeout=seconds + 30)
    if "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        raise SystemExit(f"wrk reported errors:\n{done.stdout}")
    rate = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    return float(rate[1]) if rate else 0.0


async def ingress_rate(bench: Bench, command: tuple[str, ...]) -> float:
    async with bench.process(*command) as contender:
        await answers(contender.port)
        if command is CALLFOLD_INGRESS:
            await ready(contender.private)
        await wrk(contender.port, 1, bench.options.connections)
        rate = await wrk(contender.port, bench.options.seconds, bench.options.connections)
    await purge(bench, "naive.callbacks", CALLBACKS_FOLD)
    return rate


async def purge(bench: Bench, *names: str) -> None:
    async with await aio_pika.connect(bench.stack.amqp_url, timeout=10) as connection:
        for name in names:
            channel = await connection.channel()
            try:
                await (await channel.get_queue(name)).purge()
            except aio_pika.exceptions.ChannelNotFoundEntity:
                continue


async def send_calls(port: int, first: int, count: int) -> None:
    """Send the four callbacks of each call, 64 at a time."""
    connector = aiohttp.TCPConnector(limit=64)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def one(url: str) -> None:
            async with session.get(url) as response:
                if response.status != 200:
                    raise SystemExit(f"a callback was answered {response.status}")

        for start in range(first, first + count, 500):
            numbers = range(start, min(start + 500, first + count))
            urls = [f"http://127.0.0.1:{port}/callbacks/default?{line.format(n=n)}" for n in numbers for line in CALL]
            await asyncio.gather(*(one(url) for url in urls))


async def end_to_end(bench: Bench, ingress: tuple[str, ...], worker: tuple[str, ...], done: str, first: int) -> float:
    """Fill the queue through ingress, then time the worker until the last event is published."""
    count = bench.options.calls
    async with bench.process(*ingress) as contender:
        await answers(contender.port)
        if ingress is CALLFOLD_INGRESS:
            await ready(contender.private)
        await purge(bench, "naive.callbacks", CALLBACKS_FOLD)
        # Not timed: ingress is measured separately, and this client in Python would hide the difference.
        await send_calls(contender.port, first, count)
        if ingress is CALLFOLD_INGRESS:
            await nothing_spooled(contender.private)
    async with await aio_pika.connect(bench.stack.amqp_url, timeout=10) as connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=500)
        queue = await channel.declare_queue(done, durable=True, arguments={"x-queue-type": "quorum"})
        if done != "naive.completed":
            await queue.bind(CALLS, "call.#")
        await queue.purge()
        ids: set[int] = set()
        finished = asyncio.Event()
        times: list[float] = []

        async def on_message(message: aio_pika.abc.AbstractIncomingMessage) -> None:
            times.append(time.perf_counter())
            body = orjson.loads(message.body)
            ids.add(int((body.get("data") or body)["request_id"]))
            if len(ids) == count:
                finished.set()

        await queue.consume(on_message, no_ack=True)
        async with bench.process(*worker) as contender:
            await until_finished(bench, contender, finished, ids, count)
    await purge(bench, RECORDINGS, "naive.jobs", done)
    # From the first event to the last, so the start of Python is not measured.
    return float(count * 4 / (times[-1] - times[0]))


async def until_finished(bench: Bench, contender: Contender, finished: asyncio.Event, ids: set[int], count: int) -> None:
    """Wait until all calls are published; fails if the contender ends before, or takes 5 minutes."""
    ends = [asyncio.create_task(finished.wait()), asyncio.create_task(contender.child.wait())]
    try:
        await asyncio.wait(ends, timeout=300, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for end in ends:
            end.cancel()
    if not finished.is_set():
        state = f"ended with {contender.child.returncode}" if contender.child.returncode is not None else "has stopped"
        raise SystemExit(f"{contender.command} {state} after {len(ids)} of {count} calls.\n{bench.log_end()}")


async def rounds(title: str, count: int, contenders: dict[str, Callable[[int], Awaitable[float]]]) -> dict[str, list[float]]:
    """Run every contender once per round, in turn."""
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    print(f"\n{title}")
    for number in range(count):
        for name, measure in contenders.items():
            rates[name].append(await measure(number))
        print(f"  round {number + 1}: " + "   ".join(f"{name} {rates[name][-1]:8.0f}/s" for name in contenders), flush=True)
    return rates


def ratio(ours: list[float], theirs: list[float], of: str, goal: float) -> bool:
    pairs = [a / b for a, b in zip(ours, theirs, strict=True)]
    median = statistics.median(pairs)
    met = median >= goal
    verdict = "met" if met else "MISSED"
    print(f"  Callfold / {of}: {median:.2f} (min {min(pairs):.2f}, max {max(pairs):.2f}), goal {goal} {verdict}")
    return met


async def main(options: argparse.Namespace) -> int:
    directory = Path(tempfile.mkdtemp(prefix="callfold-bench-"))
    met = []
    try:
        async with LocalStack(directory / "servers") as stack:
            bench = Bench(stack, directory, options)
            rates = await rounds(
                f"Ingress: callbacks answered 200 per second ({options.connections} connections, {options.seconds} s)",
                options.rounds,
                {
                    "Callfold": lambda _: ingress_rate(bench, CALLFOLD_INGRESS),
                    "naive": lambda _: ingress_rate(bench, NAIVE_INGRESS),
                    "bare": lambda _: ingress_rate(bench, BARE),
                },
            )
            met.append(ratio(rates["Callfold"], rates["bare"], "bare handler", GOAL_OF_BARE))
            met.append(ratio(rates["Callfold"], rates["naive"], "naive", GOAL_OF_NAIVE))
            rates = await rounds(
                f"End to end: callbacks folded and published per second, one worker, backlog of {options.calls} calls",
                options.rounds,
                {
                    "Callfold": lambda n: end_to_end(
                        bench, CALLFOLD_INGRESS, CALLFOLD_WORKER, "bench.completed", 1_000_000 * (n + 1)
                    ),
                    "naive": lambda n: end_to_end(bench, NAIVE_INGRESS, NAIVE_WORKER, "naive.completed", 1_000_000 * (n + 1)),
                },
            )
            met.append(ratio(rates["Callfold"], rates["naive"], "naive", GOAL_END_TO_END))
    finally:
        await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)
    start_up = (sys.executable, str(HERE / "start_up.py"), "--rounds", str(2 * options.rounds))
    met.append((await asyncio.to_thread(subprocess.run, start_up, check=False)).returncode == 0)
    return 0 if all(met) else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="rounds (default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=4, help="length of one wrk run, in seconds (default: %(default)s)")
    parser.add_argument("--connections", type=int, default=64, help="connections of wrk (default: %(default)s)")
    # Of 2,000 calls, the fold takes a second, and the result differs by a third from run to run.
    parser.add_argument("--calls", type=int, default=6000, help="calls in the backlog, 4 callbacks each (default: %(default)s)")
    parser.add_argument("--naive-uvloop", action="store_true", help="run the naive contender on uvloop too")
    sys.exit(asyncio.run(main(parser.parse_args())))
