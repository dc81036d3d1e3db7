"""What tests share: the vendor's lines, waiting for a condition, an emptied broker and store, reading queues."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import aio_pika
import aiohttp
import orjson
from redis.asyncio import Redis

from console.local.processes import Fleet, ServiceProcess
from console.local.stack import LocalStack, Server
from shared.amqp.connection import BrokerAddress
from shared.amqp.server_check import check_server
from shared.amqp.topology import STATE_JOURNAL, topology
from shared.domain.closing import Policy
from shared.domain.ids import CallKey
from shared.errors import BrokerUnavailableError
from shared.state.keys import PARTITIONS, PLAIN_KEYS
from shared.state.position_records import encode_record
from shared.state.store import Store
from tests.helpers import warm
from tests.helpers.pace import LIMIT_S, PACE, paced

AGENT_GUID = "bfa2dbc8-ab8a-34c8-f243-c2aad8c446ff"
DIALED_GUID = "923041af-adb5-a8ae-f29c-e60ea5e17448"
VENDOR_LINES = (
    f"CallType=API&Event=pickup&CallID=1000000087849&RequestID=513&EventCode=2&IsCallRecorded=&Guid={AGENT_GUID}",
    f"CallType=Outgoing&Event=pickup&CallID=1000000087850&RequestID=513&EventCode=2&IsCallRecorded=&Guid={DIALED_GUID}",
    f"CallType=Outgoing&Event=hangup&CallID=1000000087850&RequestID=513&EventCode=1&IsCallRecorded=1&Guid={DIALED_GUID}",
    f"CallType=API&Event=hangup&CallID=1000000087849&RequestID=513&EventCode=1&IsCallRecorded=1&Guid={AGENT_GUID}",
)
RETRY_S = (0.2, 0.5)
# For processes that do very much of what others are measured at, or that are killed: to measure them takes half of their time.
UNMEASURED = {"COVERAGE_PROCESS_CONFIG": "", "COVERAGE_PROCESS_START": ""}
POLICY = Policy(settle_s=10, leg_grace_s=120, max_call_s=14400)


def lines_of(request_id: int) -> list[str]:
    """The vendor's four lines for another call: its own RequestID and CallIDs."""
    return [
        line.replace("RequestID=513", f"RequestID={request_id}").replace("10000000878", f"{request_id}0000878")
        for line in VENDOR_LINES
    ]


async def eventually(condition: Callable[[], Awaitable[Any]], *, timeout_s: float = LIMIT_S) -> Any:  # noqa: ANN401
    """Await a condition that returns something true; the last value shows in the failure."""
    began, value = time.monotonic(), None
    while time.monotonic() < began + timeout_s:
        value = await condition()
        if value:
            return value
        await asyncio.sleep(_pause_s(began))
    raise AssertionError(f"not within {timeout_s} s; the last value was {value!r}")


async def eventually_as_many(wanted: int, count: Callable[[], Awaitable[int]], *, timeout_s: float = LIMIT_S) -> None:
    """Await a count that is reached, or exceeded: what is told at least once can be told again."""
    began, counted = time.monotonic(), 0
    while counted < wanted:
        assert time.monotonic() < began + timeout_s, f"not within {timeout_s} s: {counted} of {wanted}"
        await asyncio.sleep(_pause_s(began))
        counted = await count()


async def eventually_nothing(look: Callable[[], Awaitable[Sequence[object]]]) -> None:
    """Await a look that finds nothing; what the last one found shows in the failure."""
    began = time.monotonic()
    while found := await look():
        assert time.monotonic() < began + LIMIT_S, f"not within {LIMIT_S} s; the last look found {found!r}"
        await asyncio.sleep(_pause_s(began))


def _pause_s(began: float) -> float:
    """Look often at first, and less often the longer it takes: a look can cost as much as what it waits for."""
    return max(0.05, min(0.25, (time.monotonic() - began) / 20))


def complaints(logs: Path, *, count: int = 20) -> list[tuple[str, str]]:
    """Take the last lines of each log that tell of trouble; returns pairs of a heading and the lines."""
    found = []
    for log in sorted(logs.glob("*.log")):
        lines = [line for line in log.read_text(errors="replace").splitlines() if '"level": "info"' not in line]
        found.append((f"complaints of {log.stem}", "\n".join(line[:500] for line in lines[-count:])))
    return found


async def declare(url: str) -> None:
    """Declare the topology, however long a starved RabbitMQ takes."""

    async def is_declared() -> bool:
        with suppress(BrokerUnavailableError):
            await check_server(BrokerAddress((url,), topology(RETRY_S), "tests"))
            return True
        return False

    await eventually(is_declared)


_WRITTEN_AFTER_S = 30 * PACE
_declared_at: dict[str, float] = {}


async def declare_streams(stack: Stack | LocalStack) -> None:
    """Declare the topology of a RabbitMQ that lacks it, and note when."""
    await declare(stack.amqp_url)
    _declared_at[stack.amqp_url] = time.monotonic()


async def make_killable(stack: Stack) -> None:
    """Restart RabbitMQ in good order if its streams are new.

    RabbitMQ 3.10 writes its register of streams to disk only seconds after one was created, or when it stops: a broker that
    a test kills sooner would come back with a stream that nobody can use.
    """
    if time.monotonic() - _declared_at[stack.amqp_url] < _WRITTEN_AFTER_S:
        await stack.rabbitmq.stop()
        await stack.rabbitmq.start()
        _declared_at[stack.amqp_url] = -_WRITTEN_AFTER_S


@dataclass(frozen=True, slots=True)
class Stack:
    """The private servers that a test asked for; nobody listens at the address of any other."""

    with_redis: LocalStack | None = None
    with_rabbitmq: LocalStack | None = None

    @property
    def redis(self) -> Server:
        assert self.with_redis, "the test did not ask for Redis"
        return self.with_redis.redis

    @property
    def rabbitmq(self) -> Server:
        assert self.with_rabbitmq, "the test did not ask for RabbitMQ"
        return self.with_rabbitmq.rabbitmq

    @property
    def redis_url(self) -> str:
        return self.with_redis.redis_url if self.with_redis else "redis://127.0.0.1:1/0"

    @property
    def amqp_url(self) -> str:
        return self.with_rabbitmq.amqp_url if self.with_rabbitmq else "amqp://guest:guest@127.0.0.1:1/"


async def empty(stack: Stack, *, is_running: bool = False) -> None:
    """Empty every queue of ours (streams keep what they have) and all of Redis, as far as the stack has them.

    `is_running`: processes of the calling test use the queues.
    """
    if stack.with_rabbitmq:
        await _empty_queues(stack.amqp_url, is_running=is_running)
    if stack.with_redis and stack.with_rabbitmq:
        await begin_generation(stack.redis_url, stack.amqp_url)
    elif stack.with_redis:
        async with Redis.from_url(stack.redis_url) as redis:
            await redis.flushall()


async def begin_generation(redis_url: str, amqp_url: str) -> None:
    """Empty a Redis as if it had been rebuilt. Workers would take it for a loss, because `state.journal` keeps what it has."""
    generation = time.time_ns() // 1_000_000
    async with Redis.from_url(redis_url) as redis, redis.pipeline(transaction=True) as pipe:
        pipe.flushall()
        for number in range(PARTITIONS):
            position: list[str | int] = ["generation", generation, "state", "ready", "replaced", generation, "evicted", 0]
            pipe.hset(PLAIN_KEYS.position(number), items=position)
        await pipe.execute()
    body = encode_record("tests", dict.fromkeys(range(PARTITIONS), (generation, 0)), generation)
    async with await aio_pika.connect(amqp_url, timeout=LIMIT_S) as connection:
        await (await connection.channel()).default_exchange.publish(aio_pika.Message(body), STATE_JOURNAL)


async def _empty_queues(url: str, *, is_running: bool) -> None:
    """Purge until two rounds find nothing.

    What a process had not settled when it ended is in its queue again once the broker has noticed, and a message whose time in a
    retry queue is over moves on.
    """
    async with await aio_pika.connect(url, timeout=LIMIT_S) as connection:
        channel = await connection.channel()
        names = [queue.name for queue in topology(RETRY_S).queues if queue.arguments["x-queue-type"] != "stream"]
        names.sort(key=lambda name: ".retry." not in name)

        async def are_left_alone() -> bool:
            return not any(
                [(await channel.declare_queue(name, passive=True)).declaration_result.consumer_count for name in names]
            )

        if not is_running:
            await eventually(are_left_alone)
        queues = [await channel.get_queue(name, ensure=False) for name in names]
        idle_rounds = 0
        while idle_rounds < (1 if is_running else 2):
            purged = [await queue.purge() for queue in queues]
            idle_rounds = 0 if any(done.message_count for done in purged) else idle_rounds + 1


async def empty_streams(stack: Stack) -> None:
    """Delete every stream and declare it again, so that nothing of earlier tests is read."""
    async with await aio_pika.connect(stack.amqp_url, timeout=LIMIT_S) as connection:

        async def are_deleted() -> bool:
            """Say no for a stream that has no leader yet, as after a start of RabbitMQ; that closes the channel."""
            channel = await connection.channel()
            with suppress(aio_pika.exceptions.ChannelNotFoundEntity):
                for queue in topology(RETRY_S).queues:
                    if queue.arguments["x-queue-type"] == "stream":
                        await channel.queue_delete(queue.name)
                return True
            return False

        await eventually(are_deleted)
    await declare_streams(stack)


def assert_may_start_processes() -> None:
    """Fail a test that starts processes of Callfold elsewhere: its markers would be wrong."""
    test = os.environ["PYTEST_CURRENT_TEST"]
    assert test.startswith(("tests/system/", "tests/browser/", "tests/deploy/", "tests/clients/")), (
        f"it starts processes, and belongs into tests/system: {test}"
    )


class _WarmServiceProcess(ServiceProcess):
    async def _spawn(self, log: BinaryIO) -> asyncio.subprocess.Process:
        if warm.must_start_cold(self.environment):
            return await super()._spawn(log)
        process = await warm.starter().start([self.module], environment=self.environment, output=(log, log), is_session=True)
        return cast("asyncio.subprocess.Process", process)


class WarmFleet(Fleet):
    """A fleet whose processes start warm. A process whose environment has settings of the interpreter starts by command line."""

    process_type = _WarmServiceProcess


@dataclass(frozen=True, slots=True)
class Servers:
    """The private servers, and a directory for what the processes of one test write."""

    stack: Stack | LocalStack
    directory: Path

    def environment(self, **more: str) -> dict[str, str]:
        return {
            "CALLFOLD_AMQP_URL": self.stack.amqp_url,
            "CALLFOLD_REDIS_URL": self.stack.redis_url,
            "CALLFOLD_SPOOL_DIR": str(self.directory / "spool"),
            "CALLFOLD_RECORDING_DIR": str(self.directory / "downloads"),
            "CALLFOLD_ARCHIVE_URL": (self.directory / "archive").as_uri(),
            "CALLFOLD_RECORDING_RETRY_SECONDS": ",".join(f"{delay_s:g}" for delay_s in RETRY_S),
            "CALLFOLD_DRAIN_SECONDS": "0",
            "CALLFOLD_SPOOL_DRAIN_SECONDS": "1",  # many tests leave RabbitMQ away at their end
            "CALLFOLD_PUBLISH_TIMEOUT_SECONDS": paced(10),
            "CALLFOLD_SHUTDOWN_TIMEOUT_SECONDS": paced(15),
            "CALLFOLD_LOG_FORMAT": "json",
            **more,
        }

    def fleet(self, **more: str) -> Fleet:
        assert_may_start_processes()
        return WarmFleet(self.directory / "logs", self.environment(**more))

    @asynccontextmanager
    async def queue(self, name: str) -> AsyncIterator[aio_pika.abc.AbstractQueue]:
        """Look into a queue of ours."""
        connection = await aio_pika.connect(self.stack.amqp_url, timeout=LIMIT_S)
        async with connection:
            channel = await connection.channel()
            yield await channel.get_queue(name)

    @asynccontextmanager
    async def subscribed(self, pattern: str = "#", *, exchange: str = "calls") -> AsyncIterator[aio_pika.abc.AbstractQueue]:
        """Bind a queue of one's own to `calls`, as a downstream consumer does, or to another exchange."""
        connection = await aio_pika.connect(self.stack.amqp_url, timeout=LIMIT_S)
        async with connection:
            channel = await connection.channel()
            queue = await channel.declare_queue(exclusive=True)
            await queue.bind(exchange, pattern)
            yield queue

    async def read_stream(self, name: str, until: Callable[[bytes], bool]) -> list[bytes]:
        """Read a stream from its beginning as a subscriber does, up to the message that ends it."""
        bodies: list[bytes] = []
        is_read = asyncio.Event()

        async def read(message: aio_pika.abc.AbstractIncomingMessage) -> None:
            if not is_read.is_set():
                bodies.append(message.body)
                await message.ack()
                if until(message.body):
                    is_read.set()

        async with self.queue(name) as queue, asyncio.timeout(LIMIT_S):
            await queue.channel.set_qos(100)
            await queue.consume(read, arguments={"x-stream-offset": "first"})
            await is_read.wait()
        return bodies

    async def take_all(self, name: str) -> list[aio_pika.abc.AbstractIncomingMessage]:
        """Drain a queue and return what lay in it."""
        async with self.queue(name) as queue:
            taken = []
            while message := await taken_from(queue):
                taken.append(message)
            return taken


async def taken_from(queue: aio_pika.abc.AbstractQueue, *, no_ack: bool = True) -> aio_pika.abc.AbstractIncomingMessage | None:
    """Take a message, None where there is none. The library would give a starved RabbitMQ 5 s."""
    return await queue.get(fail=False, no_ack=no_ack, timeout=LIMIT_S)


@dataclass(frozen=True, slots=True)
class Event:
    """A published event as a consumer sees it."""

    routing_key: str
    message_id: str | None
    body: Mapping[str, Any]


async def next_events(queue: aio_pika.abc.AbstractQueue, count: int, *, timeout_s: float = LIMIT_S) -> list[Event]:
    """Wait for so many events."""
    events: list[Event] = []

    async def arrived() -> bool:
        events.extend(await waiting_events(queue))
        return len(events) >= count

    await eventually(arrived, timeout_s=timeout_s)
    return events


async def waiting_events(queue: aio_pika.abc.AbstractQueue) -> list[Event]:
    """What has arrived and was not asked for."""
    events = []
    while message := await taken_from(queue):
        events.append(Event(message.routing_key or "", message.message_id, orjson.loads(message.body)))
    return events


async def next_new(
    queue: aio_pika.abc.AbstractQueue, count: int, known: Sequence[Event] = (), *, timeout_s: float = LIMIT_S
) -> list[Event]:
    """Wait for so many events that are not known yet. Told twice in equal words, as any event can be, one counts once."""
    events: list[Event] = []

    async def arrived() -> bool:
        for event in await waiting_events(queue):
            if event not in known and event not in events:
                events.append(event)
        return len(events) >= count

    await eventually(arrived, timeout_s=timeout_s)
    return events


async def settled(servers: Servers, *calls: CallKey) -> None:
    """Wait until workers have folded all that was sent before, and no timer will look at these calls again.

    What there is to publish of them has been published then.
    """
    since_ms = round(time.time() * 1000) + 1000  # what was sent a moment ago is on its way
    store = Store(servers.stack.redis_url)

    async def is_over() -> bool:
        folded = await store.watermarks.folded_until()
        return (
            folded is not None
            and min([folded.ms, *(folded.of(key.source) for key in calls)]) >= since_ms
            and not set(calls) & set(await store.open_calls())
        )

    try:
        await eventually(is_over)
    finally:
        await store.aclose()


async def worker_at_work(servers: Servers) -> None:
    """Wait until a worker has passed a round: for one that is lost before that, timers wait a minute (`NEVER_CONSUMED_MS`)."""
    store = Store(servers.stack.redis_url)

    async def has_passed() -> bool:
        return any(member.at_work_since is not None for member in (await store.watermarks.reports()).members)

    try:
        await eventually(has_passed)
    finally:
        await store.aclose()


async def no_consumer(servers: Servers) -> None:
    """Wait until RabbitMQ has noticed that every worker has ended: it counts a consumer a moment longer than it runs."""

    async def left() -> bool:
        async with servers.queue("callbacks.fold") as queue:
            return (await queue.channel.declare_queue(queue.name, passive=True)).declaration_result.consumer_count == 0

    await eventually(left)


async def connected(*processes: ServiceProcess) -> None:
    """Wait until processes are connected to RabbitMQ and have no problem: ready after its first seconds, one can be without."""

    async def complaining() -> list[str]:
        found: list[str] = []
        async with aiohttp.ClientSession() as session:
            for process in processes:
                if b"broker_connected" not in process.log_path.read_bytes()[process.log_start :]:
                    found.append(process.name)
                async with session.get(process.metrics_url.replace("metrics", "readyz")) as ready:
                    found += (await ready.json())["problems"] or ([] if ready.status == 200 else [process.name])
        return found

    await eventually_nothing(complaining)


async def publisher_connected(process: ServiceProcess) -> None:
    """Wait until the connection of a process that publishes is up. A console is ready without it."""

    async def is_up() -> bool:
        log = process.log_path.read_bytes()[process.log_start :]
        return any(b"broker_connected" in line and b"publisher" in line for line in log.splitlines())

    await eventually(is_up)


async def metric(process: ServiceProcess, name: str) -> float:
    """Read one figure of a process; 0 where it has not told it yet."""
    async with aiohttp.ClientSession() as session, session.get(process.metrics_url) as response:
        lines = (await response.text()).splitlines()
    return next((float(line.split()[-1]) for line in lines if line.startswith(f"{name} ")), 0)


async def call_back(port: int, queries: Sequence[str], *, source: str = "default") -> list[int]:
    """Send callbacks one after the other, as FocalScope would; returns the statuses."""
    statuses = []
    async with aiohttp.ClientSession() as session:
        for query in queries:
            async with session.get(f"http://127.0.0.1:{port}/callbacks/{source}?{query}") as response:
                await response.read()
                statuses.append(response.status)
    return statuses


ROOT = Path(__file__).parents[2]
_MAIN = "from console.cli.main import main; from tests.helpers.shared_machine import keep_to; keep_to(); main()"
CALLFOLD = (sys.executable, "-c", f"import sys; sys.path.append({str(ROOT)!r}); {_MAIN}")


async def callfold(*arguments: str, **settings: str) -> tuple[int | None, str, str]:
    """Run a command; returns its exit code and what it wrote."""
    assert_may_start_processes()
    environment = os.environ | {"COLUMNS": "200", "NO_COLOR": "1"} | settings
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process: warm.WarmProcess | asyncio.subprocess.Process
        if warm.must_start_cold(settings):
            process = await asyncio.create_subprocess_exec(
                *CALLFOLD, *arguments, cwd=ROOT, env=environment, stdout=out, stderr=err
            )
        else:
            start = warm.starter().start
            process = await start(["callfold", *arguments], environment=environment, output=(out, err), is_session=False)
        try:
            async with asyncio.timeout(LIMIT_S):
                code = await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
        out.seek(0)
        err.seek(0)
        return code, out.read().decode(), err.read().decode()


async def exit_code(process: ServiceProcess, *, timeout_s: float = LIMIT_S) -> int:
    """Wait until a process has ended; minus the number of the signal that ended it."""
    async with asyncio.timeout(timeout_s):
        return await process.wait()


async def ended(directory: Path) -> None:
    """Wait until no process of a directory is left: helpers of RabbitMQ end a moment after it."""

    async def left() -> list[str]:
        return processes_of(directory)

    await eventually_nothing(left)


def processes_of(directory: Path) -> list[str]:
    """Processes that were started from a directory: it stands in their command line or environment."""
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        try:
            told = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except (OSError, ProcessLookupError):
            continue
        if str(directory).encode() in told:
            found.append(told[:200].decode("utf-8", "replace"))
    return found
