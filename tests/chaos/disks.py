"""Small file systems that can be filled: a tmpfs each, in a mount namespace that ends with the run."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

_IN_NAMESPACE = "CHAOS_MOUNTS"
_BLOCK = bytes(1 << 16)


@dataclass(frozen=True, slots=True)
class Disk:
    directory: Path

    @property
    def _ballast(self) -> Path:
        return self.directory / ".ballast"

    def fill(self) -> None:
        """Fill it to the last block."""
        with self._ballast.open("ab", buffering=0) as file:
            for size in (len(_BLOCK), 512):
                try:
                    while file.write(_BLOCK[:size]):
                        pass
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise

    def empty(self) -> None:
        self._ballast.unlink(missing_ok=True)

    async def unmount(self) -> None:
        """Leave an empty directory, which can be deleted, even while a file is open: its blocks go with the last use."""
        process = await asyncio.create_subprocess_exec("umount", "-l", self.directory)
        await process.wait()


def may_mount() -> bool:
    return os.environ.get(_IN_NAMESPACE) == "1"


def enter_namespace(command: list[str]) -> None:
    """Replace this process by itself in a mount namespace of its own; return where that is not allowed."""
    unshare = ["unshare", "--mount", "--propagation", "private"]
    if _IN_NAMESPACE in os.environ or os.geteuid() or not shutil.which("unshare"):
        return
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode == 0:
        os.execvpe("unshare", [*unshare, *command], os.environ | {_IN_NAMESPACE: "1"})  # noqa: S606 - this very program


async def small_disk(directory: Path, size_bytes: int, skipped: list[str]) -> Disk | None:
    """Mount a file system of this size. Where that is not allowed, it is a directory, and `skipped` gets a sentence."""
    directory.mkdir(exist_ok=True)
    if not may_mount():
        skipped.append(f"the disk of {directory.name} was not filled: only root may mount a small one")
        return None
    process = await asyncio.create_subprocess_exec("mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", directory)
    if await process.wait():
        skipped.append(f"the disk of {directory.name} was not filled: it could not be mounted")
        return None
    return Disk(directory)
