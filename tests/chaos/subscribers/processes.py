"""The processes that subscribe in a chaos run: forwarders with a receiver of webhooks, and a program for each client."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from console.local.child_process import ChildProcess
from console.local.ports import free_port
from console.local.processes import ServiceProcess
from tests.chaos.audit.subscribers import ORDERED
from tests.chaos.links import ROOT
from tests.chaos.subscribers.received import READY
from tests.chaos.subscribers.receiver import NAMES, TIMEOUT_S
from tests.chaos.system import System, service_process
from tests.helpers.pace import LIMIT_S

NEWCOMER = "newcomer"
_FORWARDERS = 2
_SECRET = "whsec_" + "Y2FsbGZvbGQgY2hhb3MgcmVjZWl2ZXIgc2VjcmV0IQ=="  # opens nothing
_RETRY_S = (1, 1, 1, 2, 2, 4, 4, *(8,) * 12)
_NODE_PROGRAM = ROOT / "tests" / "chaos" / "subscribers" / "node_client.mjs"
_NODE_CLIENT = ROOT / "clients" / "typescript"


class Subscriber(ChildProcess):
    """A program that subscribes, and writes what it receives for the auditor."""

    def __init__(self, system: System, name: str, *command: str) -> None:
        (system.audit / f"received-{name}.jsonl").touch()  # so that one that receives nothing is found too
        super().__init__(name, command, os.environ, log=system.logs / f"{name}.log")

    async def start(self) -> None:
        """Start it and wait until its queue exists: from then on it misses nothing."""
        await self.start_until(self._is_ready, within_s=LIMIT_S)

    async def _is_ready(self) -> bool:
        return READY in self.log_tail().splitlines()


async def add_subscribers(system: System, shared: Mapping[str, str]) -> list[Subscriber | ServiceProcess]:
    """Add forwarders and subscribers to a system. Returns those that start with it; the newcomer starts later."""
    receiver_port = free_port()
    receiver = Subscriber(
        system,
        "receiver",
        sys.executable,
        "-m",
        "tests.chaos.subscribers.receiver",
        str(system.audit),
        str(receiver_port),
        _SECRET,
    )
    (system.audit / "received-receiver.jsonl").unlink()  # it writes one for each of its endpoints
    for name in NAMES:
        (system.audit / f"received-{name}.jsonl").touch()
    link = await system.links.open("forwarder-receiver", "forwarders", "receiver", receiver_port)
    endpoints = system.directory / "endpoints.toml"
    endpoints.write_text("\n".join(_endpoint(name, link) for name in NAMES), "utf-8")
    settings = {
        **shared,
        "CALLFOLD_ENDPOINTS": str(endpoints),
        "CALLFOLD_FORWARD_RETRY_SECONDS": ",".join(map(str, _RETRY_S)),
    }
    for number in range(1, _FORWARDERS + 1):
        process = await service_process(system, f"forwarder-{number}", "worker.forwarding", settings, kind="forwarder")
        system.forwarders.append(process)
    subscribers = [await _python(system, "python")]
    if node := await _node(system):
        subscribers.append(node)
    system.newcomer = await _python(system, NEWCOMER, "first")
    system.subscribers += subscribers
    return [receiver, *system.forwarders, *subscribers]


def _endpoint(name: str, port: int) -> str:
    lines = [
        f"[endpoints.{name}]",
        f'url = "http://127.0.0.1:{port}/{name}"',
        'filter = "#"',
        f'secret = "{_SECRET}"',
        'networks = ["127.0.0.0/8"]',
        f"timeout_s = {TIMEOUT_S}",
        *(['order = "call"'] if name.endswith(ORDERED) else []),
    ]
    return "\n".join(lines) + "\n"


async def _python(system: System, name: str, *more: str) -> Subscriber:
    program = ("-m", "tests.chaos.subscribers.python_client", str(system.audit), name, await _urls(system, name), *more)
    return Subscriber(system, name, sys.executable, *program)


async def _node(system: System) -> Subscriber | None:
    node = shutil.which("node")
    if node is None or not Path(_NODE_CLIENT, "dist", "index.js").exists():
        system.skipped.append("the TypeScript client: `make test-clients` builds it")
        return None
    return Subscriber(system, "node", node, str(_NODE_PROGRAM), str(system.audit), "node", await _urls(system, "node"))


async def _urls(system: System, name: str) -> str:
    ports = [await system.links.open("subscriber-rabbitmq", name, node.name, node.port) for node in system.nodes]
    return ",".join(f"amqp://guest:guest@127.0.0.1:{port}/" for port in ports)
