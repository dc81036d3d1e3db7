"""A chaos run as a process: `python -m tests.chaos`."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from console.local.child_process import kill_with_parent
from tests.chaos.links import ROOT
from tests.helpers.servers import UNMEASURED


async def chaos_run(directory: Path, *, within_s: float, **options: str) -> tuple[int, str]:
    """Run it; returns the exit code and what it wrote."""
    process = await asyncio.create_subprocess_exec(
        *kill_with_parent(),
        *(sys.executable, "-m", "tests.chaos"),
        cwd=ROOT,
        env=os.environ | UNMEASURED | {"CHAOS_DIRECTORY": str(directory), **options},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(within_s):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    return process.returncode or 0, output.decode()
