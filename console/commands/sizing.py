"""`callfold sizing`: cores, memory and disks for a number of calls a day, from measured costs (bench/costs.py)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass

import orjson
import typer
from rich.table import Table

from console.commands.output import output

MIB, GIB = 1 << 20, 1 << 30
_DAY_S, _HOUR_S = 86_400, 3600

# Measured by bench/costs.py, rounded up. Milliseconds of one core for a callback, at 100 callbacks a second.
INGRESS_MS, WORKER_MS, HISTORY_MS, REDIS_MS, RABBITMQ_MS = 1.1, 2.1, 0.6, 0.25, 1.9
# Bytes of a callback in callbacks.journal, of a call in the journals of events and in the history, and in Redis.
JOURNAL_OF_CALLBACK, JOURNAL_OF_CALL, HISTORY_OF_CALL = 600, 3400, 5300
REDIS_OF_CALLBACK, REDIS_OF_PUBLICATION = 150, 1900
SPOOL_OF_CALLBACK = 1024

JOURNAL_DAYS, TOMBSTONE_DAYS = 7, 8
JOURNAL_MAX_BYTES, QUEUES_BYTES, SPOOL_MAX_BYTES = 50 * GIB, 4 * GIB, GIB
# The write-ahead logs of quorum queues, and what RabbitMQ keeps free.
_RABBITMQ_BASE_BYTES = 2 * GIB
_BUSY = 0.6
"""Share of a core at the peak. The rest is for what piled up while something was away."""


@dataclass(frozen=True, slots=True)
class Load:
    """The calls of a site, and for how long things are kept."""

    calls_per_day: int
    callbacks_per_call: float = 4
    busy_hour_share: float = 0.15
    burst: float = 3
    recordings_per_call: float = 1.4
    recording_s: float = 180
    recording_bytes_per_s: int = 16_000
    archive_days: int = 365
    history_days: int = 365
    retain_days: int = 7
    outage_hours: float = 4

    @property
    def callbacks_in_busy_hour(self) -> float:
        return self.calls_per_day * self.callbacks_per_call * self.busy_hour_share

    @property
    def peak_per_s(self) -> float:
        return self.callbacks_in_busy_hour * self.burst / _HOUR_S


@dataclass(frozen=True, slots=True)
class Part:
    """The need of one kind of process: how many, and for each one its cores, memory and disk."""

    name: str
    count: int
    cores: float
    memory_bytes: int
    disk_bytes: int
    disk_for: str


@dataclass(frozen=True, slots=True)
class Sizing:
    """The result: the load at its peak, the processes, and what needs a decision."""

    load: Load
    peak_callbacks_per_s: float
    parts: tuple[Part, ...]
    notes: tuple[str, ...]


def size(load: Load, *, rabbitmq_nodes: int = 3, redis_servers: int = 3) -> Sizing:
    """Compute what a load needs. Each number is rounded up."""
    parts = (
        _ingress(load),
        _workers(load),
        Part("console", 1, 0.5, 512 * MIB, 0, ""),
        Part("history", 1, _cores(load.peak_per_s * HISTORY_MS), 256 * MIB, _disk(_history_bytes(load)), "SQLite or PostgreSQL"),
        _redis(load, redis_servers),
        _rabbitmq(load, rabbitmq_nodes),
        Part("archive", 1, 0, 0, _disk(_archive_bytes(load)), f"recordings of {load.archive_days} days"),
    )
    return Sizing(load, round(load.peak_per_s, 1), parts, tuple(_notes(load)))


def _ingress(load: Load) -> Part:
    """Return at least two, one of which can be away."""
    spool = load.callbacks_in_busy_hour * load.outage_hours * SPOOL_OF_CALLBACK
    count = max(2, math.ceil(load.peak_per_s * INGRESS_MS / 1000 / _BUSY) + 1)
    cores = _cores(load.peak_per_s * INGRESS_MS / (count - 1))
    return Part("ingress", count, cores, 256 * MIB, _disk(spool / (count - 1)), f"spool for {load.outage_hours:g} h")


def _workers(load: Load) -> Part:
    """Return at least two. A process uses one core for folding, and recordings take a part of it."""
    count = max(2, math.ceil(load.peak_per_s * WORKER_MS / 1000 / _BUSY) + 1)
    in_progress = load.recordings_per_call * load.recording_s * load.recording_bytes_per_s * 64
    return Part("worker", count, _cores(load.peak_per_s * WORKER_MS / (count - 1)), 512 * MIB, _disk(in_progress), "downloads")


def _redis(load: Load, servers: int) -> Part:
    """Return the memory of facts and publications, half as much again, and the disk of the append-only file."""
    facts = load.retain_days * load.callbacks_per_call * REDIS_OF_CALLBACK
    kept = load.calls_per_day * (facts + (load.retain_days + TOMBSTONE_DAYS) * REDIS_OF_PUBLICATION)
    memory = _memory(1.5 * kept + 64 * MIB)
    return Part(
        "redis",
        servers,
        _cores(load.peak_per_s * REDIS_MS),
        memory,
        _disk(3 * kept + GIB),
        "append-only file, also while rewritten",
    )


def _rabbitmq(load: Load, nodes: int) -> Part:
    """Return what each node of a cluster needs: it has a replica of everything."""
    of_call = load.callbacks_per_call * JOURNAL_OF_CALLBACK + JOURNAL_OF_CALL
    disk = load.calls_per_day * JOURNAL_DAYS * of_call + QUEUES_BYTES + _RABBITMQ_BASE_BYTES
    return Part(
        "rabbitmq", nodes, _cores(load.peak_per_s * RABBITMQ_MS), 2 * GIB, _disk(disk), f"journals of {JOURNAL_DAYS} days, queues"
    )


def _history_bytes(load: Load) -> float:
    return load.calls_per_day * load.history_days * HISTORY_OF_CALL


def _archive_bytes(load: Load) -> float:
    seconds = load.calls_per_day * load.archive_days * load.recordings_per_call * load.recording_s
    return seconds * load.recording_bytes_per_s


def _notes(load: Load) -> Iterator[str]:
    if load.calls_per_day * JOURNAL_DAYS * load.callbacks_per_call * JOURNAL_OF_CALLBACK > JOURNAL_MAX_BYTES:
        yield "callbacks.journal reaches its limit of 50 GiB in less than 7 days. Raise it in definitions.json."
    if load.callbacks_in_busy_hour * load.outage_hours * SPOOL_OF_CALLBACK > SPOOL_MAX_BYTES:
        yield f"One ingress alone cannot spool {load.outage_hours:g} h. Raise CALLFOLD_SPOOL_MAX_BYTES to the disk of its spool."
    if load.peak_per_s * REDIS_MS > 1000 * _BUSY:
        yield "One Redis server is too slow for the peak. Use Redis Cluster."


def _cores(ms_per_s: float) -> float:
    """Return cores in steps of a quarter, of which the peak uses no more than its share."""
    return max(0.25, math.ceil(ms_per_s / 1000 / _BUSY * 4) / 4)


def _memory(size_bytes: float) -> int:
    return max(256 * MIB, math.ceil(size_bytes / (256 * MIB)) * 256 * MIB)


def _disk(size_bytes: float) -> int:
    """Return whole GiB with two leading digits: more would be false precision."""
    size_gib = max(1, math.ceil(size_bytes / GIB))
    step = int(10.0 ** max(0, len(str(size_gib)) - 2))
    return math.ceil(size_gib / step) * step * GIB


def print_sizing(sizing: Sizing, *, as_json: bool) -> None:
    """Print a table for people, or one JSON object."""
    if as_json:
        typer.echo(orjson.dumps(dataclasses.asdict(sizing)).decode())
        return
    load, console = sizing.load, output()
    console.print(
        f"{load.calls_per_day:,} calls a day with {load.callbacks_per_call:g} callbacks each: "
        f"{sizing.peak_callbacks_per_s:,} callbacks a second at the peak. What each one needs:"
    )
    console.print(_table(sizing))
    for note in sizing.notes:
        console.print(f"Note: {note}")
    console.print(
        "Assumed: " + ", ".join(f"{field.name} {getattr(load, field.name):g}" for field in dataclasses.fields(load)[1:])
    )


def _table(sizing: Sizing) -> Table:
    table = Table("process", "number", "cores", "memory", "disk", "", box=None)
    for part in sizing.parts:
        memory = f"{part.memory_bytes / GIB:g} GiB" if part.memory_bytes else ""
        disk = f"{part.disk_bytes // GIB:,} GiB" if part.disk_bytes else ""
        table.add_row(part.name, str(part.count), f"{part.cores:g}" if part.cores else "", memory, disk, part.disk_for)
    return table
