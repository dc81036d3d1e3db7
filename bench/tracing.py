"""CPU time of ingress for a callback, without traces and with them.

    python bench/tracing.py [--rounds 7] [--before DIRECTORY]

It starts a private RabbitMQ and a receiver of traces. Each round runs every contender once: traces off, 1 % of the calls, all
calls. wrk sends the callbacks of many calls. The result is the median of the rounds' ratios of CPU seconds for a callback, which
say something on a busy machine too. `--before` compares with the code in another directory, such as an earlier commit.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import aio_pika
import aiohttp
from aiohttp import web

from console.local.child_process import kill_with_parent
from console.local.ports import free_port
from console.local.stack import LocalStack
from shared.amqp.topology import CALLBACKS_FOLD

_HERE = Path(__file__).resolve().parents[1]
_TICKS = os.sysconf("SC_CLK_TCK")
# Calls have different RequestIDs, because a sampler takes or leaves a whole call.
_SCRIPT = """
local number = 0
request = function()
    number = number + 1
    return wrk.format("GET", "/callbacks/default?CallType=Outgoing&Event=hangup&CallID=10000" .. number .. "&RequestID=" .. number
        .. "&EventCode=1&IsCallRecorded=1&Guid=923041af-adb5-a8ae-f29c-e60ea5e17448")
end
"""


class Contender(NamedTuple):
    """An ingress: its code and its settings."""

    name: str
    directory: Path
    settings: Mapping[str, str]


class Bench(NamedTuple):
    """Private servers and settings of one run."""

    stack: LocalStack
    directory: Path
    options: argparse.Namespace


@asynccontextmanager
async def _receiver() -> AsyncIterator[str]:
    """Answer exports of traces."""

    async def handle(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(content_type="application/x-protobuf")

    app = web.Application(client_max_size=64 << 20)
    app.add_routes([web.post("/v1/traces", handle)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def _cost(bench: Bench, contender: Contender) -> float:
    """Return the CPU microseconds for a callback."""
    port, private = free_port(), free_port()
    environment = os.environ | {
        "PYTHONPATH": str(contender.directory),
        "CALLFOLD_AMQP_URL": bench.stack.amqp_url,
        "CALLFOLD_INGRESS_PORT": str(port),
        "CALLFOLD_METRICS_PORT": str(private),
        "CALLFOLD_SPOOL_DIR": str(bench.directory / "spool"),
        "CALLFOLD_DRAIN_SECONDS": "0",
        "CALLFOLD_LOG_LEVEL": "error",
        **contender.settings,
    }
    child = await asyncio.create_subprocess_exec(
        *kill_with_parent(), sys.executable, "-m", "ingress", env=environment, cwd=contender.directory
    )
    try:
        await _until_ready(private)
        await _wrk(bench, port, 1)
        before = _cpu_s(child.pid)
        count = await _wrk(bench, port, bench.options.seconds)
        return (_cpu_s(child.pid) - before) / count * 1e6
    finally:
        child.terminate()
        async with asyncio.timeout(60):
            await child.wait()
        await _purge(bench)


async def _until_ready(private: int) -> None:
    async with asyncio.timeout(60), aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.get(f"http://127.0.0.1:{private}/readyz") as response:
                    if response.ok:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.05)


async def _wrk(bench: Bench, port: int, seconds: int) -> int:
    """Send callbacks and return how many were answered 200; any other status is an error."""
    script = bench.directory / "calls.lua"
    command = ["wrk", "-t1", "-c64", f"-d{seconds}s", "-s", str(script), f"http://127.0.0.1:{port}/"]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True, timeout=seconds + 60)
    count = re.search(r"(\d+) requests in", done.stdout)
    if "Non-2xx" in done.stdout or count is None:
        raise SystemExit(f"wrk reported errors:\n{done.stdout}")
    return int(count[1])


def _cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process, of its threads included."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / _TICKS


async def _purge(bench: Bench) -> None:
    async with await aio_pika.connect(bench.stack.amqp_url, timeout=30) as connection:
        channel = await connection.channel()
        await (await channel.get_queue(CALLBACKS_FOLD)).purge()


def _contenders(options: argparse.Namespace, url: str) -> Sequence[Contender]:
    on = {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_TRACES_SAMPLER": "parentbased_traceidratio"}
    earlier = [Contender("before", options.before.resolve(), {})] if options.before else []
    return [
        *earlier,
        Contender("off", _HERE, {}),
        Contender("1 %", _HERE, {**on, "OTEL_TRACES_SAMPLER_ARG": "0.01"}),
        Contender("all", _HERE, {**on, "OTEL_TRACES_SAMPLER_ARG": "1"}),
    ]


async def main(options: argparse.Namespace) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="callfold-tracing-") as directory:
        async with LocalStack(Path(directory) / "servers", only=frozenset({"rabbitmq"})) as stack, _receiver() as url:
            bench = Bench(stack, Path(directory), options)
            (bench.directory / "calls.lua").write_text(_SCRIPT)
            contenders = _contenders(options, url)
            costs: dict[str, list[float]] = {contender.name: [] for contender in contenders}
            for number in range(options.rounds):
                # The order alternates, so that a trend of the machine favours none.
                for contender in contenders if number % 2 else reversed(contenders):
                    costs[contender.name].append(await _cost(bench, contender))
                print(f"  round {number + 1}: " + "   ".join(f"{n} {all_[-1]:6.1f} us" for n, all_ in costs.items()), flush=True)
    for name, measured in costs.items():
        ratio = statistics.median(cost / off for cost, off in zip(measured, costs["off"], strict=True))
        print(f"{name:>6}: {statistics.median(measured):6.1f} us of CPU for a callback, {ratio:.3f} times as much as off")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="rounds (default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=4, help="length of one wrk run, in seconds (default: %(default)s)")
    parser.add_argument("--before", type=Path, help="directory with other code to compare with")
    asyncio.run(main(parser.parse_args()))
