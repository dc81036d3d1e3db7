"""The check of the spool by `callfold doctor`."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from console.commands.doubt import DoubtError
from console.counts import counted
from ingress.spool import SPOOL_FILE, Spool
from ingress.spool_use import SpoolUse
from shared.config.settings import Settings

_ROOT = Path("/")


async def check_spool(settings: Settings) -> str:
    """Return a sentence about a spool that can be written.

    Raises:
        DoubtError: this is a container of another role, which has no spool.
        SpoolUnavailableError: the spool cannot be written.
    """
    directory = settings.spool_dir
    if await asyncio.to_thread(_is_of_another_role, directory):
        raise DoubtError(f"{directory} is read-only, as in a container without a spool. Run `callfold doctor` in ingress too.")
    was_there = (directory / SPOOL_FILE).exists()
    async with Spool(directory, max_bytes=settings.spool_max_bytes) as spool:
        await spool.check()
        waiting = await spool.count()
        if not was_there:
            await _delete_unused(spool, directory)
    return f"{directory} is writable; {counted(waiting, 'message')} spooled"


def _is_of_another_role(directory: Path) -> bool:
    """Return whether the directory is on a read-only root. The spool of an ingress is on a volume, and has files."""
    try:
        is_read_only = bool(os.statvfs(directory).f_flag & os.ST_RDONLY)
        return is_read_only and directory.stat().st_dev == _ROOT.stat().st_dev and not (directory / SPOOL_FILE).exists()
    except OSError:
        return False


async def _delete_unused(spool: Spool, directory: Path) -> None:
    """Delete the file that the check made, unless a process has begun to use the directory."""
    use = await asyncio.to_thread(SpoolUse, directory)
    try:
        if use.try_exclude():
            await spool.delete_if_empty()
    finally:
        use.close()
