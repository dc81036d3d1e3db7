"""Time and CPU seconds to rebuild Redis from the journals.

    python bench/rebuild.py [--callbacks 200000] [--per-message 5]

It fills both journals of a private RabbitMQ with complete, published calls, and rebuilds an empty Redis from them. It exits 1 if
the goal is missed. On a busy machine only the CPU times say something.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from itertools import count, islice
from pathlib import Path
from typing import NamedTuple, Self

import uvloop

from console.local.stack import LocalStack
from shared.amqp.publisher import Message, Publisher
from shared.amqp.topology import CALLBACKS_JOURNAL, CALLS
from shared.config.settings import Settings, load_settings
from shared.config.sources import DEFAULT_SOURCE
from shared.domain.call import derive
from shared.domain.call_event import call_event, call_record
from shared.domain.cloud_event import CLOUDEVENT
from shared.domain.facts import Fact, facts_of
from shared.domain.ids import CallKey
from shared.domain.raw_event import CallbackEvent, encode, join
from shared.domain.revision_proof import RevisionProof, digest_of
from shared.domain.revision_summary import summary
from shared.domain.times import rfc3339
from shared.log import configure
from shared.rebuild.call_search import CallSearch
from shared.rebuild.replay import Replay
from shared.rebuild.scope import EVERYTHING
from shared.runtime.broker import create_publisher
from shared.runtime.process import background, tune_garbage_collection
from shared.runtime.store import open_store

GOAL_SECONDS_PER_MILLION = 120
_CORES = 2
_IN_FLIGHT = 200
_TICKS = os.sysconf("SC_CLK_TCK")
_GUID = "-0000-4000-8000-0000000000"
_CALL = (
    "CallType=API&Event=pickup&CallID={n}49&RequestID={n}&EventCode=2&IsCallRecorded=&Guid={n:08x}" + _GUID + "49",
    "CallType=Outgoing&Event=pickup&CallID={n}50&RequestID={n}&EventCode=2&IsCallRecorded=&Guid={n:08x}" + _GUID + "50",
    "CallType=Outgoing&Event=hangup&CallID={n}50&RequestID={n}&EventCode=1&IsCallRecorded=1&Guid={n:08x}" + _GUID + "50",
    "CallType=API&Event=hangup&CallID={n}49&RequestID={n}&EventCode=1&IsCallRecorded=1&Guid={n:08x}" + _GUID + "49",
)
_MORE = (
    "&CallerID=%2B4533112233&DID=4588776655&ResponderAgentExt=1001&ResponderAgent=Jane+Doe&LastQueueName=Sales"
    "&TotalWaitTimeMs=4200"
)
# Calls that are under way at the same time.
_AT_ONCE = 200


def events(callbacks: int) -> Iterator[CallbackEvent]:
    """Return the callbacks of the last two hours, those of calls that overlap in turn."""
    began, step = datetime.now(UTC) - timedelta(hours=2), timedelta(hours=2) / callbacks
    at = count()
    for first in count(100_000_000, _AT_ONCE):
        for line in _CALL:
            for number in range(first, first + _AT_ONCE):
                yield CallbackEvent(DEFAULT_SOURCE, rfc3339(began + step * next(at)), line.format(n=number) + _MORE)


async def fill(settings: Settings, publisher: Publisher, options: argparse.Namespace) -> int:
    """Fill the journals; returns the number of calls."""
    sources = settings.load_sources()
    adapter = sources[DEFAULT_SOURCE].adapter
    facts: dict[CallKey, list[Fact]] = {}
    messages: list[Message] = []
    for part in _batched(islice(events(options.callbacks), options.callbacks), options.per_message):
        body = join(encode(event) for event in part)
        messages.append(Message("", CALLBACKS_JOURNAL, body, uuid.uuid4().hex))
        for event in part:
            key, of_event = facts_of(event, adapter)
            facts.setdefault(key, []).extend(of_event)
        if len(messages) >= _IN_FLIGHT:
            await publisher.publish(*messages)
            messages = []
    for key, of_call in facts.items():
        call = derive(key, dict(of_call), settings.policy)
        if call.closing is not None:
            routing_key, event_id, body = call_event(call, call_record(call, 1, None))
            record_legs = sources[key.source].record_legs
            proof = RevisionProof(digest_of(dict(of_call)), summary(call, "", record_legs))
            headers = {} if options.without_proof else proof.headers()
            messages.append(Message(CALLS, routing_key, body, event_id, CLOUDEVENT, headers))
        if len(messages) >= _IN_FLIGHT:
            await publisher.publish(*messages)
            messages = []
    await publisher.publish(*messages)
    return len(facts)


def _batched(rows: Iterator[CallbackEvent], size: int) -> Iterator[Sequence[CallbackEvent]]:
    while part := list(islice(rows, size)):
        yield part


class Spent(NamedTuple):
    """Wall and CPU seconds of this process."""

    wall_s: float
    cpu_s: float

    @classmethod
    def since(cls, began: float, cpu: float) -> Self:
        return cls(time.monotonic() - began, time.process_time() - cpu)


def cpu_seconds(directory: str, name: str) -> float:
    """Return the CPU seconds of a private server."""
    ticks = 0
    for path in Path("/proc").glob("[0-9]*"):
        try:
            stat = (path / "stat").read_text()
            if name in stat and directory in f"{(path / 'cwd').readlink()} {(path / 'environ').read_text()}":
                fields = stat.rpartition(")")[2].split()
                ticks += int(fields[11]) + int(fields[12])
        except OSError:
            continue
    return ticks / _TICKS


async def measure(options: argparse.Namespace) -> bool:
    """Fill, rebuild, and print the figures; returns whether the goal is met."""
    with tempfile.TemporaryDirectory() as directory, ExitStack() as resources:
        async with LocalStack(Path(directory)) as stack:
            os.environ |= {"CALLFOLD_AMQP_URL": stack.amqp_url, "CALLFOLD_REDIS_URL": stack.redis_url}
            settings = load_settings()
            configure("json", "error", process="bench")
            tune_garbage_collection()  # as a worker does
            publisher = create_publisher(settings, "bench")
            async with background(publisher.run()):
                await publisher.wait_until_up()
                calls = await fill(settings, publisher, options)
            servers = {name: cpu_seconds(directory, name) for name in ("beam.smp", "redis-server")}
            began, cpu = time.monotonic(), time.process_time()
            async with open_store(settings) as store:
                sources, start = settings.load_sources(), datetime.now(UTC) - timedelta(seconds=settings.max_call_seconds)
                search = CallSearch(settings, store, sources, EVERYTHING, resources, directory=Path(directory))
                candidates = await search.find(start, is_extended=True)
                read = Spent.since(began, cpu)
                replayed = await Replay(settings, store, sources, EVERYTHING, candidates).run()
            whole = Spent.since(began, cpu)
            print(f"{replayed.events} callbacks of {calls} calls, {options.per_message} in a message: {dict(replayed.done)}")
            others = {name: cpu_seconds(directory, name) - before for name, before in servers.items()}
            return report(replayed.events, read, whole, others)


def report(callbacks: int, read: Spent, whole: Spent, others: Mapping[str, float]) -> bool:
    """Print the figures, and which part takes the time; returns whether the goal is met."""
    parts = {"reading": read, "replaying": Spent(whole.wall_s - read.wall_s, whole.cpu_s - read.cpu_s), "both": whole}
    for name, part in parts.items():
        waits_s = part.wall_s - part.cpu_s
        print(f"  {name:9}  {part.wall_s:6.1f} s, of which {part.cpu_s:6.1f} s CPU of this process and {waits_s:6.1f} s waiting")
    all_cpu = {"this process": whole.cpu_s, **others}
    print("  CPU per callback: " + ", ".join(f"{name} {seconds / callbacks * 1e6:.0f} us" for name, seconds in all_cpu.items()))
    longest = max(("reading", "replaying"), key=lambda name: parts[name].wall_s)
    why = "the processor" if parts[longest].cpu_s * 2 > parts[longest].wall_s else "waiting for servers, or for a busy machine"
    print(f"  {longest} takes longest, most of it {why}")
    million_s = whole.wall_s / callbacks * 1e6
    quiet_s = max(whole.cpu_s, sum(all_cpu.values()) / _CORES) / callbacks * 1e6
    is_met = million_s <= GOAL_SECONDS_PER_MILLION
    print(f"  1,000,000 callbacks: {million_s:.0f} s, by CPU time at least {quiet_s:.0f} s on {_CORES} cores")
    print(f"  goal: {GOAL_SECONDS_PER_MILLION} s, {'met' if is_met else 'missed'}")
    return is_met


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--callbacks", type=int, default=200_000, help="callbacks in the journal (default: %(default)s)")
    parser.add_argument("--without-proof", action="store_true", help="with the events of an earlier release")
    parser.add_argument("--per-message", type=int, default=5, help="callbacks in a message (default: %(default)s)")
    sys.exit(0 if uvloop.run(measure(parser.parse_args())) else 1)
