"""What the nemesis does inside a node of RabbitMQ, within milliseconds: `rabbitmqctl` would take seconds of CPU each time."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from tests.helpers.rabbitmq_cluster import Node

_LIMIT_S = 60


async def evaluate(node: Node, code: str) -> None:
    """Run Erlang in a node.

    Raises:
        RuntimeError: it failed, or took too long.
    """
    path = os.pathsep.join((node.environment["PATH"], "/usr/lib/erlang/bin", "/usr/lib64/erlang/bin"))
    program = shutil.which("erl_call", path=path)
    if program is None:  # not every distribution has it
        await node.run("rabbitmqctl", "eval", f"{code}.")
        return
    process = await asyncio.create_subprocess_exec(
        program,
        *("-sname", node.erlang_name, "-c", _cookie(node), "-e"),
        env=dict(node.environment),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(_LIMIT_S):
            output, _ = await process.communicate(f"{code}.\n".encode())
    except TimeoutError:
        process.kill()
        await process.wait()
        raise RuntimeError(f"{code} took more than {_LIMIT_S} s in {node.name}") from None
    if process.returncode or not output.startswith(b"{ok"):
        raise RuntimeError(f"{code} failed in {node.name}: {output.decode()}")


async def memory_alarm(node: Node, *, is_on: bool) -> None:
    mark = "{absolute, 1048576}" if is_on else "0.5"
    await evaluate(node, f"vm_memory_monitor:set_vm_memory_high_watermark({mark})")


async def disk_alarm(node: Node, *, is_on: bool) -> None:
    """Have a node hold that its disk is full, or lift the limit again: the disk of this machine may be fuller than it wants."""
    await evaluate(node, f"rabbit_disk_monitor:set_disk_free_limit({1 << 50 if is_on else 1_000_000})")


async def drain(node: Node) -> None:
    """Put a node into maintenance, as `rabbitmq-upgrade drain` does."""
    await evaluate(node, "rabbit_maintenance:drain()")


async def revive(node: Node) -> None:
    await evaluate(node, "rabbit_maintenance:revive()")


async def isolate(node: Node, others: Sequence[Node]) -> None:
    """Cut a node off from all others at once: no side accepts a connection while their secrets for each other differ."""
    await _each(node, others, "erlang:set_cookie(Node, cut_off)")
    await _each(node, others, "erlang:disconnect_node(Node)")


async def reunite(node: Node, others: Sequence[Node]) -> None:
    """End the isolation; the nodes find each other again by themselves."""
    await _each(node, others, f"erlang:set_cookie(Node, '{_cookie(node)}')")


async def _each(node: Node, others: Sequence[Node], code: str) -> None:
    names = ", ".join(f"'{other.erlang_name}'" for other in others)
    await evaluate(node, f"lists:foreach(fun(Node) -> {code} end, [{names}])")


def _cookie(node: Node) -> str:
    return Path(node.environment["HOME"], ".erlang.cookie").read_text("ascii")
