"""Measures what one call costs: CPU of each process, and bytes in Redis, the journals and the history.

`callfold sizing` computes with these figures. Run it on a quiet machine with `python -m bench.costs`. Callbacks arrive at a
steady rate, so that batches are small. A flood costs less for each callback.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sqlite3
import tempfile
import time
from collections import Counter
from pathlib import Path

import aiohttp
from redis.asyncio import Redis

from bench.run import CALL
from console.local.ports import free_port
from console.local.processes import Fleet
from console.local.stack import LocalStack

_IDLE_S = 10
_WARM = 50
_TICKS = os.sysconf("SC_CLK_TCK")
_LIMIT_S = 300


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _bytes(directory: Path) -> int:
    """Return what the files take on the disk. Some are sparse, and some end while this looks."""
    return sum(path.stat().st_blocks * 512 for path in directory.rglob("*") if path.exists())


async def _send(port: int, first: int, calls: int, per_second: float) -> None:
    began, number = time.monotonic(), 0
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=100)) as session, asyncio.TaskGroup() as group:
        for call in range(first, first + calls):
            for line in CALL:
                await asyncio.sleep(max(0, began + number / per_second - time.monotonic()))
                number += 1
                group.create_task(_one(session, f"http://127.0.0.1:{port}/callbacks/default?{line.format(n=call)}"))


async def _one(session: aiohttp.ClientSession, url: str) -> None:
    async with session.get(url) as response:
        response.raise_for_status()


async def _measure(directory: Path, calls: int, per_second: float) -> None:
    history, port = directory / "history.sqlite", free_port()
    async with LocalStack(directory / "servers") as stack, Redis.from_url(stack.redis_url) as redis:
        settings = {
            "CALLFOLD_AMQP_URL": stack.amqp_url,
            "CALLFOLD_REDIS_URL": stack.redis_url,
            "CALLFOLD_HISTORY_URL": f"sqlite:///{history}",
            "CALLFOLD_INGRESS_PORT": str(port),
            "CALLFOLD_SPOOL_DIR": str(directory / "spool"),
            "CALLFOLD_RECORDING_DIR": str(directory / "downloads"),
            "CALLFOLD_ARCHIVE_URL": (directory / "archive").as_uri(),
        }
        async with Fleet(directory / "logs", settings) as fleet:
            for role in ("ingress", "worker", "history"):
                fleet.add(role, f"console.{role}" if role == "history" else role, {})
            await fleet.start_all()
            await _send(port, 1, _WARM, per_second)
            pids = {process.name: process.pid for process in fleet.processes}
            pids |= {server.name: server.pid for server in stack.servers if server.name != "epmd"}
            await asyncio.sleep(_IDLE_S)
            first = {name: _cpu_s(pid) for name, pid in pids.items()}
            await asyncio.sleep(_IDLE_S)
            idle = {name: (_cpu_s(pid) - first[name]) / _IDLE_S for name, pid in pids.items()}
            memory, began = (await redis.info("memory"))["used_memory"], time.monotonic()
            before, journals, rows = (
                {name: _cpu_s(pid) for name, pid in pids.items()},
                _bytes(directory / "servers"),
                _bytes_of(history),
            )
            for line in await _load(port, calls, per_second, history):
                print(line)
            took_s = time.monotonic() - began
            for name, pid in pids.items():
                used_ms = 1000 * (_cpu_s(pid) - before[name] - idle[name] * took_s)
                used = f"{used_ms / (calls * len(CALL)):6.2f} ms CPU a callback"
                print(f"{name:10} {used}, {1000 * idle[name]:5.0f} ms a second when idle")
            resident = {name: _resident(pid) for name, pid in pids.items()}
            print("memory of each process:", ", ".join(f"{name} {size / 1e6:.0f} MB" for name, size in resident.items()))
            grown = (await redis.info("memory"))["used_memory"] - memory
            print(f"Redis      {grown / calls:8.0f} bytes of memory a call, in these kinds of keys:")
            kinds: Counter[str] = Counter()
            async for key in redis.scan_iter(count=1000):
                kinds[key.decode().split("}:")[-1].split(":")[0]] += await redis.memory_usage(key) or 0
            for kind, size in kinds.most_common(6):
                print(f"           {size / (_WARM + calls):8.0f} bytes a call in {kind}")
            written = _bytes(directory / "servers") - journals
            print(f"disk       {written / calls:8.0f} bytes a call, of RabbitMQ and Redis together")
            for stream in sorted(path for path in (directory / "servers").rglob("stream/*") if path.is_dir()):
                print(f"           {_bytes(stream) / calls:8.0f} bytes a call in {stream.name}")
            print(f"history    {(_bytes_of(history) - rows) / calls:8.0f} bytes a call")


async def _load(port: int, calls: int, per_second: float, history: Path) -> list[str]:
    """Send the calls, and wait until the history has all of them."""
    await _send(port, 1 + _WARM, calls, per_second)
    deadline = time.monotonic() + _LIMIT_S
    while (count := _calls_in(history)) < _WARM + calls:
        if time.monotonic() > deadline:
            raise SystemExit(f"costs: only {count} of {calls} calls are in the history")
        await asyncio.sleep(0.2)
    return [f"{calls} calls of {len(CALL)} callbacks, {per_second:g} callbacks a second"]


def _calls_in(history: Path) -> int:
    with sqlite3.connect(history) as connection:
        (count,) = connection.execute("SELECT count(*) FROM calls").fetchone()
    return int(count)


def _bytes_of(history: Path) -> int:
    return sum(path.stat().st_size for path in history.parent.glob(f"{history.name}*"))


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text("utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--rate", type=float, default=200, help="callbacks a second")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="callfold-costs-") as directory:
        asyncio.run(_measure(Path(directory), options.calls, options.rate))


if __name__ == "__main__":
    main()
