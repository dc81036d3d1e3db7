"""A wall clock that can be stepped for one process: a small library that is preloaded into it."""

from __future__ import annotations

import asyncio
import shutil
import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_SOURCE = Path(__file__).with_name("step_clock.c")


@dataclass(frozen=True, slots=True)
class Clock:
    """`environment` is for the process whose clock it is."""

    library: Path
    offset: Path

    @property
    def environment(self) -> Mapping[str, str]:
        return {"LD_PRELOAD": str(self.library), "STEP_CLOCK_FILE": str(self.offset)}

    def step(self, seconds: float) -> None:
        """Set the distance from the true time."""
        with self.offset.open("r+b") as file:
            file.write(struct.pack("=q", round(seconds * 1e9)))


async def stepping_clock(directory: Path, skipped: list[str]) -> Clock | None:
    """Compile the library. Without a compiler, `skipped` gets a sentence."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        skipped.append("no clock was stepped: there is no C compiler, or this is not Linux")
        return None
    clock = Clock(directory / "step_clock.so", directory / "step_clock.offset")
    clock.offset.write_bytes(bytes(8))
    process = await asyncio.create_subprocess_exec(compiler, "-O2", "-shared", "-fPIC", "-o", clock.library, _SOURCE)
    if await process.wait():
        skipped.append("no clock was stepped: the library that does it could not be compiled")
        return None
    return clock
