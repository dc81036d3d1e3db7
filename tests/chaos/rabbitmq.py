"""What the nemesis does inside a node of RabbitMQ, within milliseconds: `rabbitmqctl` would take seconds of CPU each time."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

from tests.helpers.rabbitmq_cluster import Node

_LIMIT_S = 60


async def call(node: Node, module: str, function: str, arguments: str = "") -> None:
    """Call a function of Erlang in a node.

    Raises:
        RuntimeError: it failed, or took too long.
    """
    path = os.pathsep.join((node.environment["PATH"], "/usr/lib/erlang/bin", "/usr/lib64/erlang/bin"))
    program = shutil.which("erl_call", path=path)
    if program is None:  # not every distribution has it
        await node.run("rabbitmqctl", "eval", f"{module}:{function}({arguments}).")
        return
    cookie = Path(node.environment["HOME"], ".erlang.cookie").read_text("ascii")
    command = ["-sname", node.erlang_name, "-c", cookie, "-a", f"{module} {function} [{arguments}]"]
    process = await asyncio.create_subprocess_exec(
        program, *command, env=dict(node.environment), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(_LIMIT_S):
            output, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise RuntimeError(f"{function} took more than {_LIMIT_S} s in {node.name}") from None
    if process.returncode or b"badrpc" in output:
        raise RuntimeError(f"{function} failed in {node.name}: {output.decode()}")


async def memory_alarm(node: Node, *, is_on: bool) -> None:
    await call(node, "vm_memory_monitor", "set_vm_memory_high_watermark", "{absolute,1048576}" if is_on else "0.5")


async def disk_alarm(node: Node, *, is_on: bool) -> None:
    """Have a node hold that its disk is full, or lift the limit again: the disk of this machine may be fuller than it wants."""
    await call(node, "rabbit_disk_monitor", "set_disk_free_limit", str(1 << 50) if is_on else "1000000")


async def drain(node: Node) -> None:
    """Put a node into maintenance, as `rabbitmq-upgrade drain` does."""
    await call(node, "rabbit_maintenance", "drain")


async def revive(node: Node) -> None:
    await call(node, "rabbit_maintenance", "revive")
