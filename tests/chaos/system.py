"""The system under test: servers, links and processes of Callfold on loopback, in one directory."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from console.local.child_process import ChildProcess
from console.local.ports import free_port
from console.local.processes import ServiceProcess
from console.local.stack import Server
from shared.domain.adapter_link import make_link
from tests.chaos.clock import Clock, stepping_clock
from tests.chaos.disks import Disk, small_disk
from tests.chaos.links import ROOT, Links
from tests.chaos.options import Options
from tests.chaos.redis import RedisServers, redis_servers
from tests.helpers.rabbitmq_cluster import Node, RabbitMQCluster

SOURCE, PROBE = "acme", "probe"
RETRY_S = (1, 2, 4, 8, 15, 30, 30, 30)
_STOP_S = 20
_DISKS = {"archive": 512 << 20, "ingress-1-spool": 8 << 20}
_ARCHIVED_BYTES = 4 << 10  # of a callback, on average: each leg has a file that takes a page


@dataclass(slots=True)
class System:
    """Everything that the nemesis can break."""

    options: Options
    directory: Path
    links: Links
    nodes: list[Node]
    redis: RedisServers
    secret: str
    pbx_port: int
    public_port: int
    haproxy: Server | None = None
    ingresses: list[ServiceProcess] = field(default_factory=list)
    workers: list[ServiceProcess] = field(default_factory=list)
    spare_workers: list[ServiceProcess] = field(default_factory=list)
    settings: Mapping[str, str] = field(default_factory=dict)
    """What all processes of Callfold share."""
    forwarders: list[ServiceProcess] = field(default_factory=list)
    subscribers: list[ChildProcess] = field(default_factory=list)
    newcomer: ChildProcess | None = None
    """A subscriber that begins in the middle of the run, and replays what it missed."""
    disks: dict[str, Disk] = field(default_factory=dict)
    clock: Clock | None = None
    skipped: list[str] = field(default_factory=list)

    @property
    def public_url(self) -> str:
        return f"http://127.0.0.1:{self.public_port}"

    @property
    def archive(self) -> Path:
        return self.directory / "archive"

    @property
    def audit(self) -> Path:
        """The directory of what was sent, published and done: all that the auditor reads."""
        return self.directory / "audit"

    @property
    def logs(self) -> Path:
        return self.directory / "logs"

    def adapter(self, source: str) -> str:
        return make_link(self.public_url, source, self.secret)

    @property
    def amqp_urls(self) -> list[str]:
        """The addresses of the nodes themselves, for those that are not under test."""
        return [node.amqp_url for node in self.nodes]

    @property
    def queues(self) -> list[str]:
        """Every queue that must be empty at the end."""
        retries = [f"recordings.retry.{delay_s:g}s" for delay_s in sorted(set(RETRY_S))]
        forwarded = ["forward.webhook", "forward.webhook-ordered", "forward.dead"] if self.options.subscribers else []
        return ["callbacks.fold", "recordings", "callbacks.dead", "recordings.dead", *retries, *forwarded]

    @property
    def spools(self) -> list[Path]:
        return [self.directory / f"{process.name}-spool" for process in self.ingresses]


@asynccontextmanager
async def running(options: Options, directory: Path) -> AsyncIterator[System]:
    """Start everything; at the end, or if a start fails, nothing is left running."""
    async with AsyncExitStack() as closing:
        links = await closing.enter_async_context(Links())
        cluster = RabbitMQCluster(directory / "rabbitmq", nodes=options.nodes)
        await closing.enter_async_context(cluster)
        clients = [f"worker-{number}" for number in range(1, options.workers + 2)]
        redis = await closing.enter_async_context(redis_servers(options.redis, directory, links, clients))
        system = System(options, directory, links, cluster.nodes, redis, secrets.token_urlsafe(16), free_port(), free_port())
        for part in (system.archive, system.logs, system.audit):
            part.mkdir()
        more_bytes = {"archive": round(options.rate * options.seconds * _ARCHIVED_BYTES)}
        for name, least_bytes in _DISKS.items():
            size_bytes = least_bytes + more_bytes.get(name, 0)
            if disk := await small_disk(directory / name, size_bytes, system.skipped):
                system.disks[name] = disk
                closing.push_async_callback(disk.unmount)
        system.clock = await stepping_clock(directory, system.skipped)
        await _add_processes(system)
        everything = (*system.ingresses, *system.workers, *system.spare_workers)
        for process in everything:
            closing.push_async_callback(end_process, process)
        async with asyncio.TaskGroup() as group:
            for process in (*system.ingresses, *system.workers):
                group.create_task(process.start())
        await _start_haproxy(system, closing)
        yield system


async def end_process(process: ChildProcess) -> None:
    """End a process in order; one that is frozen goes on first."""
    if process.is_running:
        process.resume()
    await process.end(signal.SIGTERM, within_s=_STOP_S)


async def _add_processes(system: System) -> None:
    options, links = system.options, system.links
    recordings = await links.open("worker-pbx", "workers", "pbx", system.pbx_port)
    sources = system.directory / "sources.toml"
    lines = [
        f'[sources.{name}]\nsecret = "{system.secret}"\nrecording_origin = "http://127.0.0.1:{recordings}"\n'
        for name in (SOURCE, PROBE)
    ]
    sources.write_text("\n".join(lines), "utf-8")
    shared = system.settings = {
        **{name: value for name, value in os.environ.items() if not name.startswith("CALLFOLD_")},
        "CALLFOLD_SPOOL_DRAIN_SECONDS": "5",  # the nemesis waits 25 s for the end of a process
        # Short, so that calls that lost callbacks are closed within the run. Longer than a frozen process holds callbacks.
        "CALLFOLD_SETTLE_SECONDS": "5",
        "CALLFOLD_LEG_GRACE_SECONDS": f"{options.leg_grace_s:g}",
        "CALLFOLD_MAX_CALL_SECONDS": f"{options.max_call_s:g}",
        "CALLFOLD_SOURCES": str(sources),
        "CALLFOLD_ARCHIVE_URL": system.archive.as_uri(),
        "CALLFOLD_RECORDING_RETRY_SECONDS": ",".join(map(str, RETRY_S)),
        "CALLFOLD_REDIS_REPLICAS": "0" if options.redis == "single" else "1",
        "CALLFOLD_LOG_FORMAT": "json",
    }
    for number in range(1, options.ingresses + 1):
        name = f"ingress-{number}"
        spool = str(system.directory / f"{name}-spool")
        settings = {"CALLFOLD_INGRESS_PORT": str(free_port()), "CALLFOLD_SPOOL_DIR": spool}
        system.ingresses.append(await service_process(system, name, "ingress", shared | settings))
    for number in range(1, options.workers + 2):
        name = f"worker-{number}"
        settings = {
            "CALLFOLD_REDIS_URL": system.redis.urls[name],
            "CALLFOLD_RECORDING_DIR": str(system.directory / f"{name}-downloads"),
        }
        if number == 1 and system.clock is not None:
            settings |= system.clock.environment
        process = await service_process(system, name, "worker", shared | settings)
        (system.workers if number <= options.workers else system.spare_workers).append(process)


async def service_process(
    system: System, name: str, module: str, settings: Mapping[str, str], *, kind: str = ""
) -> ServiceProcess:
    """Make a process whose connections to each node of RabbitMQ are a link."""
    ports = [await system.links.open(f"{kind or module}-rabbitmq", name, node.name, node.port) for node in system.nodes]
    metrics_port = free_port()
    environment = {
        **settings,
        "CALLFOLD_AMQP_URL": ",".join(f"amqp://guest:guest@127.0.0.1:{port}/" for port in ports),
        "CALLFOLD_METRICS_PORT": str(metrics_port),
        "CALLFOLD_METRICS_HOST": "127.0.0.1",
    }
    return ServiceProcess(name, module, environment, metrics_port=metrics_port, log=system.logs / f"{name}.log")


async def _start_haproxy(system: System, closing: AsyncExitStack) -> None:
    port = free_port()
    system.public_port = await system.links.open("pbx-haproxy", "pbx", "haproxy", port, port=system.public_port)
    settings = {"LB_BIND": f"127.0.0.1:{port}"}
    for number in (1, 2):  # the shipped configuration has two
        process = system.ingresses[min(number, len(system.ingresses)) - 1]
        to = int(process.environment["CALLFOLD_INGRESS_PORT"])
        settings[f"LB_INGRESS_{number}"] = f"127.0.0.1:{await system.links.open('haproxy-ingress', 'haproxy', process.name, to)}"
        checks = await system.links.open("haproxy-ingress", "haproxy", process.name, process.metrics_port)
        settings[f"LB_INGRESS_{number}_CHECK_PORT"] = str(checks)
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
    command = ["haproxy", "-f", str(ROOT / "deploy" / "haproxy.cfg")]
    system.haproxy = Server(
        "haproxy", command, os.environ | settings | {"PATH": path}, port=port, log=system.logs / "haproxy.log"
    )
    closing.push_async_callback(system.haproxy.kill)
    await system.haproxy.start()
